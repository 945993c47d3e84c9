"""The same strategies in other libraries (extra `bench`). Each function returns a callable that selects a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from modAL.batch import uncertainty_batch_sampling
from modAL.density import information_density
from modAL.disagreement import consensus_entropy_sampling, max_disagreement_sampling, vote_entropy_sampling
from modAL.models import ActiveLearner, Committee
from modAL.uncertainty import classifier_entropy, entropy_sampling, margin_sampling, uncertainty_sampling
from scipy.sparse import csr_matrix
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
    GreedySamplingTarget,
    GreedySamplingX,
    MaxHerding,
    MonteCarloEER,
    ProbCover,
    QueryByCommittee,
    RandomSampling,
    TypiClust,
    UncertaintySampling,
)
from skactiveml.regressor import SklearnRegressor
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from tests.benchmarks.sizes import N_CLASSES
from tests.benchmarks.task import N_LABELS, N_MEMBERS, Indices, NumberTask, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # syntax of older Pythons
    from small_text.classifiers.factories import SklearnClassifierFactory
    from small_text.data.datasets import SklearnDataset
    from small_text.query_strategies import BreakingTies, LeastConfidence, PredictionEntropy
    from small_text.query_strategies import RandomSampling as SmallTextRandom
    from small_text.query_strategies.coresets import GreedyCoreset
    from small_text.query_strategies.strategies import (
        ContrastiveActiveLearning,
        DiscriminativeActiveLearning,
        EmbeddingKMeans,
    )

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


def activeml_expected_error(task: Task) -> SelectBatch:
    """Return a query of scikit-activeml's expected error reduction among the rows of least margin, as many as ours."""
    model, y = as_activeml(task.model), labels(task)
    model.fit(task.rows[:N_LABELS], task.codes)
    strategy = MonteCarloEER(method="log_loss", random_state=0)

    def query() -> Indices:
        first_two = np.partition(model.predict_proba(task.rows[N_LABELS:]), -2, axis=1)[:, -2:]
        tried = N_LABELS + np.argsort(first_two[:, 1] - first_two[:, 0])[:CONTENDERS]
        batch = strategy.query(task.rows, y, model, candidates=tried, batch_size=task.batch_size)
        return np.asarray(batch)

    return query


CONTENDERS = 20
"""Rows that expected error reduction tries here by default."""


def activeml_of_numbers(strategy: Any, task: NumberTask) -> SelectBatch:
    """Return a query of a scikit-activeml strategy with a regression."""
    more = {"fit_reg": True, "batch_size": task.batch_size}
    return lambda: np.asarray(strategy.query(task.rows, numbers(task), as_regressor(task.regressor), **more))


def activeml_variance(task: NumberTask) -> SelectBatch:
    """Return a query by scikit-activeml of the rows on which a committee of regressions differs most."""
    drawn = np.random.default_rng(0).integers(N_LABELS, size=(N_MEMBERS, N_LABELS))
    bag = zip(task.bag.members, drawn, strict=True)
    members = [as_regressor(member).fit(task.rows[rows], task.numbers[rows]) for member, rows in bag]
    y, strategy = numbers(task), QueryByCommittee(random_state=0)
    more = {"fit_ensemble": False, "batch_size": task.batch_size}
    return lambda: np.asarray(strategy.query(task.rows, y, members, **more))


def numbers(task: NumberTask) -> np.ndarray:
    """Numbers as scikit-activeml expects them: NaN for unlabelled rows."""
    return np.concatenate([task.numbers, np.full(task.n_rows - N_LABELS, np.nan)])


def as_regressor(model: Any) -> SklearnRegressor:
    """Return scikit-activeml's wrapper of a regression like this one, not fitted."""
    return SklearnRegressor(clone(model))


def as_activeml(model: Any) -> SklearnClassifier:
    """Return scikit-activeml's wrapper of a model like this one, not fitted."""
    return SklearnClassifier(LogisticRegression(**model.get_params()), classes=range(N_CLASSES))


def modal(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a modAL strategy, which takes the unlabelled rows only and returns positions in them."""
    return modal_query(strategy, learner(task.rows[:N_LABELS], task.codes), task)


def modal_with_members(strategy: Any, task: Task) -> SelectBatch:
    """Return a query of a modAL strategy with a committee."""
    return modal_query(strategy, Committee([learner(*rows) for rows in task.member_rows]), task)


def modal_density(task: Task) -> SelectBatch:
    """Return modAL's information density, multiplied by its entropy as its documentation shows."""
    model, rest = learner(task.rows[:N_LABELS], task.codes), task.rows[N_LABELS:]

    def query() -> Indices:
        scores = classifier_entropy(model, rest) * information_density(rest, "cosine")
        return N_LABELS + np.argsort(-scores)[: task.batch_size]

    return query


def modal_query(strategy: Any, model: Any, task: Task) -> SelectBatch:
    rest = task.rows[N_LABELS:]
    return lambda: strategy(model, rest, n_instances=task.batch_size)[0] + N_LABELS


def learner(X: Any, codes: Indices) -> ActiveLearner:
    return ActiveLearner(LogisticRegression(max_iter=1000, random_state=0), X_training=X, y_training=codes)


JOINT_LABELS = 1_000
"""Joint labels of a batch that BatchBALD draws, as many as this service's; by itself it draws one for each member."""

NEIGHBORS = 10
"""Labelled rows that `contrastive` compares each row to, as many as here."""


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


def small_text_discriminative(task: Task) -> SelectBatch:
    """Return a query of small-text's discriminative strategy, in as many parts as ours."""
    strategy = DiscriminativeActiveLearning(SklearnClassifierFactory(LogisticRegression(), 2), 10, pbar=None)
    dataset = SklearnDataset(csr_matrix(task.rows), np.zeros(task.n_rows, np.int64), target_labels=np.arange(2))
    given = None, dataset, np.arange(N_LABELS, task.n_rows), np.arange(N_LABELS), task.codes
    return lambda: np.asarray(strategy.query(*given, n=task.batch_size))


WITH_A_BAR = (GreedyCoreset, ContrastiveActiveLearning, EmbeddingKMeans)


def labels(task: Task) -> np.ndarray:
    """Labels as scikit-activeml expects them: NaN for unlabelled rows."""
    return np.concatenate([task.codes, np.full(task.n_rows - N_LABELS, np.nan)])


ACTIVEML = {
    "random": (activeml, RandomSampling),
    "greedy_x": (activeml, GreedySamplingX),
    "k_center": (activeml, CoreSet),
    "typiclust": (activeml, TypiClust),
    "prob_cover": (activeml, partial(ProbCover, n_classes=N_CLASSES)),
    "max_herding": (activeml, MaxHerding),
    "margin": (activeml_with_model, partial(UncertaintySampling, "margin_sampling")),
    "least_confidence": (activeml_with_model, partial(UncertaintySampling, "least_confident")),
    "entropy": (activeml_with_model, partial(UncertaintySampling, "entropy")),
    "badge": (activeml_with_model, Badge),
    "clue": (activeml_with_model, Clue),
    "contrastive": (activeml_with_model, partial(ContrastiveAL, nearest_neighbors_dict={"n_neighbors": NEIGHBORS})),
    "drop_query": (activeml_with_model, DropQuery),
    "falcun": (activeml_with_model, Falcun),
    "batch_bald": (activeml_with_members, partial(BatchBALD, n_MC_samples=JOINT_LABELS)),
    "bald": (activeml_with_members, GreedyBALD),
    "vote_entropy": (activeml_with_members, partial(QueryByCommittee, "vote_entropy")),
    "variation_ratio": (activeml_with_members, partial(QueryByCommittee, "variation_ratios")),
    "max_disagreement": (activeml_with_members, partial(QueryByCommittee, "KL_divergence")),
}
BY_DEFAULT = {
    "contrastive": (activeml_with_model, ContrastiveAL),
    "batch_bald": (activeml_with_members, BatchBALD),
}
"""Where scikit-activeml does less by default: five neighbours, and a joint label for each member."""

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
    "random": SmallTextRandom,
    "margin": BreakingTies,
    "least_confidence": LeastConfidence,
    "entropy": PredictionEntropy,
    "k_center": partial(GreedyCoreset, normalize=False),
    "k_means": partial(EmbeddingKMeans, normalize=False),
    "contrastive": partial(ContrastiveActiveLearning, normalize=False),
}

LIBRARY_STRATEGIES: dict[tuple[str, str], Callable[[Any], SelectBatch]] = {
    ("scikit-activeml", "discriminative"): activeml_discriminative,
    ("scikit-activeml", "expected_error_reduction"): activeml_expected_error,
    ("scikit-activeml", "greedy_y"): partial(activeml_of_numbers, GreedySamplingTarget(method="GSy", random_state=0)),
    ("scikit-activeml", "improved_greedy"): partial(
        activeml_of_numbers, GreedySamplingTarget(method="GSi", random_state=0)
    ),
    ("scikit-activeml", "committee_variance"): activeml_variance,
    ("modAL", "information_density"): modal_density,
    ("small-text", "discriminative"): small_text_discriminative,
    **{("scikit-activeml", name): partial(prepare, make(random_state=0)) for name, (prepare, make) in ACTIVEML.items()},
    **{
        ("scikit-activeml by default", name): partial(prepare, make(random_state=0))
        for name, (prepare, make) in BY_DEFAULT.items()
    },
    **{("modAL", name): partial(prepare, strategy) for name, (prepare, strategy) in MODAL.items()},
    **{("small-text", name): partial(small_text, make()) for name, make in SMALL_TEXT.items()},
}
