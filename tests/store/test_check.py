"""Damage is reported by file and project, and repaired where possible."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.domain.project import Project
from service.domain.votes import Votes
from service.errors import ModelDamaged
from service.store import Part, Store
from service.store.check import check_project, project_directories
from service.store.files import write_small
from service.store.layout import files_of
from service.store.state_format import to_record
from service.usecases.label import LabelRequest, SubmittedLabel, label_project, retract_label
from service.usecases.training import give_up_model, read_with_model
from tests.store.test_store import append, fit, label
from tests.support.calls import end_labels, get, line_pool, post

FILES = (
    "state.joblib",
    "pool/000001.joblib",
    "pool/000001.ids.joblib",
    "test/000002.joblib",
    "test/000002.y.joblib",
    "models/000001.joblib",
)

DAMAGE = {
    "a bit flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "a bit flipped in the first byte": lambda data: flipped(data, 0),
    "a bit flipped in the last byte": lambda data: flipped(data, len(data) - 1),
    "cut at the end": lambda data: data[:-1],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A data directory with two intact projects."""
    store = Store(tmp_path_factory.mktemp("sound") / "data")
    fit(store)
    fit(store, "other")
    return store


@pytest.fixture
def projects(sound, tmp_path):
    """A copy of it, to be damaged."""
    return Store(shutil.copytree(sound.root, tmp_path / "data"))


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def check(store, *arguments):
    """Run `active-query check`; return its exit status and its lines."""
    run = CliRunner().invoke(main, ["check", *arguments], env={"AQ_DATA_DIR": str(store.root)})
    return run.exit_code, run.stdout.splitlines()


def contents(root):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def write_state(store, project: Project, **changes):
    path = store.directory(project.project_id) / "state.joblib"
    path.unlink()
    write_small(path, to_record(project) | changes)


def test_a_directory_in_order_has_no_findings_and_is_not_touched(store):
    fit(store)
    append(store)
    label(store, 3, "b", "wait")
    fit(store, "bare", y=None, names=None, held_out=False)
    before = contents(store.root)
    assert check(store) == (0, [])
    assert contents(store.root) == before


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(projects, file, how):
    path = projects.directory("p") / file
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    status, [line] = check(projects)
    assert status == 1
    assert line.startswith(f"p: {file}: ")


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(projects, file):
    (projects.directory("p") / file).unlink()
    assert check(projects, "--project", "p") == (1, [f"p: {file}: is missing"])
    assert check(projects, "--project", "other") == (0, [])


def test_every_damaged_file_is_named(projects):
    for file in FILES[1:]:
        (projects.directory("p") / file).write_bytes(b"")
    _, lines = check(projects)
    assert {line.split(": ")[1] for line in lines} == set(FILES[1:])


def test_every_file_that_a_state_names_has_a_checksum(store):
    fit(store)
    append(store)
    project = label(store, 3, "b", "wait")
    assert project.checksums.keys() == files_of(project)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sample": np.array([0, 6])}, "samples beyond the pool"),
        ({"sample": np.array([1, 0])}, "out of order"),
        ({"sample": np.array([0, 0])}, "out of order"),
        ({"sample": np.array([0])}, "different lengths"),
        ({"code": np.array([0, 2], np.int32)}, "unknown classes"),
        ({"annotator": np.array([0, -1], np.int32)}, "unknown annotators"),
    ],
)
def test_a_state_that_contradicts_itself_is_named(projects, change, problem):
    project = projects.read("p").project
    write_state(projects, replace(project, votes=Votes(*project.votes.columns._replace(**change))))
    _, [line] = check(projects)
    assert line.startswith("p: state.joblib: ")
    assert problem in line


def test_a_vote_beside_an_anonymous_one_is_found(projects):
    project = label_by(projects, "ann", "bob")
    votes = Votes(*project.votes.columns._replace(annotator=project.votes.annotator - 1))
    write_state(projects, replace(project, votes=votes))
    assert check(projects)[1] == ["p: state.joblib: has other votes on a sample with an anonymous one"]


def label_by(store, *annotators):
    """Retract all labels, and let these annotators label one sample."""
    for index in (0, 1):
        retract_label(store, "p", index)
    answers = [SubmittedLabel(3, None, "a", annotator) for annotator in annotators]
    return label_project(store, LabelRequest("p", answers, "never")).project


def test_files_of_an_earlier_version_are_opened_for_want_of_checksums(store):
    project = fit(store)
    old = {key: value for key, value in to_record(project).items() if key != "checksums"}
    (store.directory("p") / "state.joblib").write_bytes(pickle.dumps(old | {"schema_version": 1}))
    assert check(store) == (0, [])
    assert store.read("p", *Part).model is not None
    (store.directory("p") / "models/000001.joblib").write_bytes(b"\x80 no model")
    assert check(store)[1][0].startswith("p: models/000001.joblib: ")


def test_an_old_project_has_checksums_of_new_files(store):
    project = fit(store)
    old = {key: value for key, value in to_record(project).items() if key != "checksums"}
    (store.directory("p") / "state.joblib").write_bytes(pickle.dumps(old | {"schema_version": 1}))
    assert label(store, 3, "b", "wait").checksums.keys() == {"models/000002.joblib"}
    assert check(store) == (0, [])


def test_a_commit_during_the_check_is_not_a_finding(store, monkeypatch):
    fit(store)
    real, swept = files_of, []

    def overtaken(project):
        if not swept:
            swept.append(label(store, 3, "b", "wait"))
        return real(project)

    monkeypatch.setattr("service.store.check.files_of", overtaken)
    assert check_project(store.directory("p")) == []
    assert swept


def test_a_missing_project_is_an_error(store):
    fit(store)
    run = CliRunner().invoke(main, ["check", "--project", "q"], env={"AQ_DATA_DIR": str(store.root)})
    assert (run.exit_code, run.stderr) == (1, "Error: there is no project 'q'\n")


def test_a_missing_data_directory_is_an_error_and_is_not_created(tmp_path):
    none = tmp_path / "none"
    run = CliRunner().invoke(main, ["check"], env={"AQ_DATA_DIR": str(none)})
    assert (run.exit_code, run.stderr) == (1, f"Error: AQ_DATA_DIR={str(none)!r} does not exist: no data to check\n")
    assert list(tmp_path.iterdir()) == []


def test_check_names_a_directory_that_holds_no_projects(tmp_path):
    run = CliRunner().invoke(main, ["check", "--data-dir", str(tmp_path)])
    assert run.exit_code == 1
    assert run.stderr == f"Error: AQ_DATA_DIR={str(tmp_path)!r} holds no directory 'projects': no data to check\n"


def test_an_unfinished_project_is_not_a_finding(store):
    directory = store.projects / "p"
    (directory / "pool").mkdir(parents=True)
    (directory / "unborn").touch()
    (directory / "pool/000001.joblib").write_bytes(b"half")
    assert project_directories(store.root) == []


# A damaged model is fitted again from the labels.


@pytest.mark.parametrize("how", ["a bit flipped in the middle", "empty", None])
def test_a_damaged_model_is_fitted_again_when_it_is_asked_for(client, app, how):
    made = post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    store = app.extensions["active-query"].store
    path = store.directory("p") / "models/000001.joblib"
    data = path.read_bytes()
    path.unlink()
    if how:
        path.write_bytes(DAMAGE[how](data))
    store.cache.drop(lambda key: True)
    answer = post(client, "/query", project_id="p", strategy="margin")
    assert (answer["model_version"], answer["strategy"]) == (2, "margin")
    assert get(client, "/projects/p")["version"] == made["version"] + 2
    assert check(store) == (0, [])


def test_a_damaged_model_that_cannot_be_replaced_is_done_without(client, app, monkeypatch):
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    store = app.extensions["active-query"].store
    (store.directory("p") / "models/000001.joblib").unlink()
    store.cache.drop(lambda key: True)
    monkeypatch.setattr(os, "rename", failing)
    answer = post(client, "/query", project_id="p", strategy="margin")
    assert (answer["model_version"], len(answer["indices"])) == (None, 1)
    assert answer["fallback_reason"]


def failing(*_):
    raise OSError(30, "Read-only file system")


def test_a_damaged_model_is_dropped_once(store):
    fit(store)
    (store.directory("p") / "models/000001.joblib").unlink()
    with pytest.raises(ModelDamaged):
        store.read("p", Part.MODEL)
    healed = read_with_model(Store(store.root), "p").project
    give_up_model(store, "p")
    assert store.read("p").project.version == healed.version


# Over HTTP.


@pytest.mark.parametrize("file", [name for name in FILES if not name.startswith(("models", "test"))])
def test_a_damaged_project_is_a_problem_of_its_own(client, app, file):
    for name in ("bad", "good"):
        post(client, "/fit", 201, project_id=name, X=line_pool(), y=end_labels(), ids=[str(n) for n in range(20)])
    store = app.extensions["active-query"].store
    (store.directory("bad") / file).write_bytes(b"")
    store.cache.drop(lambda key: True)
    problem = post(client, "/query", 500, project_id="bad", strategy="margin")
    assert "'bad'" in problem["detail"]
    assert "active-query check --project bad" in problem["detail"]
    assert post(client, "/query", project_id="good", strategy="margin")["strategy"] == "margin"
    listed = [project["project_id"] for project in get(client, "/projects")["projects"]]
    assert listed == (["good"] if file == "state.joblib" else ["bad", "good"])


@pytest.mark.parametrize("file", ["state.joblib", "leases.joblib", "events.log"])
def test_a_directory_instead_of_a_file_is_found_and_affects_no_other(client, app, file, monkeypatch):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    for name in ("bad", "good"):
        post(client, "/fit", 201, project_id=name, X=line_pool(), y=end_labels())
        post(client, "/query", project_id=name, annotator="ada", lease_seconds=60)
    store = app.extensions["active-query"].store
    (store.directory("bad") / file).unlink()
    (store.directory("bad") / file).mkdir()
    store.cache.drop(lambda key: True)
    store.sweep()
    problem = get(client, "/projects/bad/events" if file == "events.log" else "/projects/bad/leases", 500)
    assert "active-query check --project bad" in problem["detail"]
    assert "good" in [project["project_id"] for project in get(client, "/projects")["projects"]]
    assert check(store)[1][0].startswith(f"bad: {file}: ")
