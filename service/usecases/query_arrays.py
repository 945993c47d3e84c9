"""POST /query without a project: for callers with a model of their own. Nothing of the request is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels, Label, wrong_number
from service.domain.project import TargetName, type_name
from service.domain.targets import as_numbers, refuse_wrong, target_of_values
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.multilabel_scores import DEFAULT_THRESHOLD
from service.learning.pool import Pool
from service.strategies import Need, Question, check_target
from service.telemetry.metrics import time_selection
from service.usecases.candidates import few_left, why_exhausted
from service.usecases.explain import Names, check_explainable, explain
from service.usecases.query_batch import choose_batch, join_notes
from service.usecases.query_id import query_id
from service.usecases.query_request import QueryRequest, check_needs, enter_if_heavy, needs_met_by, open_samples
from service.usecases.query_result import QueryResult, scores_to_json
from service.usecases.texts import weigh_texts
from service.usecases.uploads import first_entry


def query_arrays(request: QueryRequest, enter: Callable[[], AbstractContextManager[None]] = nullcontext) -> QueryResult:
    """Choose among the samples of the request: the same request gives the same result.

    Heavy work waits for `enter`. Raises InvalidRequest for arrays of different lengths, a strategy that needs another
    array, or an index beyond the samples.
    """
    if request.texts is not None and request.text is not None:
        with enter_if_heavy(request, request.texts.n_rows, enter):
            request = replace(request, X=weigh_texts("texts", request.texts, request.text))
    classes = None if request.given is None or request.given.target == "number" else range(request.given.n_classes)
    if request.explain and classes is not None:
        check_explainable(request, len(classes))
    question = build_question(request)
    seed = [0 if request.random_state is None else request.random_state]
    thresholds = np.full(len(classes or ()), DEFAULT_THRESHOLD) if question.target == "labels" else None
    names = Names(classes, labels_of(request, question.labeled), None, thresholds)
    with enter_if_heavy(request, len(question.pool), enter):
        began = time.perf_counter()
        batch = choose_batch(question, request, seed, 0)
        time_selection(batch.selection.strategy, began)
        explanations = explain(question, batch, request, seed, names) if request.explain else None
    selection, n_labeled = batch.selection, len(question.labeled)
    reason = selection.fallback_reason
    if len(selection.indices) == 0:
        reason = why_exhausted(request, len(question.pool), labeled=question.labeled)
    elif len(selection.indices) < request.batch_size:
        reason = join_notes(reason, few_left(len(selection.indices)))
    return QueryResult(
        project_id=None,
        query_id=query_id(request, ()),
        indices=selection.indices.tolist(),
        ids=None,
        texts=None,
        urls=None,
        features=None,
        scores=scores_to_json(selection),
        strategy=selection.strategy,
        fallback_reason=reason,
        reason=selection.reason,
        model_version=None,
        n_labeled=n_labeled,
        n_unlabeled=len(question.pool) - n_labeled,
        n_labels_since_fit=0,
        classes=list(classes) if request.explain and classes is not None else None,
        explanations=explanations,
        project=None,
    )


def build_question(request: QueryRequest) -> Question:
    """Return the question for the arrays of a request, or raise InvalidRequest."""
    given, y = request.given, request.y
    model_pool = None if given is None else given.model_pool
    pool = model_pool if request.X is None else Pool.of(request.X)
    if pool is None:
        wanted = "or send 'probabilities', 'member_probabilities', 'member_predictions', 'X' or 'texts' without it"
        raise InvalidRequest.at("/project_id", f"is required, {wanted}")
    check_lengths(request, len(pool))
    target = target_of_arrays(request)
    if given is not None:
        given.check(sum_to_one=target == "class")
    features = {Need.FEATURES} if request.X is not None else set()
    labels = {Need.LABELS} if y is not None else set()
    check_target(request.strategy, request.params, target)
    check_needs(request, needs_met_by(given) | features | labels | {Need.LABELED}, target)
    labeled = np.empty(0, np.int64) if y is None else np.flatnonzero(y.codes >= 0)
    return Question(
        pool=pool,
        is_open=open_samples(request, len(pool), labeled),
        labeled=labeled,
        model=None if given is None else given.model,
        committee=None if given is None else given.committee,
        target=target,
        members_sent=target == "number" and given is not None,
        model_pool=model_pool,
        committee_pool=None if given is None else given.committee_pool,
        has_features=request.X is not None,
        **({"n_classes_labeled": 0} if y is None else LABELS[target](y, y.codes[labeled])),
    )


def target_of_arrays(request: QueryRequest) -> TargetName:
    """Return the target of arrays: the one requested, or else that of labels, predictions or strategy.

    Raises InvalidRequest for labels or predictions of another target than the one requested.
    """
    y, given, targets = request.y, request.given, request.strategy.targets
    found: TargetName | None = None
    if given is not None and given.target == "number":
        found = "number"
    elif y is not None and (y.are_numbers or target_of_values(y.values) == "labels"):
        found = "number" if y.are_numbers else "labels"
    if request.target is not None and found not in (None, request.target):
        raise InvalidRequest.at("/target", f"is {request.target!r}, but what was sent is for {found!r}")
    if request.target == "number" and given is not None and found is None:
        raise InvalidRequest.at("/target", "is 'number', but probabilities are for 'class' or 'labels'")
    if request.target is not None or found is not None or "class" in targets:
        return request.target or found or "class"
    return "labels" if given is not None or targets == ("labels",) else targets[0]


def read_classes(y: EncodedLabels, codes: NDArray[np.int32]) -> dict[str, Any]:
    """Return the codes (l,) of labels that are classes, as fields of `Question`."""
    return {"codes": codes, "n_classes_labeled": len(np.unique(codes))}


def read_sets(y: EncodedLabels, codes: NDArray[np.int32]) -> dict[str, Any]:
    """Return the sizes (l,) of labels that are lists of classes. Raises InvalidRequest for others."""
    refuse_wrong(
        y.values[: MAX_ERRORS + 1],
        first_entry("y", y),
        lambda value: None if isinstance(value, tuple) else f"is {type_name(value)}, but must be a list of classes",
    )
    sizes = np.array([len(value) for value in y.values if isinstance(value, tuple)], np.int64)
    return {"label_sizes": sizes[codes], "n_classes_labeled": len(np.unique(codes))}


def read_numbers(y: EncodedLabels, codes: NDArray[np.int32]) -> dict[str, Any]:
    """Return labels (l,) that are numbers. Raises InvalidRequest for others."""
    refuse_wrong(y.values[: MAX_ERRORS + 1], first_entry("y", y), wrong_number)
    return {"numbers": as_numbers(y.values)[codes], "n_classes_labeled": 0}


LABELS: dict[TargetName, Callable[[EncodedLabels, NDArray[np.int32]], dict[str, Any]]] = {
    "class": read_classes,
    "labels": read_sets,
    "number": read_numbers,
}
"""What a strategy reads of labels with the codes (l,) of the labelled samples, by target."""


def labels_of(request: QueryRequest, labeled: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], list[Label]] | None:
    """Return a function from positions among the labelled samples to their labels, None without labels."""
    y = request.y
    return None if y is None else lambda rows: [y.values[code] for code in y.codes[labeled[rows]].tolist()]


def check_lengths(request: QueryRequest, n_samples: int) -> None:
    """Raise InvalidRequest for arrays that are not as long as the first."""
    field = "X" if request.texts is None else "texts"
    lengths = {} if request.X is None else {field: len(request.X)}
    lengths |= {} if request.given is None else request.given.n_rows
    lengths |= {} if request.y is None else {"y": len(request.y.codes)}
    first = next(iter(lengths))
    wrong = [
        FieldError(f"/{field}", f"has {length} rows, but {first} has {n_samples}")
        for field, length in lengths.items()
        if length != n_samples
    ]
    if wrong:
        raise InvalidRequest(wrong)
