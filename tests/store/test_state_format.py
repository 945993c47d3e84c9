"""A state on disk: every field is read back, and only plain values are written."""

from __future__ import annotations

from dataclasses import fields, replace

import joblib
import numpy as np
import pytest

from service.domain.consensus import Consensus
from service.domain.learning_curve import FitMeasures, LearningCurve
from service.domain.project import Checksum, EstimatorSpec, EventLog, HeldOut, ModelRef, Project, Segment, TestScore
from service.domain.votes import SKIP, Votes
from service.errors import UnknownSchema
from service.store.state_format import OF_LATER_SCHEMAS, SCHEMA_VERSION, from_record, to_fields, to_record

CROWD = Consensus(
    index=np.array([3]),
    code=np.array([1], np.int32),
    quality=np.array([0.75]),
    vote_hashes=np.array([2**64 - 1], np.uint64),
    annotator=np.array([-1, 0], np.int32),
    weight=np.array([0.5, 1e-6]),
    accuracy=np.array([0.25, 0.125]),
    model_weight=1.5,
    temperature=0.5,
    n_classes=2,
)

FULL = Project(
    project_id="p",
    pool_id="i",
    version=7,
    random_state=2**32 - 1,
    estimator=EstimatorSpec("mlp", {"hidden_layer_sizes": (10, 5), "alpha": 0.5}),
    segments=(Segment(3, 100), Segment(4, 20)),
    n_features=2,
    has_ids=True,
    held_out=HeldOut(5, 10),
    classes=("a", "é"),
    classes_declared=True,
    annotators=("ann", "bob"),
    votes=Votes.from_rows([(3, 1, 0, b"q"), (2**40, SKIP, -1, b"")], at=17),
    labels_revision=9,
    model=ModelRef(
        6,
        EstimatorSpec("gaussian_nb", {"scale": True}),
        1,
        8,
        5,
        TestScore(0.5, 0.25, 0.125, 2.0),
        consensus=CROWD,
        reason="auto is linear",
        notes=("few labels",),
    ),
    last_model=6,
    last_file=5,
    created_at=1,
    updated_at=2,
    consensus_method="majority",
    fit_asked=9,
    fit_error="the numbers are too large",
    changed_since_fit=np.array([3, 2**40]),
    checksums={"pool/000003.joblib": Checksum(1_000, 2**32 - 1)},
    event_log=EventLog(50, (b"an event",)),
    relabeled_since_fit=np.array([3]),
    removed=np.array([2, 5]),
    removed_votes=Votes.from_rows([(2, 0, 0, b"q"), (5, SKIP, -1, b"")], at=16),
    learning_curve=LearningCurve().with_point(
        FitMeasures(1, 2, (0.5, 0.25, 0.75), questions={"margin": 2}), 6, 2, None
    ),
)

EMPTY = replace(
    FULL,
    segments=(Segment(1, 1),),
    has_ids=False,
    held_out=None,
    classes=(),
    classes_declared=False,
    annotators=(),
    votes=Votes.empty(),
    model=None,
    checksums={},
    event_log=None,
)


def plain(project):
    """The project's fields, its columns as lists, so that two can be compared."""
    values = {field.name: getattr(project, field.name) for field in fields(Project)}
    crowd = project.model and project.model.consensus
    values["model"] = project.model and replace(project.model, consensus=None)
    changed = project.changed_since_fit
    values["changed_since_fit"] = None if changed is None else (changed.dtype, changed.tolist())
    values["relabeled_since_fit"] = project.relabeled_since_fit.tolist()
    values["learning_curve"] = project.learning_curve.to_plain()
    values["removed"] = project.removed.tolist()
    votes = {name: (listed(values[name].columns), values[name].table) for name in ("votes", "removed_votes")}
    return values | votes | {"crowd": crowd and listed(getattr(crowd, field.name) for field in fields(crowd))}


def listed(columns):
    """Columns as lists, each with its dtype."""
    return [(value.dtype, value.tolist()) for value in map(np.asarray, columns)]


def classes_in(value):
    """All classes of the values in a record."""
    found = {type(value)}
    for inner in value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        found |= classes_in(inner)
    return found


def test_no_field_is_forgotten():
    assert set(to_fields(to_record(FULL))) == {
        *(field.name for field in fields(Project) if field.name != "removed_votes"),  # among the votes
        *("schema_version", "table"),
    }


@pytest.mark.parametrize(
    "project",
    [
        FULL,
        EMPTY,
        replace(FULL, model=replace(FULL.model, test_score=None)),
        replace(FULL, model=replace(FULL.model, consensus=None)),
        replace(FULL, classes=(True, False)),
        replace(FULL, classes=(1, 0, -(2**63))),
    ],
    ids=["full", "empty", "no score", "no crowd", "booleans", "integers"],
)
def test_a_written_state_is_read_back(tmp_path, project):
    joblib.dump(to_record(project), tmp_path / "state")
    assert plain(from_record(joblib.load(tmp_path / "state"))) == plain(project)
    assert [type(label) for label in project.classes] == [
        type(label) for label in from_record(to_record(project)).classes
    ]


def test_a_state_of_the_first_schema_is_read_with_defaults():
    written = {**to_record(FULL), "schema_version": 1}
    for later in (*OF_LATER_SCHEMAS, "changed_since_fit", "relabeled_since_fit", "learning_curve"):
        del written[later]
    del written["model"]["consensus"], written["model"]["crowd"], written["model"]["reason"], written["model"]["notes"]
    model = replace(FULL.model, consensus_method="crowdlab", consensus=None, reason=None, notes=())
    lacks = {"relabeled_since_fit": np.empty(0, np.int64), "learning_curve": LearningCurve(), "changed_since_fit": None}
    lacks |= {"checksums": {}, "event_log": None, "fit_asked": None, "fit_error": None, "consensus_method": "crowdlab"}
    assert plain(from_record(written)) == plain(replace(FULL, model=model, **lacks))


@pytest.mark.parametrize(("revision", "expected"), [(8, 0), (9, 1), (11, 3)])
def test_a_state_of_the_second_schema_counts_the_changes_since_its_fit(revision, expected):
    written = {**to_record(replace(FULL, labels_revision=revision)), "schema_version": 2}
    del written["changed_since_fit"]
    assert from_record(written).n_labels_since_fit == expected


def test_a_state_of_the_third_schema_has_no_learning_curve_yet():
    written = {**to_record(FULL), "schema_version": 3}
    del written["relabeled_since_fit"], written["learning_curve"]
    found = from_record(written)
    assert len(found.learning_curve) == 0
    assert found.new_since_fit.tolist() == [], "which samples were labelled before is unknown"


def test_no_class_of_ours_is_in_a_file():
    assert classes_in(to_record(FULL)) <= {dict, list, tuple, str, bytes, int, float, bool, type(None), np.ndarray}


@pytest.mark.parametrize("written", [0, SCHEMA_VERSION + 1, "1", None, 1.5])
def test_another_schema_is_refused_and_both_are_named(written):
    with pytest.raises(UnknownSchema, match=f"schema version {written!r}.* reads 1 to {SCHEMA_VERSION}"):
        from_record({**to_record(FULL), "schema_version": written})


@pytest.mark.parametrize("change", [{"surplus": 1}, {"votes": None}], ids=["a field too many", "no votes"])
def test_a_record_of_other_fields_is_not_a_project(change):
    with pytest.raises(TypeError):
        from_record({**to_record(FULL), **change})


@pytest.mark.parametrize("name", sorted(to_record(FULL).keys() - {"schema_version"}))
def test_a_record_that_lacks_a_field_is_not_a_project(name):
    record = to_record(FULL)
    del record[name]
    with pytest.raises((TypeError, KeyError)):
        from_record(record)
