"""The project: which labels are new, which model is current, and whether a fit is due."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.domain.consensus import Consensus
from service.domain.labels import EncodedLabels
from service.domain.project import (
    EstimatorSpec,
    HeldOut,
    ModelRef,
    Project,
    Segment,
    TestScore,
    declare_classes,
    encode_labels,
    extend_classes,
    quote_label,
)
from service.domain.votes import ANONYMOUS, SKIP, Votes, cast_votes, hash_of
from service.errors import InvalidRequest

LINEAR, FOREST = EstimatorSpec("logistic_regression", {"C": 1.0}), EstimatorSpec("random_forest", {})
A, B = 0, 1
ANN, BOB = 0, 1


def project(**changes):
    beginning = Project(
        project_id="p",
        pool_id="i",
        version=1,
        random_state=0,
        estimator=LINEAR,
        segments=(Segment(1, 10),),
        n_features=2,
        has_ids=False,
        held_out=None,
        classes=("a", "b"),
        classes_declared=False,
        annotators=("ann", "bob"),
        votes=Votes.empty(),
        labels_revision=0,
        model=None,
        last_model=0,
        last_file=1,
        created_at=1,
        updated_at=1,
        consensus_method="crowdlab",
        fit_asked=None,
        fit_error=None,
    )
    return replace(beginning, **changes)


def told(project, *votes, at=1):
    """The project after one request of votes (index, code, annotator)."""
    return project.with_votes(cast_votes(project.votes, Votes.from_rows([(*vote, b"") for vote in votes], at))[0])


def retracted(project, index):
    return project.with_votes(project.votes.take(project.votes.index != index))


def model(labels_revision, estimator=LINEAR, random_state=0, version=0):
    return ModelRef(version, estimator, random_state, labels_revision, None, None)


BOTH = told(project(), (0, A, ANONYMOUS), (1, B, ANONYMOUS))


# What counts as a change of labels.

REVISIONS = [
    ("a label", [[(2, A, ANONYMOUS)]], 1),
    ("three labels", [[(2, A, ANONYMOUS), (3, A, ANONYMOUS), (4, B, ANONYMOUS)]], 3),
    ("the same again", [[(2, A, ANONYMOUS)], [(2, A, ANONYMOUS)]], 1),
    ("another", [[(2, A, ANONYMOUS)], [(2, B, ANONYMOUS)]], 2),
    ("a second who agrees, and is weighed", [[(2, A, ANN)], [(2, A, BOB)]], 2),
    ("the same again by one of two", [[(2, A, ANN)], [(2, A, BOB)], [(2, A, BOB)]], 2),
    ("a second who does not: the later counts", [[(2, A, ANN)], [(2, B, BOB)]], 2),
    ("a skip", [[(2, SKIP, ANONYMOUS)]], 0),
    ("a skip of a label", [[(2, A, ANONYMOUS)], [(2, SKIP, ANONYMOUS)]], 2),
    ("a skip beside a label", [[(2, A, ANN)], [(2, SKIP, BOB)]], 1),
    ("a named vote replaces an anonymous one", [[(2, A, ANONYMOUS)], [(2, A, ANN)]], 1),
]


@pytest.mark.parametrize(("requests", "expected"), [row[1:] for row in REVISIONS], ids=[row[0] for row in REVISIONS])
def test_giving_changing_or_retracting_a_label_is_a_revision(requests, expected):
    after = project()
    for at, votes in enumerate(requests):
        after = told(after, *votes, at=at)
    assert after.labels_revision == expected


def test_an_agreeing_vote_is_no_revision_under_majority():
    assert told(told(project(consensus_method="majority"), (2, A, ANN)), (2, A, BOB), at=2).labels_revision == 1


def test_a_retraction_is_a_revision():
    assert retracted(BOTH, 0).labels_revision == 3
    assert retracted(told(project(), (0, SKIP, ANONYMOUS)), 0).labels_revision == 0
    assert retracted(BOTH, 5).labels_revision == 2


def test_the_counts():
    counted = told(BOTH, (2, B, ANN), (3, SKIP, ANN))
    assert (counted.n_samples, counted.n_labeled, counted.n_skipped, counted.n_unlabeled) == (10, 3, 1, 6)
    assert counted.class_counts == [1, 2]
    assert project().class_counts == [0, 0]
    assert project(classes=()).class_counts == []


# Consensus of several annotators.


def crowd_of(project, *found):
    """A consensus of (index, code, quality) for the current votes."""
    index, code, quality = zip(*found, strict=True)
    labeled = project.votes.majority.labeled
    return Consensus(
        index=np.array(index),
        code=np.array(code, np.int32),
        quality=np.array(quality),
        vote_hashes=project.votes.vote_hashes[np.searchsorted(labeled, index)],
        annotator=np.array([ANN, BOB], np.int32),
        weight=np.array([0.9, 0.1]),
        accuracy=np.array([0.8, np.nan]),
        model_weight=1.0,
        temperature=1.5,
        n_classes=2,
    )


SPLIT = told(told(BOTH, (2, A, ANN), (3, B, ANN)), (2, B, BOB), (3, B, BOB), at=2)


def weighed(*found):
    """The project with four labelled samples and a model with a consensus."""
    revision = SPLIT.labels_revision
    return SPLIT.with_model(replace(model(revision), consensus=crowd_of(SPLIT, *found)))


def test_the_consensus_of_the_fit_is_what_is_trained_on():
    assert SPLIT.class_counts == [1, 3]
    assert weighed((2, A, 0.7)).class_counts == [2, 2]
    assert weighed((2, A, 0.7)).n_labels_since_fit == 0
    assert replace(weighed((2, A, 0.7)), consensus_method="majority").class_counts == [1, 3]


def test_newer_votes_go_by_the_majority_until_the_next_fit():
    since = told(weighed((2, A, 0.7)), (2, SKIP, ANN), at=3)
    assert (since.class_counts, since.n_labels_since_fit) == ([1, 3], 1)
    since = told(since, (2, A, ANN), at=4)
    assert (since.class_counts, since.n_labels_since_fit) == ([2, 2], 1)


@pytest.mark.parametrize("skips_to_drop", [1, 2])
@pytest.mark.parametrize("removed", [[], [8, 9]])
@pytest.mark.parametrize("before", [BOTH, weighed((2, A, 0.7), (3, A, 0.6))], ids=["majority", "consensus"])
def test_labels_after_a_few_votes_are_those_computed_from_all_votes(before, skips_to_drop, removed):
    rng = np.random.default_rng(0)
    after = replace(
        before, skips_to_drop=skips_to_drop, removed=np.array(removed, np.int64), annotators=("a", "b", "c")
    )
    for at in range(2, 60):
        assert after.labels is after.labels
        after = told(after, (int(rng.integers(8)), int(rng.integers(-1, 2)), int(rng.integers(-1, 3))), at=at)
        afresh = replace(after, votes=Votes(*after.votes.columns) if at % 3 else after.votes)
        assert after.votes.vote_hashes.tolist() == [
            hash_of(after.votes.on(sample)) for sample in after.votes.majority.labeled.tolist()
        ]
        for name in ("labeled", "codes", "skipped"):
            assert getattr(after.labels, name).tolist() == getattr(afresh.labels, name).tolist()
        for name in ("n_labeled", "n_skipped", "n_unlabeled", "class_counts"):
            assert getattr(after, name) == getattr(afresh, name)


def test_votes_during_the_fit_override_its_consensus():
    meanwhile = told(SPLIT, (2, B, ANN), at=3)
    fitted = meanwhile.with_model(replace(model(SPLIT.labels_revision), consensus=crowd_of(SPLIT, (2, A, 0.7))))
    assert (fitted.class_counts, fitted.fit_is_due) == ([1, 3], True)


def test_an_anonymous_label_against_the_consensus_is_a_change():
    before = weighed((2, A, 0.7))
    votes, n_changed = cast_votes(before.votes, Votes.from_rows([(2, B, ANONYMOUS, b"")], 3), before.labels)
    assert (n_changed, before.with_votes(votes).class_counts) == (1, [1, 3])


def test_a_consensus_with_one_class_is_not_adopted():
    only = told(told(project(), (0, B, ANONYMOUS), (2, A, ANN)), (2, A, BOB), at=2)
    assert only.with_model(replace(model(9), consensus=crowd_of(only, (2, B, 0.6)))) is only


# Whether a fit is due.

DUE = [
    ("no labels", project(), False),
    ("one class", told(project(), (0, A, ANONYMOUS), (1, A, ANONYMOUS)), False),
    ("two classes", BOTH, True),
    ("a model that has seen them", BOTH.with_model(model(2)), False),
    ("a label since", told(BOTH.with_model(model(2)), (2, A, ANONYMOUS)), True),
    ("the same label since", told(BOTH.with_model(model(2)), (1, B, ANONYMOUS)), False),
    ("a skip since", told(BOTH.with_model(model(2)), (2, SKIP, ANONYMOUS)), False),
    ("a retraction since", retracted(told(BOTH, (2, A, ANONYMOUS)).with_model(model(3)), 2), True),
    ("another estimator", replace(BOTH.with_model(model(2)), estimator=FOREST), True),
    ("other parameters", replace(BOTH.with_model(model(2)), estimator=EstimatorSpec(LINEAR.name, {"C": 2.0})), True),
    ("another seed", replace(BOTH.with_model(model(2)), random_state=1), True),
    ("another consensus", replace(BOTH.with_model(model(2)), consensus_method="majority"), True),
    ("a second vote since", told(BOTH.with_model(model(2)), (0, A, ANN), (0, A, BOB)), True),
    ("one class left", retracted(BOTH.with_model(model(2)), 0), False),
]


@pytest.mark.parametrize(("after", "expected"), [row[1:] for row in DUE], ids=[row[0] for row in DUE])
def test_a_fit_is_due_when_it_would_give_another_model(after, expected):
    assert after.fit_is_due == expected


def test_labels_since_the_fit_are_counted_from_its_snapshot():
    fitted = told(BOTH, (2, A, ANONYMOUS), (3, A, ANONYMOUS)).with_model(model(2), BOTH)
    assert fitted.n_labels_since_fit == 2
    assert fitted.fit_is_due


FITTED = told(BOTH, (2, A, ANN), (3, A, ANN), (3, A, BOB)).with_model(model(4))

NEW = [(index, B, ANN) for index in (2, 4, 5, 6)]

SINCE_FIT = [
    ("without a model, the labelled samples", told(told(BOTH, (0, B, ANONYMOUS)), (1, A, ANONYMOUS)), 2),
    ("no change", FITTED, 0),
    ("a label changed twice", told(told(FITTED, (2, B, ANN)), (2, A, ANN)), 1),
    ("six changes of four samples", told(told(FITTED, *NEW), (4, A, ANN), (5, A, ANN)), 4),
    ("a retraction", retracted(FITTED, 2), 1),
    ("a label that is retracted again", retracted(told(FITTED, (5, A, ANN)), 5), 1),
    ("a retraction, and a new label", told(retracted(FITTED, 2), (2, A, ANN)), 1),
    ("a skip of an unlabelled sample", told(FITTED, (5, SKIP, ANN)), 0),
    ("a skip in place of a label", told(FITTED, (2, SKIP, ANN)), 1),
    ("another vote of two", told(FITTED, (3, B, BOB)), 1),
    ("the next fit", told(FITTED, (2, B, ANN), (4, B, ANN)).with_model(model(6)), 0),
]  # fmt: skip


@pytest.mark.parametrize(("after", "expected"), [row[1:] for row in SINCE_FIT], ids=[row[0] for row in SINCE_FIT])
def test_each_sample_counts_once_since_the_fit(after, expected):
    assert after.n_labels_since_fit == expected


# Which model is current.

ADOPTED = [
    ("the first", BOTH, model(2), 1),
    ("a newer", BOTH.with_model(model(1)), model(2), 2),
    ("as new", BOTH.with_model(model(2)), model(2), 2),
    ("older than the labels, but the first", told(BOTH, (2, A, ANONYMOUS)), model(2), 1),
    ("older than the model", told(BOTH, (2, A, ANONYMOUS)).with_model(model(3)), model(2), 1),
    ("of another estimator", BOTH.with_model(model(2)), model(2, FOREST), 1),
    ("of another estimator, the first", BOTH, model(2, FOREST), None),
    ("of another seed", BOTH.with_model(model(2)), model(2, random_state=1), 1),
    (
        "older, but of the estimator chosen since",
        replace(BOTH.with_model(model(2)), estimator=FOREST),
        model(1, FOREST),
        2,
    ),
    ("of labels that were taken back since", retracted(BOTH, 0), model(2), None),
]


@pytest.mark.parametrize(("before", "new", "version"), [row[1:] for row in ADOPTED], ids=[row[0] for row in ADOPTED])
def test_a_model_is_adopted_unless_a_newer_one_exists(before, new, version):
    after = before.with_model(new)
    assert (after.model.version if after.model else None) == version
    assert (after is before) == (after.last_model == before.last_model)


def test_the_numbers_of_models_never_come_again():
    numbers = [BOTH.with_model(model(2)), replace(BOTH.with_model(model(2)), model=None).with_model(model(2))]
    assert [after.model.version for after in numbers] == [1, 2]


def test_a_project_that_can_no_longer_be_fitted_has_no_model():
    assert retracted(BOTH.with_model(model(2)), 0).model is None
    assert told(BOTH.with_model(model(2)), (0, B, ANONYMOUS)).model is None
    assert retracted(told(BOTH, (2, A, ANONYMOUS)).with_model(model(3)), 0).model is not None


def test_a_commit_is_the_next_version():
    after = BOTH.next_version()
    assert (after.version, after.created_at) == (2, 1)
    assert after.updated_at > 10**15


def test_a_clock_that_was_set_back_does_not_make_a_later_answer_an_earlier_one():
    ahead = replace(BOTH, updated_at=2**60)
    assert ahead.next_moment() == ahead.next_version().updated_at == 2**60 + 1


def test_a_score_belongs_to_its_held_out_set():
    score = TestScore(1.0, 1.0, 1.0, 0.0)
    scored = replace(model(2), held_out=3, test_score=score)
    with_set = replace(BOTH, held_out=HeldOut(3, 5))
    assert with_set.with_model(scored).test_score == score
    another = replace(with_set.with_model(scored), held_out=HeldOut(4, 5))
    assert another.test_score is None
    assert another.fit_is_due
    assert another.with_model(scored) is another


def test_a_successor_counts_on():
    old = project(version=9, last_model=4, last_file=7, created_at=-5)
    new = project(pool_id="j", version=0, last_file=0, created_at=8).continuing(old)
    assert (new.version, new.last_model, new.last_file, new.created_at) == (9, 4, 7, -5)
    assert new.pool_id == "j"


# The classes.

GROWTH = [
    ("nothing new", ("a", "b"), ["b", "a"], ("a", "b")),
    ("new ones, sorted, behind", ("m", "b"), ["z", "c", "b"], ("m", "b", "c", "z")),
    ("the first", (), ["b", "a"], ("a", "b")),
    ("integers by number", (5,), [10, 9, -1], (5, -1, 9, 10)),
    ("booleans", (), [True, False], (False, True)),
]


@pytest.mark.parametrize(("classes", "values", "expected"), [row[1:] for row in GROWTH], ids=[row[0] for row in GROWTH])
def test_classes_grow_as_labels_come(classes, values, expected):
    assert extend_classes(project(classes=classes), values, str).classes == expected


WRONG = [
    ("text for integers", (1, 2), False, ["1"], "is a string; each label of this project is an integer"),
    ("an integer for text", ("1",), False, [1], "1 is an integer; .* is a string"),
    ("true for an integer", (1, 0), False, [True], "true is a boolean; .* is an integer"),
    ("an integer for booleans", (True, False), False, [1], "1 is an integer; .* is a boolean"),
    ("not declared", ("a", "b"), True, ["c"], r'"c" is not among the declared classes \("a", "b"\)'),
]


@pytest.mark.parametrize(
    ("classes", "declared", "values", "problem"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_label_that_does_not_belong_is_named(classes, declared, values, problem):
    with pytest.raises(InvalidRequest, match=problem) as caught:
        extend_classes(project(classes=classes, classes_declared=declared), [*values], lambda nth: f"/y/{nth + 5}")
    assert [error.pointer for error in caught.value.errors] == ["/y/5"]


def test_declared_classes_follow_the_existing_ones():
    declared = declare_classes(project(classes=("m", "b")), ["z", "b", "a", "m"])
    assert declared.classes == ("m", "b", "z", "a")
    assert declared.classes_declared


@pytest.mark.parametrize(
    ("classes", "declared"), [(("a", "b"), ["a"]), ((1, 0), [True, False]), ((True,), [1]), (("1",), [1])]
)
def test_declared_classes_only_grow(classes, declared):
    with pytest.raises(InvalidRequest, match="must include all classes of the project") as caught:
        declare_classes(project(classes=classes), declared)
    assert caught.value.errors[0].pointer == "/classes"


def test_ten_thousand_classes_are_no_work():
    names = [f"{n:06d}" for n in range(10_000)]
    grown = extend_classes(project(classes=()), names, str)
    assert declare_classes(grown, [*names, "new"]).classes[-1] == "new"
    assert extend_classes(grown, names, str) is grown
    with pytest.raises(InvalidRequest, match="is a new class, and a project has at most"):
        extend_classes(grown, ["new"], str)


def test_labels_are_encoded_with_the_classes_of_the_project():
    labels = EncodedLabels.encode(["b", None, "c", "b"])
    codes = encode_labels(project(classes=("a", "b", "c")), labels)
    assert codes.tolist() == [1, -1, 2, 1]
    assert codes.dtype == np.int32


@pytest.mark.parametrize(
    ("label", "text"), [(True, "true"), (False, "false"), (1, "1"), ("1", '"1"'), ("x" * 99, f'"{"x" * 64}"')]
)
def test_labels_are_shown_as_in_json(label, text):
    assert quote_label(label) == text
