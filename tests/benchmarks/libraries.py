"""The same strategies in other libraries (extra `bench`). Each function returns a callable that selects a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from modAL.batch import uncertainty_batch_sampling
from modAL.disagreement import consensus_entropy_sampling, max_disagreement_sampling, vote_entropy_sampling
from modAL.models import ActiveLearner, Committee
from modAL.uncertainty import entropy_sampling, margin_sampling, uncertainty_sampling
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import (
    Badge,
    BatchBALD,
    Clue,
    ContrastiveAL,
    CoreSet,
    DiscriminativeAL,
    DropQuery,
    Falcun,
    GreedyBALD,
    MaxHerding,
    ProbCover,
    QueryByCommittee,
    RandomSampling,
    TypiClust,
    UncertaintySampling,
)
from sklearn.linear_model import LogisticRegression

from tests.benchmarks.sizes import N_CLASSES
from tests.benchmarks.task import N_LABELS, Indices, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # syntax of older Pythons
    from small_text.query_strategies import BreakingTies, LeastConfidence, PredictionEntropy
    from small_text.query_strategies.coresets import GreedyCoreset
    from small_text.query_strategies.strategies import ContrastiveActiveLearning, EmbeddingKMeans

SelectBatch = Callable[[], Indices]


def activeml(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a scikit-activeml strategy that looks at the features."""
    y = labels(task)
    return lambda: np.asarray(strategy.query(task.rows, y, batch_size=task.batch_size))


def activeml_with_model(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a scikit-activeml strategy with a fitted model."""
    model, y = as_activeml(task.model), labels(task)
    model.fit(task.rows[:N_LABELS], task.codes)
    more = {"fit_estimator" if isinstance(strategy, Clue) else "fit_clf": False}
    return lambda: np.asarray(strategy.query(task.rows, y, model, batch_size=task.batch_size, **more))


def activeml_with_members(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a scikit-activeml strategy with a fitted committee."""
    y, members = labels(task), []
    for member, (X, codes) in zip(task.members, task.member_rows, strict=True):
        members.append(as_activeml(member).fit(X, codes))
    query = partial(strategy.query, task.rows, y, members, fit_ensemble=False, batch_size=task.batch_size)
    return lambda: np.asarray(query())


def activeml_discriminative(task: Task) -> SelectBatch:
    """Return a query of scikit-activeml's discriminative strategy."""
    y, strategy = labels(task), DiscriminativeAL(greedy_selection=True, random_state=0)
    discriminator = SklearnClassifier(LogisticRegression(), classes=range(2))
    return lambda: np.asarray(strategy.query(task.rows, y, discriminator=discriminator, batch_size=task.batch_size))


def as_activeml(model: Any) -> SklearnClassifier:
    """Return scikit-activeml's wrapper of a model like this one, not fitted."""
    return SklearnClassifier(LogisticRegression(**model.get_params()), classes=range(N_CLASSES))


def modal(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a modAL strategy, which takes the unlabelled rows only and returns positions in them."""
    return modal_query(strategy, learner(task.rows[:N_LABELS], task.codes), task)


def modal_with_members(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a modAL strategy with a committee."""
    return modal_query(strategy, Committee([learner(*rows) for rows in task.member_rows]), task)


def modal_query(strategy: Any, model: Any, task: Task) -> SelectBatch:
    rest = task.rows[N_LABELS:]
    return lambda: strategy(model, rest, n_instances=task.batch_size)[0] + N_LABELS


def learner(X: Any, codes: Indices) -> ActiveLearner:
    return ActiveLearner(LogisticRegression(max_iter=1000, random_state=0), X_training=X, y_training=codes)


JOINT_LABELS = 1_000
"""Joint labels of a batch that BatchBALD draws, as many as this service's; by itself it draws one for each member."""


class Embedded:
    """A fitted model as small-text's strategies call one: the features are the texts' embeddings."""

    def __init__(self, task: Task) -> None:
        self.model = task.model

    def predict_proba(self, dataset: Any) -> Any:
        return self.model.predict_proba(dataset)

    def embed(self, dataset: Any, *, return_proba: bool = False, pbar: object = None) -> Any:
        return (dataset, self.predict_proba(dataset)) if return_proba else dataset


def small_text(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a small-text strategy."""
    rest, model = np.arange(N_LABELS, task.n_rows), Embedded(task)
    query = partial(strategy.query, model, task.rows, rest, np.arange(N_LABELS), task.codes, n=task.batch_size)
    return lambda: np.asarray(query(pbar=None) if isinstance(strategy, WITH_A_BAR) else query())


WITH_A_BAR = (GreedyCoreset, ContrastiveActiveLearning, EmbeddingKMeans)


def labels(task: Task) -> np.ndarray:
    """Labels as scikit-activeml expects them: NaN for unlabelled rows."""
    return np.concatenate([task.codes, np.full(task.n_rows - N_LABELS, np.nan)])


ACTIVEML = {
    "random": (activeml, RandomSampling),
    "k_center": (activeml, CoreSet),
    "typiclust": (activeml, TypiClust),
    "prob_cover": (activeml, partial(ProbCover, n_classes=N_CLASSES)),
    "max_herding": (activeml, MaxHerding),
    "margin": (activeml_with_model, partial(UncertaintySampling, "margin_sampling")),
    "least_confidence": (activeml_with_model, partial(UncertaintySampling, "least_confident")),
    "entropy": (activeml_with_model, partial(UncertaintySampling, "entropy")),
    "badge": (activeml_with_model, Badge),
    "clue": (activeml_with_model, Clue),
    "contrastive": (activeml_with_model, ContrastiveAL),
    "drop_query": (activeml_with_model, DropQuery),
    "falcun": (activeml_with_model, Falcun),
    "batch_bald": (activeml_with_members, partial(BatchBALD, n_MC_samples=JOINT_LABELS)),
    "bald": (activeml_with_members, GreedyBALD),
    "vote_entropy": (activeml_with_members, partial(QueryByCommittee, "vote_entropy")),
    "variation_ratio": (activeml_with_members, partial(QueryByCommittee, "variation_ratios")),
    "max_disagreement": (activeml_with_members, partial(QueryByCommittee, "KL_divergence")),
}
MODAL = {
    "margin": (modal, margin_sampling),
    "least_confidence": (modal, uncertainty_sampling),
    "entropy": (modal, entropy_sampling),
    "ranked_batch": (modal, uncertainty_batch_sampling),
    "vote_entropy": (modal_with_members, vote_entropy_sampling),
    "consensus_entropy": (modal_with_members, consensus_entropy_sampling),
    "max_disagreement": (modal_with_members, max_disagreement_sampling),
}
SMALL_TEXT = {
    "margin": BreakingTies,
    "least_confidence": LeastConfidence,
    "entropy": PredictionEntropy,
    "k_center": partial(GreedyCoreset, normalize=False),
    "k_means": partial(EmbeddingKMeans, normalize=False),
    "contrastive": partial(ContrastiveActiveLearning, normalize=False),
}

LIBRARY_STRATEGIES: dict[tuple[str, str], Callable[[Task], SelectBatch]] = {
    ("scikit-activeml", "discriminative"): activeml_discriminative,
    **{("scikit-activeml", name): partial(prepare, make(random_state=0)) for name, (prepare, make) in ACTIVEML.items()},
    **{("modAL", name): partial(prepare, strategy) for name, (prepare, strategy) in MODAL.items()},
    **{("small-text", name): partial(small_text, make()) for name, make in SMALL_TEXT.items()},
}
