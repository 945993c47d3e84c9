"""The log of small changes in the file of a state: what is acknowledged is read, by every process, and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest

from service.app import create_app
from service.domain.preconditions import Preconditions, RequestFingerprint
from service.domain.votes import Votes
from service.errors import InvalidRequest, LabelNotFound, PreconditionFailed, ProjectNotFound, StoreBusy, StoreDamaged
from service.settings import Settings
from service.store import Store, locks
from service.store import load_state as load_state_module
from service.store.check import check_project
from service.store.files import write_small
from service.store.load_state import load_with_log
from service.store.state_file import END_BYTES, LOG_BYTES, PUBLISHED
from service.store.state_format import to_record
from service.usecases.label import LabelRequest, SubmittedLabel, label_project, retract_label
from tests.store.test_store import POOL, fit, label
from tests.support.calls import post
from tests.support.groups import in_one_group

N_SAMPLES = 400
SECTOR = 512
MANY = {"X": np.arange(2.0 * N_SAMPLES).reshape(-1, 2), "y": None, "names": None, "held_out": False}


def contents(project):
    """The whole state, in a comparable form."""
    return joblib.hash(pickle.loads(pickle.dumps(to_record(project))))


def end_of(store):
    return load_with_log(store.directory("p"), "p")[1]


def path_of(store):
    return store.directory("p") / "state.joblib"


def label_as(store, index, value, who=None, refit="never"):
    return label_project(store, LabelRequest("p", [SubmittedLabel(index, None, value, who)], refit)).project


def change_in_small_steps(store):
    """Yield the project after each of many kinds of commits that only write to the log."""
    yield label(store, 2)
    yield label(store, 2, "b", "background")
    yield label_as(store, 3, "a", "zoe")
    yield label_as(store, 3, "b", "ann")
    yield label_as(store, 4, None, "zoe")
    yield label_as(store, 4, "c", None)
    yield retract_label(store, "p", 3)
    records = [SubmittedLabel(index, None, "ab"[index % 2], f"who{index % 3}") for index in range(5, 60)]
    yield label_project(store, LabelRequest("p", records, "never")).project
    yield label_project(store, LabelRequest("p", records[:3], "never", replaces_all=True)).project


def test_every_small_change_is_read_as_it_was_made(tmp_path):
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, **MANY)
    first = end_of(store).state_crc
    for project in change_in_small_steps(store):
        assert contents(project) == contents(other.read("p").project) == contents(Store(store.root).read("p").project)
        assert check_project(store.directory("p")) == []
    assert (end_of(store).state_crc, project.version) == (first, 10)


@pytest.mark.parametrize(
    ("target", "estimator", "labels"),
    [
        ("number", "ridge", [1.5, 2.0, 2.25, -0.1, 7.0, 1.5, None, 3.0]),
        ("labels", "logistic_regression", [("a",), ("a", "b"), (), ("b",), ("c",), ("a",), None, ("a", "c")]),
    ],
)
def test_small_changes_of_labels_in_a_table_are_read_as_they_were_made(tmp_path, target, estimator, labels):
    X = [[row, 1] for row in range(9)]
    client = create_app(Settings(data_dir=tmp_path / "data", log_level="critical")).test_client()
    post(client, "/fit", 201, project_id="p", X=X, target=target, estimator=estimator)
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data", cache_bytes=2**20)
    first = end_of(store).state_crc
    for nth, value in enumerate(labels):
        for who in ("ann", "bob", "cy")[: 1 + nth % 3]:  # whose median, or sets in common, may be nobody's label
            label = value if who != "bob" or value is None else 100.0 if target == "number" else ("b", "c")
            project = label_as(store, 2 + nth % 5, label, who)
            for reader in (other, Store(store.root)):
                assert contents(project) == contents(reader.read("p").project)
    assert contents(retract_label(store, "p", 3)) == contents(Store(store.root).read("p").project)
    assert end_of(store).state_crc == first
    assert check_project(store.directory("p")) == []


def test_other_processes_read_only_the_new_changes(tmp_path, monkeypatch):
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data", cache_bytes=2**20)
    fit(store)
    assert other.read("p").project.n_labeled == 2
    monkeypatch.setattr(load_state_module, "read_state", lambda path: pytest.fail("read as a whole"))
    for index in (2, 3):
        label(store, index)
        assert label(other, index + 2).version == store.read("p").project.version == index * 2 - 1


def test_a_state_that_is_being_written_is_read_again(tmp_path, monkeypatch):
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data", cache_bytes=2**20)
    fit(store)
    utime, tick = os.utime, []

    def utime_after_a_reader(file, ns):
        utime(file, ns=(tick[0] if tick else os.fstat(file).st_mtime_ns,) * 2)  # both in one tick of the clock
        tick.append(os.fstat(file).st_mtime_ns)
        assert other.read("p").project.version == len(tick) + 1
        utime(file, ns=ns)

    monkeypatch.setattr(os, "utime", utime_after_a_reader)
    label(store, 2)
    label(store, 3)
    assert other.read("p").project.version == 3


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_full_log_is_followed_by_a_whole_state(tmp_path, cache_bytes, monkeypatch):
    monkeypatch.setattr("service.store.state_file.LOG_BYTES", 4096)
    store = Store(tmp_path / "data", cache_bytes=cache_bytes)
    fit(store, **MANY)
    whole = set()
    for index in range(40):
        project = label(store, index)
        assert contents(project) == contents(Store(store.root).read("p").project)
        whole.add(end_of(store).state_crc)
    assert 3 < len(whole) < 20


@pytest.fixture
def logged(store):
    """A store whose state has three changes in its log; the file after each, the ends of the log, and the states."""
    fit(store, **MANY)
    files, states, ends = [], [], []
    for index in range(3):
        records = [SubmittedLabel(each, None, "a", "ann") for each in range(20 * index, 20 * index + 20)]
        states.append(contents(label_project(store, LabelRequest("p", records, "never")).project))
        ends.append(end_of(store).position)
        files.append(path_of(store).read_bytes())
    return store, files, ends, states


def with_zeros(data, begin, end):
    return data[:begin] + bytes(end - begin) + data[end:]


def unpublished(data, before):
    """The file of a commit that died before it published its changes."""
    return data[: -PUBLISHED.size] + before[-PUBLISHED.size :]


@pytest.fixture
def power_cut(monkeypatch):
    """A function that starts the machine again."""
    return lambda: monkeypatch.setattr("service.store.state_file.BOOT", 1)


def found_by_readers_and_writer(logged):
    """Return what is read before, in and after a transaction where two changes are not published."""
    store, files, _, _ = logged
    path_of(store).write_bytes(unpublished(files[2], files[0]))
    reader, writer = Store(store.root, cache_bytes=2**20), Store(store.root, cache_bytes=2**20)

    def read_by_both():
        read, by_writer = contents(reader.read("p").project), contents(writer.read("p").project)
        assert read == by_writer
        return read

    found = {"before": read_by_both()}
    with writer.transaction("p") as transaction:
        found["writing"] = contents(transaction.project)
    return found | {"after": read_by_both()}


def test_changes_that_are_not_published_are_removed_while_the_machine_runs(logged):
    store, _, _, states = logged
    found = found_by_readers_and_writer(logged)
    assert found == {"before": states[0], "writing": states[0], "after": states[0]}
    assert check_project(store.directory("p")) == []


def test_changes_that_are_not_published_are_read_after_a_power_cut_once_a_process_has_the_lock(logged, power_cut):
    store, files, _, states = logged
    power_cut()
    found = found_by_readers_and_writer(logged)
    assert found == {"before": states[0], "writing": states[2], "after": states[2]}
    path_of(store).write_bytes(unpublished(files[2], files[1]))
    Store(store.root).sweep()
    assert contents(Store(store.root).read("p").project) == states[2]


def test_a_commit_that_died_while_it_wrote_leaves_no_trace(logged):
    store, (_, before, after), (_, begin, end), states = logged
    data = unpublished(after, before)
    for cut in (*range(begin, begin + 40), *range(begin + 40, end - 40, 97), *range(end - 40, end - 17)):
        path_of(store).write_bytes(with_zeros(data, cut, end))
        assert contents(Store(store.root).read("p").project) == states[1], cut
    assert [finding.file for finding in check_project(store.directory("p"))] == ["state.joblib"]
    Store(store.root).sweep()
    assert check_project(store.directory("p")) == []
    assert label(Store(store.root), 99).n_labeled == 41


def test_a_group_that_died_while_it_was_written_leaves_some_of_its_first_changes_whole(tmp_path, power_cut):
    store = Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, **MANY)
    before, begin = path_of(store).read_bytes(), end_of(store).position
    assert in_one_group(store, *[lambda at=at: label(store, at).version for at in range(2, 7)]) == [2, 3, 4, 5, 6]
    data, end = unpublished(path_of(store).read_bytes(), before), end_of(store).position
    power_cut()
    seen = set()
    for cut in range(begin, end, 47):
        path_of(store).write_bytes(with_zeros(data, cut, end))
        survivor = Store(store.root)
        assert survivor.read("p").project.version == 1
        survivor.sweep()
        project = survivor.read("p").project
        assert project.labels.labeled.tolist() == list(range(2, project.version + 1))
        seen.add(project.version)
    assert seen == {1, 2, 3, 4, 5}
    assert check_project(store.directory("p")) == []


def test_commits_that_lost_a_sector_in_a_power_cut_leave_no_trace(logged, power_cut):
    power_cut()
    store, files, (first, _, end), states = logged
    data = unpublished(files[2], files[0])
    for sector in range(first // SECTOR * SECTOR + SECTOR, end, SECTOR):
        path_of(store).write_bytes(with_zeros(data, sector, sector + SECTOR))
        survivor = Store(store.root)
        survivor.sweep()
        assert contents(survivor.read("p").project) in states[:2], sector
        n_labeled = survivor.read("p").project.n_labeled
        assert label(survivor, 99).n_labeled == n_labeled + 1
        assert Store(store.root).read("p").project.n_labeled == n_labeled + 1
        assert check_project(store.directory("p")) == []


def test_a_flipped_bit_is_never_read(logged):
    store, (*_, data), (first, *_, end), states = logged
    begin = end_of(store).begin
    for at in (*range(begin, end, 61), *range(first, first + 12), *range(len(data) - END_BYTES, len(data))):
        damaged = bytearray(data)
        damaged[at] ^= 4
        path_of(store).write_bytes(damaged)
        try:
            assert contents(Store(store.root).read("p").project) == states[-1], at  # a byte between two records
        except StoreDamaged:
            assert [finding.file for finding in check_project(store.directory("p"))] == ["state.joblib"]
    damaged = bytearray(data)
    damaged[end + 1000] ^= 4
    path_of(store).write_bytes(damaged)
    assert contents(Store(store.root).read("p").project) == states[-1]
    assert [finding.problem[:10] for finding in check_project(store.directory("p"))] == ["holds more"]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:-LOG_BYTES]])
def test_a_state_with_a_log_that_has_another_length_is_damaged(logged, change):
    store, (*_, data), *_ = logged
    path_of(store).write_bytes(change(data))
    with pytest.raises(StoreDamaged, match="checksum is missing"):
        Store(store.root).read("p")


def test_a_change_of_another_state_is_not_read(logged):
    store, (*_, data), (first, *_, end), _ = logged
    project = fit(store, replace=True, **MANY)
    other, begin = bytearray(path_of(store).read_bytes()), end_of(store).position
    other[begin : begin + end - first] = data[first:end]
    path_of(store).write_bytes(other)
    for survivor in (Store(store.root), Store(store.root)):
        assert survivor.read("p").project.commit == project.commit
        survivor.sweep()
    assert check_project(store.directory("p")) == []


def test_a_state_without_a_log_gets_one_with_the_next_commit(store):
    project = fit(store)
    path_of(store).unlink()
    write_small(path_of(store), to_record(project) | {"schema_version": 4})
    assert end_of(store) is None
    assert label(store, 2).version == 2
    assert label(store, 3).version == 3
    assert end_of(store).position > end_of(store).begin
    assert Store(store.root).read("p").project.version == 3


def test_changes_that_wait_are_made_in_order_with_one_sync_and_answered_one_by_one(tmp_path, monkeypatch):
    store, syncs = Store(tmp_path / "data", cache_bytes=2**20), []
    tag = fit(store, **MANY).tag
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (syncs.append(file), fdatasync(file)))
    key = RequestFingerprint("k" * 64, "c" * 64)

    def send(index, value="a", **conditions):
        request = LabelRequest("p", [SubmittedLabel(index, None, value)], "never")
        return label_project(store, request, preconditions=Preconditions(**conditions))

    results = in_one_group(
        store,
        lambda: send(2, if_match=frozenset({f'"{tag}"'})),
        lambda: send(3, if_match=frozenset({f'"{tag}"'})),
        lambda: send(N_SAMPLES),
        lambda: send(3, "b", fingerprint=key),
        lambda: send(3, "b"),
        lambda: send(2, "b", if_match=frozenset({f'"{tag[:-1]}3"'})),
        lambda: retract_label(store, "p", 3),
        lambda: retract_label(store, "p", 3),
        lambda: send(4),
    )
    errors = {at: type(result) for at, result in enumerate(results) if isinstance(result, Exception)}
    assert errors == {1: PreconditionFailed, 2: InvalidRequest, 7: LabelNotFound}
    assert [results[at].project.version for at in (0, 3, 4, 5, 8)] == [2, 3, 3, 4, 6]
    assert [results[at].n_changed for at in (0, 3, 4, 5, 8)] == [1, 1, 0, 1, 1]
    assert (results[6].version, len(syncs)) == (5, 1)
    assert contents(Store(store.root).read("p").project) == contents(results[8].project)
    events = [json.loads(event) for event in store.events("p", 1, 9)[1]]
    assert [(event["version"], event["kind"]) for event in events] == [
        *((version, "label") for version in (2, 3, 4)),
        (5, "retract"),
        (6, "label"),
    ]
    assert [event["details"].get("request") for event in events] == [None, str(key), None, None, None]


def test_changes_that_wait_together_for_another_process_wait_no_longer_than_one(tmp_path, monkeypatch):
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data")
    fit(store, **MANY)
    with other.transaction("p"), ThreadPoolExecutor(5) as threads:
        monkeypatch.setattr(locks, "LOCK_SECONDS", 0.5)
        began = time.monotonic()
        failed = [each.exception() for each in [threads.submit(label, store, at) for at in range(2, 7)]]
        assert time.monotonic() - began < 2
    assert [type(error) for error in failed] == [StoreBusy] * 5
    assert label(store, 2).version == 2


def test_no_change_is_seen_before_it_is_on_disk(tmp_path, monkeypatch):
    store, other = Store(tmp_path / "data", cache_bytes=2**20), Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, **MANY)
    seen, fdatasync = [], os.fdatasync

    def sync_slowly(file):
        seen.extend(each.read("p").project.version for each in (store, other, Store(store.root)))
        fdatasync(file)

    monkeypatch.setattr(os, "fdatasync", sync_slowly)
    assert [label(store, index).version for index in (2, 3)] == [2, 3]
    assert label(other, 4).version == store.read("p").project.version == 4
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def replace_and_die_before_publishing(store):
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("service.store.transaction.publish", lambda *_: os.close(-1))
        with pytest.raises(OSError, match="descriptor"):
            fit(store, replace=True, **MANY)


def test_a_state_whose_name_may_be_lost_is_synced_by_its_readers_until_a_process_has_the_lock(store, monkeypatch):
    fit(store)
    replace_and_die_before_publishing(store)
    synced, real = [], load_state_module.fsync_directory
    monkeypatch.setattr(load_state_module, "fsync_directory", lambda path: (synced.append(path.name), real(path)))
    assert Store(store.root).read("p").project.version == 2
    assert len(synced) == 2
    assert label(store, 2).version == 3
    synced.clear()
    assert Store(store.root).read("p").project.version == 3
    assert synced == []


def test_a_project_that_is_deleted_before_a_reader_syncs_its_name_is_not_found(store, monkeypatch):
    fit(store)
    replace_and_die_before_publishing(store)
    real = load_state_module.fsync_directory
    monkeypatch.setattr(load_state_module, "fsync_directory", lambda path: (store.delete("p"), real(path)))
    with pytest.raises(ProjectNotFound):
        Store(store.root).peek("p")


def test_a_change_in_a_group_that_writes_the_whole_state_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("service.store.state_file.LOG_BYTES", 4096)
    store = Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, **MANY)
    first = end_of(store).state_crc
    long = LabelRequest("p", [SubmittedLabel(index, None, "c") for index in range(10, 110)], "never")
    label_at = [lambda at=at: label(store, at).version for at in (3, 4, 5, 6)]
    calls = [*label_at[:2], lambda: label_project(store, long).project.version, *label_at[2:]]
    assert in_one_group(store, *calls) == [2, 3, 4, 5, 6]
    assert end_of(store).state_crc != first
    project = Store(store.root).read("p").project
    assert (project.version, project.n_labeled) == (6, 104)


@pytest.mark.parametrize("operation", ["fdatasync", "pwrite"])
def test_a_log_that_cannot_be_written_is_followed_by_a_whole_state(tmp_path, monkeypatch, operation):
    store, real = Store(tmp_path / "data", cache_bytes=2**20), getattr(os, operation)
    fit(store, X=POOL)
    first, failures = end_of(store).state_crc, iter([lambda *_: os.close(-1)] * 2)
    monkeypatch.setattr(os, operation, lambda *arguments: next(failures, real)(*arguments))
    project = label(store, 2)
    assert end_of(store).state_crc != first
    assert contents(Store(store.root).read("p").project) == contents(project)
    assert label(store, 3).version == 3


def test_a_group_that_cannot_be_written_at_all_fails_and_leaves_no_trace(tmp_path, monkeypatch):
    store = Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, **MANY)
    with monkeypatch.context() as patches:
        for name in ("fdatasync", "fsync"):
            patches.setattr(os, name, lambda file: os.close(-1))
        failed = in_one_group(store, *[lambda at=at: label(store, at) for at in (2, 3, 4)])
    assert [type(error) for error in failed] == [OSError] * 3
    assert [Store(store.root).read("p").project.version, store.read("p").project.version] == [1, 1]
    assert label(store, 5).version == 2
    assert Store(store.root).read("p").project.n_labeled == 1


def test_conditions_are_checked_one_commit_after_the_other(tmp_path):
    store = Store(tmp_path / "data", cache_bytes=2**20)
    tag = fit(store).tag
    request = LabelRequest("p", [SubmittedLabel(2, None, "a")], "never")
    only_if_unchanged = Preconditions(if_match=frozenset({f'"{tag}"'}))
    assert label_project(store, request, preconditions=only_if_unchanged).project.version == 2
    with pytest.raises(PreconditionFailed):
        label_project(store, LabelRequest("p", [SubmittedLabel(3, None, "a")]), preconditions=only_if_unchanged)


def test_changed_votes_are_those_that_are_sorted_and_resolved_from_scratch():
    rng = np.random.default_rng(0)
    votes = Votes.empty()
    for step in range(60):
        rows = {(int(rng.integers(12)), int(rng.integers(3))) for _ in range(rng.integers(1, 6))}
        given = Votes.from_rows([(index, int(rng.integers(-1, 3)), who, b"q" * step) for index, who in rows], step)
        gone = np.flatnonzero(rng.random(len(votes)) < 0.3)
        gone = np.union1d(gone, np.flatnonzero(np.isin(votes.key, given.key)))
        votes = Votes(*votes.columns) if step % 3 else votes
        assert votes.majority is votes.majority
        after = votes.changed(votes.having(votes.key[gone].tolist()), given)
        plain = votes.take(np.setdiff1d(np.arange(len(votes)), gone)).merge(given)
        assert len(after) == len(plain)
        for sample in range(12):
            assert after.on(sample) == plain.on(sample)
            assert after.majority.code_at(sample) == plain.majority.code_at(sample)
        assert (after.majority.n_labeled, after.majority.n_skipped) == (
            len(plain.majority.labeled),
            len(plain.majority.skipped),
        )
        assert np.array_equal(np.trim_zeros(after.majority.counts, "b"), np.trim_zeros(plain.majority.counts, "b"))
        for one, other in zip(after.columns, plain.columns, strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
        for name in ("labeled", "codes", "skipped"):
            assert np.array_equal(getattr(after.majority, name), getattr(plain.majority, name))
        known, found = votes.difference(after), votes.difference(plain)
        assert {*found[0].rows()} == {*known[0].rows()}
        assert found[1].rows() == known[1].rows()
        rebuilt = votes.changed(*found)
        assert all(np.array_equal(*pair) for pair in zip(rebuilt.columns, plain.columns, strict=True))
        votes = after
