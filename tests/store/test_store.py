"""The store: commits are atomic, also for concurrent readers, writers and sweeps."""

from __future__ import annotations

import errno
import io
import itertools
import os
import pickle
import resource
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest

from service.domain.labels import EncodedLabels
from service.errors import (
    ProjectExists,
    ProjectNotFound,
    ProjectReplaced,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    TooManyProjects,
    UnknownSchema,
)
from service.learning.estimators import resolve_estimator
from service.store import Part, Stamp, Store, locks
from service.store import store as store_module
from service.store.cache import OVERHEAD, Cache
from service.store.check import check_project
from service.store.files import MatrixWriter, load, write_joblib, write_pickle
from service.store.layout import files_of, model_file
from service.store.staging import Staging
from service.store.state_file import PUBLISHED
from service.store.state_format import SCHEMA_VERSION, to_record
from service.usecases.append import AppendRequest, append_samples
from service.usecases.fit import FitRequest, HeldOutUpload, fit_project
from service.usecases.label import LabelRequest, SubmittedLabel, label_project, retract_label
from service.usecases.training import fit_if_due
from tests.support.calls import FAST_ESTIMATOR

OS_OPEN, IO_OPEN = os.open, io.open

POOL = np.arange(12.0).reshape(6, 2)
LABELS = ("a", "b", None, None, None, None)
QUICK = resolve_estimator("gaussian_nb", {})


def fit(store, project_id="p", X=POOL, y=LABELS, *, names="abcdef", held_out=True, **options):
    """Create a project with everything that a project can have."""
    if X is not None:
        options.setdefault("estimator", resolve_estimator(FAST_ESTIMATOR, {}))
    with store.stage() as staging:
        test = HeldOutUpload(staging.rows(POOL[:2]), EncodedLabels.encode(["a", "b"])) if held_out else None
        request = FitRequest(
            project_id,
            X=None if X is None else staging.rows(X),
            y=None if y is None else EncodedLabels.encode(y),
            ids=names and list(names),
            held_out=test,
            **({} if X is None else {"estimator": QUICK}) | options,
        )
        return fit_project(store, staging, request)[0]


def append(store, X=POOL + 2, y=("a", None, None, None, None, None), names="ghijkl"):
    with store.stage() as staging:
        request = AppendRequest("p", staging.rows(X), EncodedLabels.encode(y), list(names))
        return append_samples(store, staging, request, 10**9)


def label(store, index, value="a", refit="never", project_id="p"):
    return label_project(store, LabelRequest(project_id, [SubmittedLabel(index, None, value)], refit)).project


def label_twice(store, index):
    """Let two people label a sample, and wait for the fit that weighs their votes."""
    answers = [SubmittedLabel(index, None, value, who) for value, who in (("a", "ann"), ("b", "bob"))]
    project = label_project(store, LabelRequest("p", answers, "wait")).project
    assert project.fit_is_due or project.consensus is not None


def everything(store, project_id="p"):
    return store.read(project_id, *Part)


def files_below(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


# Parts are read back as written.


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (3, 5), (63, 1), (70_001, 3)])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_a_matrix_written_in_pieces_is_one_that_joblib_reads(tmp_path, dtype, shape):
    matrix = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    data, path = matrix.tobytes(), tmp_path / "m.joblib"
    with MatrixWriter(path, matrix.dtype, shape) as writer:
        for start in range(0, len(data), 99_991):
            writer.write(data[start : start + 99_991])
    mapped = joblib.load(path, mmap_mode="r")
    for read in (mapped, joblib.load(path)):
        assert read.dtype == matrix.dtype
        assert np.array_equal(read, matrix)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert mapped.ctypes.data % 64 == 0


def test_a_matrix_that_lacks_bytes_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="8 bytes are missing"),
        MatrixWriter(tmp_path / "m", np.dtype("f8"), (2, 1)) as w,
    ):
        w.write(bytes(8))


def is_mapped(array):
    """Whether an array is mapped from a file."""
    return array is not None and (isinstance(array, np.memmap) or is_mapped(array.base))


def test_everything_is_read_back(store):
    fit(store)
    snapshot = everything(store)
    [X], [X_test] = snapshot.pool.segments, snapshot.X_test.segments
    assert is_mapped(X)
    assert np.array_equal(X, POOL)
    assert np.array_equal(X_test, POOL[:2])
    assert snapshot.y_test.tolist() == [0, 1]
    assert snapshot.ids.names_at([0, 5]) == ["a", "f"]
    assert snapshot.model.predict_proba(POOL).shape == (6, 2)


def test_only_the_requested_parts_are_opened(store):
    fit(store)
    snapshot = store.read("p", Part.POOL)
    assert snapshot.pool is not None
    assert (snapshot.ids, snapshot.model, snapshot.X_test, snapshot.y_test) == (None, None, None, None)


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o700])
def test_only_the_owner_reaches_the_data(tmp_path, mode):
    root = tmp_path / "data"
    root.mkdir()
    root.chmod(mode)
    fit(Store(root))
    assert {stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")] if path.is_dir()} == {0o700}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../p", "a/b", "/etc", ".hidden", "-a", "a\0", "a\n", "a b", "é", "x" * 65, "a\\..\\b"]
)
def test_no_name_leads_out_of_the_directory(store, name):
    before = files_below(store.root)
    for act in (store.read, store.delete, lambda name: fit(store, name), lambda name: label(store, 1, project_id=name)):
        with pytest.raises(ProjectNotFound):
            act(name)
    assert files_below(store.root) - {"staging/lock"} == before


def test_a_missing_project_makes_no_directory(store):
    for act in (store.read, store.delete, lambda name: label(store, 1, project_id=name), partial(fit_if_due, store)):
        with pytest.raises(ProjectNotFound):
            act("p")
    assert list(store.projects.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A.b_c-d", "0", "x" * 64, "a..", "lock", "con"])
def test_names_that_look_odd_are_names(store, name):
    fit(store, name)
    assert store.project_ids() == [name]
    store.delete(name)
    assert store.project_ids() == []


def test_the_number_of_projects_is_limited(tmp_path):
    store = Store(tmp_path / "data", max_projects=2)
    fit(store, "a")
    fit(store, "b")
    with pytest.raises(TooManyProjects):
        fit(store, "c")
    fit(store, "b", replace=True)
    assert files_below(store.projects / "c") == set()
    store.delete("a")
    fit(store, "c")


# Commits are atomic.


class Faults:
    """Makes the nth file operation fail, or all from it on; records whether the commit point was passed."""

    NAMES = ("fdatasync", "fsync", "mkdir", "open", "pwrite", "rename", "unlink")

    def __init__(self, monkeypatch, number, nth, lasting):
        self.number, self.nth, self.lasting = number, nth, lasting
        self.count, self.committed = 0, False
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))
        monkeypatch.setattr(io, "open", self.failing(io.open))

    @property
    def hit(self):
        return self.count >= self.nth

    def failing(self, operation):
        def fail_or_do(*arguments, **options):
            if self.number == errno.ENOSPC and only_reads(operation, *arguments):
                return operation(*arguments, **options)
            self.count += 1
            if self.count == self.nth or (self.lasting and self.count > self.nth):
                raise OSError(self.number, os.strerror(self.number), str(arguments[0]))
            done = operation(*arguments, **options)
            self.committed |= operation.__name__ == "pwrite" and len(arguments[1]) == PUBLISHED.size
            if operation.__name__ == "rename":
                source, target = map(Path, arguments[:2])
                is_point = target.name in ("state.joblib", "leases.joblib") and target.parent.parent.name == "projects"
                self.committed |= is_point or "projects" in (source.parent.name, target.parent.name)
            return done

        return fail_or_do


def only_reads(operation, path, mode=0, *_):
    """Whether an operation needs no space."""
    return (operation is OS_OPEN and not mode & os.O_CREAT) or (operation is IO_OPEN and "r" in mode)


def beyond_the_tail(act):
    """Do something whose event does not fit in the state."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("service.store.events.TAIL_BYTES", 0)
        act()


OPERATIONS = {
    "create": (False, lambda store: fit(store)),
    "label": (True, lambda store: label(store, 3)),
    "label twice and fit": (True, lambda store: label_twice(store, 3)),
    "fit again": (True, lambda store: fit(store, X=None, y=None, names=None)),
    "replace": (True, lambda store: fit(store, X=POOL + 1, y=None, names=None, held_out=False, replace=True)),
    "append": (True, lambda store: append(store)),
    "create and log": (False, lambda store: beyond_the_tail(lambda: fit(store, held_out=False))),
    "label and log twice": (True, lambda store: beyond_the_tail(lambda: (label(store, 3), label(store, 3, "b")))),
    "delete": (True, lambda store: store.delete("p")),
}


def state(store):
    """The whole state in a comparable form, None without a project."""
    with suppress(ProjectNotFound):
        record = to_record(store.read("p").project)
        return joblib.hash(pickle.loads(pickle.dumps(record)))  # an array that was read has another memory layout
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "lasting", "cache_bytes"),
    [
        *((name, errno.EIO, False, 2**20) for name in OPERATIONS),
        *((name, errno.EIO, True, 0) for name in ("create", "label and log twice", "delete")),
        *((name, errno.ENOSPC, True, 2**20) for name in OPERATIONS),
    ],
)
def test_a_fault_at_any_operation_leaves_the_old_state_or_the_new(
    tmp_path, monkeypatch, name, number, lasting, cache_bytes
):
    exists, act = OPERATIONS[name]
    beginning = Store(tmp_path / "beginning")
    if exists:
        fit(beginning)
    before = state(beginning)
    for nth in itertools.count(1):
        root = shutil.copytree(beginning.root, tmp_path / str(nth))
        store, error = Store(root, cache_bytes=cache_bytes), None
        state(store)
        with monkeypatch.context() as patches:
            faults = Faults(patches, number, nth, lasting)
            try:
                act(store)
            except (OSError, StoreDamaged, StoreFull) as caught:
                error = caught
        revived = Store(store.root)
        assert state(store) == state(revived)
        revived.sweep()
        assert (state(revived) == before) != faults.committed
        assert error is None or faults.hit, "an error that no fault explains"
        assert_tidy(revived)
        if error is not None and number == errno.ENOSPC:
            assert isinstance(error, StoreFull)
        if not faults.hit:
            assert error is None
            break


def assert_tidy(store):
    """Check that every file is named by a state, every named file can be read, and the project can be written."""
    with suppress(ProjectNotFound):
        project = everything(store).project
        beside = {"lock", "fit.lock", "events.log"}
        assert files_below(store.directory("p")) - beside == files_of(project) | {"state.joblib"}
        assert check_project(store.directory("p")) == []
        two_classes = [SubmittedLabel(4, None, "a"), SubmittedLabel(5, None, "b")]
        assert label_project(store, LabelRequest("p", two_classes, "wait")).project.n_labels_since_fit == 0
    assert files_below(store.staging) <= {"lock"}
    assert {path.name for path in store.projects.iterdir()} == set(store.project_ids())


def test_all_is_on_disk_before_the_commit_point_and_the_commit_before_the_answer(store, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(file):
        events.append(("on disk", Path(f"/proc/self/fd/{file}").readlink()))
        fsync(file)

    def seen_rename(source, target):
        events.append(("renamed", Path(target)))
        # A durable file stays durable under its new name once the directory is synced.
        events.extend([("on disk", Path(target))] if ("on disk", Path(source)) in events else [])
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    created, directory = fit(store), store.directory("p")
    at = events.index(("renamed", directory))
    [staged] = {path for what, path in events[:at] if path.name == "project"}
    assert {staged, *(staged / name for name in files_of(created))} <= {
        p for what, p in events[:at] if what == "on disk"
    }
    assert events[at + 1 :] == [("on disk", directory), ("on disk", store.projects)]
    events.clear()
    replaced = fit(store, replace=True)
    commit = events.index(("renamed", directory / "state.joblib"))
    before, after = events[:commit], events[commit:]
    for name in files_of(replaced):
        moved = before.index(("renamed", directory / name))
        assert ("on disk", directory / name) in before
        assert ("on disk", (directory / name).parent) in before[moved:]
    assert after[1:] == [("on disk", directory / "state.joblib"), ("on disk", directory)]


class FullDisk:
    """Makes flushing the nth file that is opened for writing fail, as on a full disk."""

    def __init__(self, monkeypatch, nth):
        self.nth, self.count = nth, 0
        self.open = io.open
        monkeypatch.setattr(io, "open", self.open_full)

    def open_full(self, path, mode="r", *arguments, **options):
        self.count += "x" in mode
        if "x" in mode and self.count == self.nth:
            return self.open("/dev/full", "wb")
        return self.open(path, mode, *arguments, **options)


@pytest.mark.parametrize("rows", [6, 6_000], ids=["fits the buffer", "beyond the buffer"])
def test_a_full_disk_is_said_and_changes_nothing(store, monkeypatch, rows):
    fit(store, "p")
    before = state(store)
    pool = np.arange(2.0 * rows).reshape(rows, 2)
    for nth in itertools.count(1):
        with monkeypatch.context() as patches:
            disk = FullDisk(patches, nth)
            try:
                fit(
                    store,
                    X=pool,
                    y=("a", "b") + (None,) * (rows - 2),
                    names=[str(n) for n in range(rows)],
                    replace=True,
                )
            except StoreFull:
                assert state(store) == before
                assert files_below(store.directory("p")) - {"lock", "state.joblib"} == files_of(store.read("p").project)
        if disk.count < nth:
            break
    assert nth == 7  # pool, names, held-out set, its labels, model and state; there is no seventh
    assert store.read("p").project.n_samples == rows


# Leftovers of dead processes are swept, and files in use are not.


def test_a_sweep_removes_files_of_dead_processes(store):
    project = fit(store)
    for rubbish in (
        "staging/dead/000001.joblib",
        "projects/unborn/unborn",
        "projects/unborn/pool/000001.joblib",
        "projects/unborn/state.joblib.new",
    ):
        (store.root / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (store.root / rubbish).write_bytes(b"x")
    (store.projects / "empty").mkdir()
    for rubbish in ("pool/000009.joblib", "models/000007.joblib", "state.joblib.new"):
        (store.directory("p") / rubbish).write_bytes(b"x")
    Store(store.root).sweep()
    assert {path.name for path in store.projects.iterdir()} == {"p"}
    assert files_below(store.directory("p")) == files_of(project) | {"lock", "state.joblib"}
    assert files_below(store.staging) == {"lock"}


def test_a_sweep_keeps_files_in_use(store):
    fit(store)
    with store.stage() as staging, store.transaction("p") as transaction, store.transaction("new", create=True):
        staged = staging.dump(1)
        unnamed = store.directory("p") / "models/000009.joblib"
        unnamed.write_bytes(b"on its way")
        in_thread(Store(store.root).sweep).join()
        assert staged.path.exists()
        assert unnamed.exists()
        assert list(store.staging.glob("*/project/lock")) != []
        transaction.commit(transaction.project)


def test_a_sweep_removes_staging_of_a_killed_process(store):
    code = """
import os, sys
from pathlib import Path
from service.store import Store
store = Store(Path(sys.argv[1]))
with store.stage() as staging, store.transaction("p", create=True):
    staging.dump(1)
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(store.root)], check=False).returncode == -9
    assert files_below(store.staging) > {"lock"}
    store.sweep()
    assert files_below(store.staging) == {"lock"}
    assert list(store.projects.iterdir()) == []


def test_a_sweep_keeps_every_file_of_a_project_that_cannot_be_read(store):
    fit(store)
    (store.directory("p") / "state.joblib").write_bytes(b"x")
    before = files_below(store.root)
    store.sweep()
    assert files_below(store.root) == before


def test_a_directory_among_the_files_is_swept_with_them(store):
    fit(store)
    (store.directory("p") / "models/000009.joblib/deep").mkdir(parents=True)
    (store.directory("p") / "test/000009.joblib").write_bytes(b"x")
    store.sweep()
    assert_tidy(store)


def test_rubbish_that_cannot_be_removed_does_not_prevent_the_start(store):
    fit(store)
    (store.directory("p") / "fit.running").mkdir()
    store.sweep()
    assert label(store, 3).n_labeled == 3


def test_a_stray_file_does_no_harm(store):
    fit(store)
    (store.projects / "README").write_text("hello")
    store.sweep()
    assert store.project_ids() == ["p"]


def test_a_project_restored_without_its_empty_folders_works(store):
    fit(store, y=None, held_out=False)
    for folder in ("models", "test"):
        shutil.rmtree(store.directory("p") / folder, ignore_errors=True)
    store.sweep()
    label(store, 0, "a")
    assert label(store, 1, "b", "wait").model is not None


def test_a_failed_sweep_does_not_undo_the_commit(store, monkeypatch):
    fit(store)
    with monkeypatch.context() as patches:
        patches.setattr(
            "service.store.transaction.sweep_project", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no"))
        )
        assert fit(store, X=None, y=None, names=None).model.version == 2
    assert everything(store).project.model.version == 2


# Writers exclude each other, in threads and in processes.


def test_threads_exclude_each_other(store):
    fit(store)
    inside, most = [], []

    def write():
        for _ in range(20):
            with store.transaction("p") as transaction:
                inside.append(1)
                most.append(len(inside))
                transaction.commit(transaction.project.next_version())
                inside.pop()

    for thread in [in_thread(write) for _ in range(4)]:
        thread.join()
    assert max(most) == 1
    assert store.read("p").project.version == 81


def test_a_lock_that_is_not_released_raises_store_busy(store, monkeypatch):
    fit(store)
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.02)
    refused = []

    def write():
        try:
            label(store, 1)
        except StoreBusy as error:
            refused.append(error)

    with store.transaction("p"):
        in_thread(write).join()
    assert refused
    assert label(store, 1).version == 2


def test_readers_do_not_wait_for_writers(store, monkeypatch):
    fit(store)
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.0)
    with store.transaction("p"):
        assert everything(store).project.version == 1


def test_a_reader_starts_again_when_its_files_are_swept(store, monkeypatch):
    fit(store)
    load, reads = store_module.load_with_log, []

    def replaced_meanwhile(directory, project_id, known, **options):
        project, end = load(directory, project_id, known, **options)
        reads.append(project.version)
        if len(reads) == 1:
            monkeypatch.setattr(store_module, "load_with_log", load)
            fit(store, X=POOL + 1, replace=True)
        return project, end

    monkeypatch.setattr(store_module, "load_with_log", replaced_meanwhile)
    snapshot = everything(store)
    assert reads == [1]
    assert snapshot.project.version == 2
    assert np.array_equal(snapshot.pool.segments[0], POOL + 1)


def test_a_recreated_project_is_another(tmp_path):
    store = Store(tmp_path / "data", cache_bytes=2**20)
    old = fit(store)
    old_model = everything(store).model
    store.delete("p")
    new = fit(store, y=("b", "a", *LABELS[2:]), held_out=False)
    assert new.pool_id != old.pool_id
    assert (new.version, new.last_model) == (old.version, old.last_model) == (1, 1)
    assert new.classes == ("a", "b")
    assert np.allclose(everything(store).model.predict_proba(POOL), old_model.predict_proba(POOL)[:, ::-1])


def test_a_replaced_project_counts_on(store):
    fit(store)
    new = fit(store, X=POOL + 1, replace=True)
    assert (new.version, new.model.version) == (2, 2)
    assert [segment.number for segment in new.segments] == [3]


def test_a_writer_that_waited_never_writes_to_a_deleted_project(store):
    outcomes = []

    def write(index):
        try:
            outcomes.append(label(store, index).pool_id)
        except ProjectNotFound:
            outcomes.append(None)

    for _ in range(15):
        old = fit(store, y=None, names=None, held_out=False)
        with store.transaction("p"):
            threads = [in_thread(write, index) for index in range(3)]
            threads.append(in_thread(store.delete, "p"))
        threads[-1].join()
        new = fit(store, y=None, names=None, held_out=False)
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {None, old.pool_id, new.pool_id}
        assert store.read("p").project.n_labeled == outcomes.count(new.pool_id)
        outcomes.clear()
        store.delete("p")
        assert list(store.projects.iterdir()) == []


def test_a_fit_that_was_overtaken_does_not_touch_the_newer_model(store, monkeypatch):
    fit(store)
    dump = Staging.dump

    def overtaken(staging, value):
        path = dump(staging, value)
        monkeypatch.setattr(Staging, "dump", dump)
        label(store, 2, "b")
        assert label(store, 3, "a", "wait").model.version == 2
        newer.append((store.directory("p") / model_file(2)).read_bytes())
        return path

    newer = []
    monkeypatch.setattr(Staging, "dump", overtaken)
    assert fit(store, X=None, y=None, names=None, held_out=False).model.version == 2
    assert (store.directory("p") / model_file(2)).read_bytes() == newer[0]


def test_a_fit_of_a_replaced_project_is_refused(store, monkeypatch):
    fit(store)
    dump = Staging.dump

    def replaced(staging, value):
        monkeypatch.setattr(Staging, "dump", dump)
        fit(store, X=POOL + 1, replace=True)
        return dump(staging, value)

    monkeypatch.setattr(Staging, "dump", replaced)
    with pytest.raises(ProjectReplaced):
        fit(store, X=None, y=None, names=None, held_out=False)
    assert everything(store).project.version == 2


def overtake(monkeypatch, act):
    """Do something while the next model is written."""
    dump = Staging.dump

    def overtaken(staging, value):
        monkeypatch.setattr(Staging, "dump", dump)
        act()
        return dump(staging, value)

    monkeypatch.setattr(Staging, "dump", overtaken)


def rescored(store):
    """Send another held-out set with only wrong labels."""
    with store.stage() as staging:
        test = HeldOutUpload(staging.rows(POOL[:2]), EncodedLabels.encode(["b", "a"]))
        return fit_project(store, staging, FitRequest("p", held_out=test))[0]


def test_a_held_out_set_sent_during_the_fit_is_scored(store, monkeypatch):
    assert fit(store).test_score.accuracy == 1.0
    overtake(monkeypatch, lambda: rescored(store))
    after = label(store, 2, "a", "wait")
    assert after.test_score.accuracy < 1.0
    assert after.model.held_out == after.held_out.number
    assert (after.n_labels_since_fit, after.fit_is_due) == (0, False)


def test_a_held_out_set_is_scored_although_labels_changed(store, monkeypatch):
    fit(store)
    overtake(monkeypatch, lambda: label(store, 2, "a", "wait"))
    after = rescored(store)
    assert after.test_score.accuracy == 0.0
    assert after.n_labels_since_fit == 1
    again = label(store, 2, "a", "wait")
    assert (again.model.held_out, again.n_labels_since_fit) == (after.held_out.number, 0)


def test_a_waiting_fit_uses_the_latest_estimator(store, monkeypatch):
    fit(store)
    spec = resolve_estimator("gaussian_nb", {"scale": True})
    overtake(monkeypatch, lambda: fit(store, X=None, y=None, names=None, held_out=False, estimator=spec))
    after = label(store, 2, "a", "wait")
    assert after.model.estimator == spec
    assert (after.n_labels_since_fit, after.fit_is_due) == (0, False)


@pytest.mark.parametrize("trouble", [StoreFull("full"), StoreBusy("p"), StoreDamaged("bad"), ProjectReplaced("p")])
def test_stored_labels_are_acknowledged_although_the_fit_fails(store, monkeypatch, trouble):
    fit(store)
    with monkeypatch.context() as patches:
        patches.setattr(Staging, "dump", lambda *_: (_ for _ in ()).throw(trouble))
        after = label(store, 2, "a", "wait")
    assert (after.n_labeled, after.model.version, after.n_labels_since_fit) == (3, 1, 1)
    assert label(store, 2, "a", "wait").n_labels_since_fit == 0


def test_a_fit_that_is_not_due_is_not_done(store):
    fit(store)
    assert fit_if_due(store, "p").version == 1
    label(store, 2, "b")
    assert [fit_if_due(store, "p").version for _ in range(2)] == [3, 3]


def test_a_world_writable_directory_is_not_trusted(tmp_path, monkeypatch):
    root = tmp_path / "lent"
    root.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    root.chmod(0o770)
    Store(root)
    root.chmod(0o777)
    with pytest.raises(PermissionError, match="writable for all"):
        Store(root)


def test_a_stray_file_is_not_a_project(store):
    (store.projects / "README").write_text("hello")
    assert store.project_ids() == []
    with pytest.raises(ProjectNotFound):
        store.read("README")


def test_a_dropped_model_is_removed_by_the_commit(store):
    fit(store)
    retract_label(store, "p", 0)
    assert list((store.directory("p") / "models").iterdir()) == []


def test_a_project_is_not_created_twice(store):
    fit(store)
    with pytest.raises(ProjectExists):
        fit(store)


# The cache.


@pytest.fixture
def quick(tmp_path):
    """A store with a cache, as in the service."""
    return Store(tmp_path / "data", cache_bytes=2**20)


def test_the_cache_holds_no_more_bytes_than_it_may():
    cache = Cache(2 * (1000 + OVERHEAD))
    for key in "ab":
        cache.put((key,), key, 1000)
    assert cache.get(("a",)) == "a"
    cache.put(("c",), "c", 1000)
    assert [cache.get((key,)) for key in "abc"] == ["a", None, "c"]
    cache.put(("a",), "larger", 1001)
    assert [cache.get((key,)) for key in "abc"] == ["larger", None, None]


@pytest.mark.parametrize("capacity", [0, 10, OVERHEAD])
def test_a_cache_too_small_for_a_value_does_without(capacity):
    cache = Cache(capacity)
    made = [cache.get_or_make(("k",), lambda n=n: (n, 100)) for n in (1, 2)]
    assert made == [1, 2]


def test_a_value_too_large_drives_out_no_other():
    cache = Cache(5000)
    cache.put(("a",), "a", 1000)
    cache.put(("b",), "b", 5000)
    assert [cache.get((key,)) for key in "ab"] == ["a", None]


def test_dropped_entries_free_space():
    cache = Cache(2 * (1000 + OVERHEAD))
    for key in "ab":
        cache.put((key,), key, 1000)
    cache.drop(lambda key: key == ("a",))
    cache.put(("c",), "c", 1000)
    assert [cache.get((key,)) for key in "abc"] == [None, "b", "c"]


def test_nothing_is_read_twice(quick):
    fit(quick)
    one, other = everything(quick), everything(quick)
    assert one.project is other.project
    assert one.model is other.model
    assert one.pool.segments[0] is other.pool.segments[0]
    assert one.ids.parts[0] is other.ids.parts[0]


def test_a_commit_of_another_process_is_seen_at_once(quick, tmp_path):
    fit(quick)
    other = Store(tmp_path / "data")
    for index in (2, 3, 4):
        version = label(other, index).version
        assert everything(quick).project.version == version


def test_a_state_replaced_by_another_process_is_seen_at_once(quick, tmp_path):
    fit(quick)
    model = everything(quick).model
    fit(Store(tmp_path / "data"), X=POOL + 1, replace=True)
    snapshot = everything(quick)
    assert np.array_equal(snapshot.pool.segments[0], POOL + 1)
    assert snapshot.model is not model


def test_a_recreated_project_has_nothing_of_the_old_one(quick, tmp_path):
    other = Store(tmp_path / "data")
    fit(quick, names="abcdef")
    everything(quick)
    other.delete("p")
    fit(other, X=POOL + 1, names="uvwxyz")
    snapshot = everything(quick)
    assert snapshot.ids.names_at([0]) == ["u"]
    assert np.array_equal(snapshot.pool.segments[0], POOL + 1)


def test_commits_within_one_clock_tick_are_distinguished(quick, tmp_path):
    fit(quick)
    other = Store(tmp_path / "data")
    for n in range(40):
        changed = label(other, 2, "ab"[n % 2]).version
        assert quick.read("p").project.version == changed


def keys_of(store, incarnation):
    return [key for key in store.cache.keys() if key[0] == incarnation]  # noqa: SIM118 - not a mapping


def test_entries_that_a_newer_state_does_not_name_are_dropped(quick, tmp_path):
    before = everything_of(quick)
    fit(Store(tmp_path / "data"), X=POOL + 1, replace=True)
    quick.read("p")
    assert keys_of(quick, before) == []


def everything_of(store):
    """Create a project, cache all its parts, and return its pool id."""
    fit(store)
    incarnation = everything(store).project.pool_id
    assert len(keys_of(store, incarnation)) == 7
    return incarnation


def test_projects_deleted_by_others_are_dropped_on_the_next_read(quick, tmp_path, monkeypatch):
    gone = everything_of(quick)
    other = Store(tmp_path / "data")
    fit(other, "q")
    other.delete("p")
    quick.read("q")
    assert keys_of(quick, gone)
    monkeypatch.setattr(store_module, "REFRESH_SECONDS", 0)
    quick.read("q")
    assert keys_of(quick, gone) == []


def test_an_old_model_is_let_go_and_the_pool_stays(quick):
    before = everything_of(quick)
    fit(quick, X=None, y=None, names=None, held_out=False, random_state=3)
    names = {key[1] for key in keys_of(quick, before)}
    assert "pool/000001.joblib" in names
    assert "models/000001.joblib" not in names


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def removed_files_held_open(directory):
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [link for link in links if link.startswith(f"{directory}/") and link.endswith(" (deleted)")]


def test_no_lock_file_of_a_deleted_project_stays_open(quick, tmp_path):
    everything_of(quick)
    with quick.fit_turn("p"), quick.lease_turn("p"):
        pass
    quick.delete("p")
    assert removed_files_held_open(tmp_path) == []


def test_no_lock_file_of_a_project_that_was_not_created_stays_open(quick, tmp_path):
    with pytest.raises(StoreBusy), quick.transaction("new", create=True):
        raise StoreBusy("a new project")
    assert removed_files_held_open(tmp_path) == []


def test_a_segment_is_mapped_once_however_often_the_pool_grows(quick, monkeypatch):
    monkeypatch.setattr("service.usecases.append.MERGED_ROWS", 0)
    fit(quick, held_out=False)
    before = open_files()
    for n in range(40):
        append(quick, names=[f"{n} {row}" for row in range(6)])
        everything(quick)
    assert open_files() - before <= 2 * 40  # the rows and the names of each


@pytest.fixture
def few_files():
    """Let this process open only a few more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 60, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("cache_bytes", [2**20, 2**40], ids=["bounded", "told nothing of the limit"])
def test_many_cached_projects_do_not_exhaust_open_files(tmp_path, few_files, cache_bytes, monkeypatch):
    store = Store(tmp_path / "data", cache_bytes=cache_bytes)
    if cache_bytes == 2**40:
        store.cache.n_bytes_of_mapping = 0
    for n in range(40):
        fit(store, f"p{n}")
    for _ in range(2):
        for n in range(40):
            assert everything(store, f"p{n}").ids.names_at([0]) == ["a"]


def test_a_project_that_cannot_be_looked_at_harms_no_other(quick, monkeypatch):
    fit(quick, "p")
    fit(quick, "q")
    real = Stamp.of

    def stale(path):
        if "q" in Path(path).parts:
            raise OSError(errno.ESTALE, "stale")
        return real(path)

    monkeypatch.setattr(Stamp, "of", stale)
    monkeypatch.setattr(store_module, "REFRESH_SECONDS", 0)
    assert quick.read("p").project.version == 1


def test_a_deleted_pool_is_dropped_although_its_state_is_not_cached(quick, tmp_path, monkeypatch):
    gone = everything_of(quick)
    quick.cache.drop(lambda key: key[0] == "state")
    other = Store(tmp_path / "data")
    fit(other, "q")
    other.delete("p")
    monkeypatch.setattr(store_module, "REFRESH_SECONDS", 0)
    quick.read("q")
    assert keys_of(quick, gone) == []


def test_a_label_that_another_process_was_quicker_with_is_not_lost(store, monkeypatch):
    fit(store)
    real = Store.change

    def overtaken(self, *arguments):
        monkeypatch.setattr(Store, "change", real)
        label(store, 4, "b")
        return real(self, *arguments)

    monkeypatch.setattr(Store, "change", overtaken)
    assert label(store, 5, "a").labels.labeled.tolist() == [0, 1, 4, 5]


def test_a_clock_that_was_set_back_leaves_the_order_of_commits(store, monkeypatch):
    before = fit(store).updated_at
    monkeypatch.setattr("service.domain.project.now", lambda: before - 10**9)
    after = fit(store, replace=True)
    assert after.updated_at > before > after.created_at - 1


def test_a_summary_is_made_once_for_each_state_and_leaves_no_state_in_the_cache(quick, tmp_path):
    fit(Store(tmp_path / "data"))
    made = []

    def summarize(project):
        made.append(project.version)
        return project.n_labeled, 10

    assert [quick.summarize("p", summarize) for _ in range(2)] == [2, 2]
    label(Store(tmp_path / "data"), 3)
    assert [quick.summarize("p", summarize) for _ in range(2)] == [3, 3]
    assert made == [1, 2]
    assert quick.cache.get(("state", "p")) is None
    Store(tmp_path / "data").delete("p")
    with pytest.raises(ProjectNotFound):
        quick.summarize("p", summarize)


# An unreadable project does not affect others.

DAMAGE = {
    "empty": lambda data: b"",
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"hello, world\n",
    "like zlib": lambda data: b"\x78" + data[1:],
    "like gzip": lambda data: b"\x1f\x8b" + data[2:],
    "like bz2": lambda data: b"BZ" + data[2:],
    "like xz": lambda data: b"\xfd7zXZ" + data[5:],
    "like lzma": lambda data: b"\x5d\x00" + data[2:],
    "like lz4": lambda data: b"\x04\x22\x4d\x18" + data[4:],
    "missing": None,
}

PARTS = {
    "state.joblib": (),
    "pool/000001.joblib": (Part.POOL,),
    "pool/000001.ids.joblib": (Part.IDS,),
    "test/000002.joblib": (Part.HELD_OUT,),
    "test/000002.y.joblib": (Part.HELD_OUT,),
    "models/000001.joblib": (Part.MODEL,),
}


def damage(path, how):
    if how is None:
        path.unlink()
    else:
        path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_file_is_said_and_harms_no_other_project(store, name, how):
    fit(store)
    fit(store, "other")
    damage(store.directory("p") / name, DAMAGE[how])
    before = files_below(store.root)
    with pytest.raises(StoreDamaged, match=r"'p'.*`active-query check --project p`"):
        store.read("p", *PARTS[name])
    assert everything(store, "other").project.version == 1
    store.sweep()
    assert files_below(store.root) == before, "it is what the project can be mended from"


@pytest.mark.parametrize("name", [name for name in PARTS if name != "state.joblib"])
def test_a_project_with_a_damaged_file_can_be_looked_at_and_labelled(store, name):
    fit(store)
    damage(store.directory("p") / name, None)
    assert store.read("p").project.n_labeled == 2
    assert label(store, 3).n_labeled == 3


def test_a_lost_model_is_fitted_again(store):
    fit(store)
    damage(store.directory("p") / "models/000001.joblib", None)
    fit(store, X=None, y=None, names=None, held_out=False)
    assert everything(store).project.model.version == 2


def test_labels_by_name_need_the_names(store):
    fit(store)
    damage(store.directory("p") / "pool/000001.ids.joblib", None)
    with pytest.raises(StoreDamaged):
        label_project(store, LabelRequest("p", [SubmittedLabel(None, "c", "a")]))


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_project_can_be_deleted(store, how):
    fit(store)
    damage(store.directory("p") / "state.joblib", DAMAGE[how])
    store.delete("p")
    assert fit(store).version == 1


@pytest.mark.parametrize("written", [0, SCHEMA_VERSION + 1, "1", None])
def test_a_state_of_another_schema_is_refused_by_name(store, written):
    project = fit(store)
    record = to_record(project) | {"schema_version": written}
    (store.directory("p") / "state.joblib").write_bytes(pickle.dumps(record))
    with pytest.raises(UnknownSchema, match=rf"'p' has schema version {written!r}.*reads 1 to {SCHEMA_VERSION}"):
        store.read("p")


@pytest.mark.parametrize("written", [2, SCHEMA_VERSION])
def test_a_state_that_lost_its_checksum_is_damaged(store, written):
    record = to_record(fit(store)) | {"schema_version": written}
    (store.directory("p") / "state.joblib").write_bytes(pickle.dumps(record))
    with pytest.raises(StoreDamaged, match="checksum is missing"):
        store.read("p")


@pytest.mark.parametrize("record", [None, [], {}, {"schema_version": 1}, {"schema_version": 1, "surplus": 2}, 7])
def test_a_state_that_is_not_a_record_is_damage(store, record):
    fit(store)
    joblib.dump(record, store.directory("p") / "state.joblib")
    with pytest.raises(StoreDamaged):
        store.read("p")


@pytest.mark.parametrize("write", [write_pickle, write_joblib])
def test_a_file_of_objects_is_read_whichever_way_it_was_written(tmp_path, write):
    path = tmp_path / "file"
    assert write(path, {"a": POOL, "b": ["c"]}).checksum.n_bytes == path.stat().st_size
    for read in (load, joblib.load):
        value = read(path)
        assert np.array_equal(value["a"], POOL)
        assert value["a"].flags.writeable
        assert value["b"] == ["c"]
    path.write_bytes(path.read_bytes()[20:])
    with pytest.raises(StoreDamaged):
        load(path)
