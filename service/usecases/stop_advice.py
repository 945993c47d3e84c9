"""Advice whether to go on labelling, from the evidence of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.domain.project import LabelsScore, NumberScore, Project, quote_label
from service.learning.confident_learning import MIN_OF_CLASS
from service.usecases.evaluation import Evaluation
from service.usecases.expected_gain import ExpectedGain, is_error

Verdict = Literal["continue", "nearly", "stop"]

THRESHOLD = 0.99
"""The mean kappa of successive models from which predictions count as stable (Bloodgood & Vijay-Shanker 2009)."""

THRESHOLD_OF_NUMBERS = 0.95
"""The same for numbers: the change of predictions is under a twentieth of their standard deviation."""

WINDOW = 3
"""Number of kappas in the mean."""

SMALL_GAIN = 0.02
"""The gain of accuracy or F1 by twice the labels below which more labels are not worth it."""

SMALL_DROP = 0.05
"""The same of the RMSE, as a share of it."""

MANY_SUSPECTS = 0.05
"""The share of suspect labels from which it is better to check labels than to add some."""


@dataclass(frozen=True, slots=True)
class StabilizingPredictions:
    """The mean agreement of the last models with the one before each, over `n_models` of them; None without any."""

    kappa: float | None
    threshold: float
    n_models: int
    measure: str = "kappa"

    @property
    def is_stable(self) -> bool:
        """Whether enough models agree."""
        return self.kappa is not None and self.n_models == WINDOW and self.kappa >= self.threshold


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the advice is derived from."""

    stability: StabilizingPredictions
    gain: ExpectedGain
    evaluation: Evaluation
    n_suspects: int


def stabilizing_predictions(project: Project) -> StabilizingPredictions:
    """Return how much the last models of a project agree on its stop set."""
    kappas = project.learning_curve.points["kappa"]
    last = kappas[~np.isnan(kappas)][-WINDOW:]
    mean = float(last.mean()) if len(last) else None
    if project.target == "number":
        return StabilizingPredictions(mean, THRESHOLD_OF_NUMBERS, len(last), "1 less the relative change")
    return StabilizingPredictions(mean, THRESHOLD, len(last))


def advise(project: Project, evidence: Evidence) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons, the decisive ones first."""
    if project.n_unlabeled == 0:
        done = ["Every sample is labelled or skipped: there is nothing left to ask."]
        if project.model is not None:
            done.append(describe_accuracy(project, evidence.evaluation))
        return "stop", [*done, *warnings(project, evidence)]
    if project.model is None:
        if project.can_fit:
            return "continue", ["There is no model yet: the first fit is not done."]
        if project.target == "number":
            return "continue", [f"There is no model yet: it takes two labels, and there are {project.n_labeled}."]
        if project.target == "labels":
            n = project.n_classes_labeled
            return "continue", [f"There is no model yet: it takes two different labels, and there are {n}."]
        n = project.n_classes_labeled
        return "continue", [f"There is no model yet: it takes labels of two classes, and there are labels of {n}."]
    reasons = [
        describe_stability(evidence.stability),
        describe_gain(project, evidence.gain),
        describe_accuracy(project, evidence.evaluation),
        *warnings(project, evidence),
    ]
    return decide(evidence.stability, is_small(project, evidence.gain)), reasons


def decide(stability: StabilizingPredictions, is_small_gain: bool | None) -> Verdict:
    """Return the verdict: both the models' agreement and a small expected gain, if it is known, are needed to stop."""
    if is_small_gain and stability.is_stable:
        return "stop"
    return "nearly" if is_small_gain or stability.is_stable else "continue"


def is_small(project: Project, gain: ExpectedGain) -> bool | None:
    """Return whether twice the labels are expected to add little, None if that is not known."""
    if gain.by_doubling is None:
        return None
    now = gain.curve[-1][1] if is_error(project) else 1.0
    return gain.by_doubling.value < (SMALL_DROP if is_error(project) else SMALL_GAIN) * now


def describe_stability(found: StabilizingPredictions) -> str:
    """Say how much the last models agree."""
    if found.kappa is None or found.n_models < WINDOW:
        return f"Too few fits to say whether predictions still change: {found.n_models} of {WINDOW}."
    what = "hardly change any more" if found.is_stable else "still change"
    return (
        f"Predictions {what}: the agreement of the last {WINDOW} models with the one before each is {found.kappa:.3f} "
        f"({found.measure}; {found.threshold} counts as stable)."
    )


def describe_gain(project: Project, gain: ExpectedGain) -> str:
    """Say what more labels are expected to add."""
    if gain.next_batch is None or gain.by_doubling is None:
        return f"How much more labels would add is unknown. {gain.measured_on}"
    double = gain.by_doubling
    if is_error(project):
        return (
            f"The next {gain.n_labels} labels are expected to lower the RMSE by {gain.next_batch:.3g}, and twice as "
            f"many labels as now by {double.value:.3g} (between {double.low:.3g} and {double.high:.3g})."
        )
    score = "accuracy" if project.target == "class" else "F1 (micro)"
    return (
        f"The next {gain.n_labels} labels are expected to add {points_of(gain.next_batch)} of {score}, and twice as "
        f"many labels as now {points_of(double.value)} (between {100 * double.low:.1f} and {100 * double.high:.1f})."
    )


def points_of(share: float) -> str:
    """Return a share in percentage points."""
    return f"{100 * share:.1f} points"


def describe_accuracy(project: Project, evaluation: Evaluation) -> str:
    """Say how good the model is, on the held-out set if there is one."""
    if isinstance(project.test_score, NumberScore):
        score = project.test_score
        return f"The model's RMSE on the held-out set is {score.rmse:.4g}, and its R2 is {score.r2:.3f}."
    if isinstance(project.test_score, LabelsScore):
        f1_micro, f1_macro = project.test_score.f1_micro, project.test_score.f1_macro
        return f"The model's F1 on the held-out set is {f1_micro:.3f} (micro) and {f1_macro:.3f} (macro)."
    if project.test_score is not None:
        return f"The model is right about {100 * project.test_score.accuracy:.1f} % of the held-out set."
    if project.target == "number":
        return describe_error(evaluation)
    if project.target == "labels":
        return describe_f1(evaluation)
    if evaluation.accuracy is None:
        return f"The accuracy is unknown. {evaluation.reason}"
    low, high = 100 * evaluation.accuracy.low, 100 * evaluation.accuracy.high
    return (
        f"The model is right about {100 * evaluation.accuracy.value:.1f} % of the pool (95 % interval: {low:.1f} to "
        f"{high:.1f} %)."
    )


def describe_error(evaluation: Evaluation) -> str:
    """Say how good a model of numbers is on the pool."""
    if evaluation.rmse is None:
        return f"The model's error is unknown. {evaluation.reason}"
    rmse = evaluation.rmse
    return f"The model's RMSE on the pool is {rmse.value:.4g} (95 % interval: {rmse.low:.4g} to {rmse.high:.4g})."


def describe_f1(evaluation: Evaluation) -> str:
    """Say how good a model of several labels a sample is on the pool."""
    if evaluation.f1_micro is None:
        return f"The model's F1 is unknown. {evaluation.reason}"
    f1 = evaluation.f1_micro
    return f"The model's F1 (micro) on the pool is {f1.value:.3f} (95 % interval: {f1.low:.3f} to {f1.high:.3f})."


def warnings(project: Project, evidence: Evidence) -> list[str]:
    """Say what is better done before more labels, or before trusting the verdict."""
    found = []
    counts = zip(project.classes, project.class_counts, strict=True)
    rare = [quote_label(label) for label, n in counts if n < MIN_OF_CLASS]
    if rare:
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        found.append(f"Classes with fewer than {MIN_OF_CLASS} labels: {', '.join(rare[:5])}{more}.")
    if evidence.n_suspects > MANY_SUSPECTS * project.n_labeled:
        share = 100 * evidence.n_suspects / project.n_labeled
        found.append(
            f"Labels that may be wrong: {evidence.n_suspects} ({share:.0f} %). Check the suspect labels first."
        )
    if project.n_labels_since_fit:
        found.append(f"Labels that the model has not seen yet: {project.n_labels_since_fit}.")
    return found
