"""The log of small changes in the file of a state: what is acknowledged is read, by every process, and nothing else."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import joblib
import numpy as np
import pytest

from service.domain.labels import Votes
from service.domain.preconditions import Preconditions
from service.errors import PreconditionFailed, StoreDamaged
from service.store import Store
from service.store import load_state as load_state_module
from service.store.check import check_project
from service.store.files import write_small
from service.store.load_state import load_with_log
from service.store.state_file import FOOTER, LOG_BYTES, SECTOR
from service.store.state_format import to_record
from service.usecases.label import LabelRequest, SubmittedLabel, label_project, retract_label
from tests.store.test_store import POOL, fit, label

N_SAMPLES = 400
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
    base = end_of(store).base
    for project in change_in_small_steps(store):
        assert contents(project) == contents(other.read("p").project) == contents(Store(store.root).read("p").project)
        assert check_project(store.directory("p")) == []
    assert (end_of(store).base, project.version) == (base, base + 9)


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
    bases = set()
    for index in range(40):
        project = label(store, index)
        assert contents(project) == contents(Store(store.root).read("p").project)
        bases.add(end_of(store).base)
    assert 3 < len(bases) < 20


@pytest.fixture
def logged(store):
    """A store whose state has three changes in its log; the file, its end, and the states after each."""
    fit(store, **MANY)
    states, ends = [], []
    for index in range(3):
        records = [SubmittedLabel(each, None, "a", "ann") for each in range(20 * index, 20 * index + 20)]
        states.append(contents(label_project(store, LabelRequest("p", records, "never")).project))
        ends.append(end_of(store).position)
    return store, path_of(store).read_bytes(), ends, states


def with_zeros(data, begin, end):
    return data[:begin] + bytes(end - begin) + data[end:]


def test_a_commit_that_died_while_it_wrote_leaves_no_trace(logged):
    store, data, (_, begin, end), states = logged
    for cut in (*range(begin, begin + 40), *range(begin + 40, end - 40, 97), *range(end - 40, end - 17)):
        path_of(store).write_bytes(with_zeros(data, cut, end))
        assert contents(Store(store.root).read("p").project) == states[1], cut
    assert [finding.file for finding in check_project(store.directory("p"))] == ["state.joblib"]
    Store(store.root).sweep()
    assert check_project(store.directory("p")) == []
    assert label(Store(store.root), 99).n_labeled == 41


def test_commits_that_lost_a_sector_in_a_power_cut_leave_no_trace(logged):
    store, data, (first, _, end), states = logged
    sectors = [sector for sector in range(0, end, SECTOR) if sector + SECTOR > first]
    for sector in sectors[1:-1]:
        path_of(store).write_bytes(with_zeros(data, sector, sector + SECTOR))
        survivor = Store(store.root)
        assert contents(survivor.read("p").project) in states[:2], sector
        n_labeled = survivor.read("p").project.n_labeled
        assert label(survivor, 99).n_labeled == n_labeled + 1
        assert Store(store.root).read("p").project.n_labeled == n_labeled + 1
        assert check_project(store.directory("p")) == []


def test_a_flipped_bit_is_never_read(logged):
    store, data, (first, *_, end), states = logged
    begin = FOOTER.unpack(data[-FOOTER.size :])[1] // 16 * 16 + 16
    for at in (*range(begin, end, 61), *range(first, first + 12), *range(len(data) - FOOTER.size, len(data))):
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
    store, data, *_ = logged
    path_of(store).write_bytes(change(data))
    with pytest.raises(StoreDamaged, match="checksum is missing"):
        Store(store.root).read("p")


def test_a_change_of_another_state_is_not_read(logged):
    store, data, (first, *_, end), _ = logged
    fit(store, replace=True, **MANY)
    other, begin = bytearray(path_of(store).read_bytes()), end_of(store).position
    other[begin : begin + end - first] = data[first:end]
    path_of(store).write_bytes(other)
    with pytest.raises(StoreDamaged, match="wrong checksum"):
        Store(store.root).read("p")


def test_a_state_without_a_log_gets_one_with_the_next_commit(store):
    project = fit(store)
    path_of(store).unlink()
    write_small(path_of(store), to_record(project) | {"schema_version": 4})
    assert end_of(store) is None
    assert label(store, 2).version == 2
    assert label(store, 3).version == 3
    assert (end_of(store).base, Store(store.root).read("p").project.version) == (2, 3)


def test_one_sync_serves_all_who_wait_for_it(tmp_path, monkeypatch):
    store, counted, start = Store(tmp_path / "data", cache_bytes=2**20), [], Barrier(8)
    fit(store, **MANY)
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (counted.append(file), start_slowly(), fdatasync(file)))

    def start_slowly():
        while len(counted) == 1 and store.read("p").project.version < 9:
            pass  # the first sync ends after all others have written

    def label_some(first):
        start.wait()
        return [label(store, index).version for index in range(first, first + 5)]

    with ThreadPoolExecutor(8) as threads:
        versions = sorted(version for own in threads.map(label_some, range(0, 40, 5)) for version in own)
    assert versions == list(range(2, 42))
    assert len(counted) < 40
    assert Store(store.root).read("p").project.n_labeled == 40


def test_a_sync_that_fails_is_followed_by_a_whole_state(tmp_path, monkeypatch):
    store = Store(tmp_path / "data", cache_bytes=2**20)
    fit(store, X=POOL)
    with monkeypatch.context() as patches:
        patches.setattr(os, "fdatasync", lambda file: os.close(-1))
        project = label(store, 2)
    assert end_of(store).base == project.version == 2
    assert contents(Store(store.root).read("p").project) == contents(project)


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
        assert votes.majority is votes.majority
        after = votes.changed(gone, given)
        plain = votes.take(np.setdiff1d(np.arange(len(votes)), gone)).merge(given)
        for one, other in zip(after.columns, plain.columns, strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
        for name in ("labeled", "codes", "skipped"):
            assert np.array_equal(getattr(after.majority, name), getattr(plain.majority, name))
        known, found = votes.difference(after), votes.difference(plain)
        assert set(found[0]) <= set(known[0])
        rebuilt = votes.changed(np.searchsorted(votes.key, found[0]), found[1])
        assert all(np.array_equal(*pair) for pair in zip(rebuilt.columns, plain.columns, strict=True))
        votes = after
