"""A project that is created or deleted while others use it: they find a complete project or none, never an error."""

from __future__ import annotations

import io
import itertools
import os
from contextlib import suppress

import numpy as np
import pytest

from service.errors import Conflict, ProjectNotFound, StoreBusy
from service.store import Part, Store, locks
from service.store.check import check_project, project_directories
from tests.store.test_store import POOL, fit, label

OPERATIONS = ("listdir", "mkdir", "open", "rename", "rmdir", "scandir", "stat", "unlink", "utime")


def before_each_operation(monkeypatch, act):
    """Call `act` before each file operation from now on, though not before its own."""
    is_acting = False

    def preceded(operation):
        def do(*arguments, **options):
            nonlocal is_acting
            if not is_acting:
                is_acting = True
                try:
                    act()
                finally:
                    is_acting = False
            return operation(*arguments, **options)

        return do

    for name in OPERATIONS:
        monkeypatch.setattr(os, name, preceded(getattr(os, name)))
    monkeypatch.setattr(io, "open", preceded(io.open))


def create(store, **options):
    fit(store, held_out=False, y=None, **options)


def delete(store):
    store.delete("p")


def create_or_delete(store):
    """Create the project, or delete it if it exists, unless a writer holds its lock."""
    with suppress(StoreBusy):
        try:
            delete(store)
        except ProjectNotFound:
            create(store)


def read_all(store):
    assert np.array_equal(store.read("p", *Part).pool.segments[0], POOL)


def check(store):
    for directory in project_directories(store.root):
        assert check_project(directory) == []


def fit_in_turn(store):
    with store.fit_turn("p", 0), store.fitting("p"):
        store.fitting_since("p")


def take_lease_turn(store):
    with store.lease_turn("p", seconds=0.01):
        store.leases("p")


def scan(store):
    for name, _ in store.stamps():
        store.peek(name)
        store.leases(name)


READERS = {
    "read": read_all,
    "events": lambda store: store.events("p", 0, 10),
    "leases": lambda store: store.leases("p"),
    "list": lambda store: store.project_ids(),
    "scan": scan,
    "check": check,
    "event of a request": lambda store: store.event_of_request("p", "key"),
}

WRITERS = {
    "create": create,
    "replace": lambda store: create(store, replace=True),
    "delete": delete,
    "label": lambda store: label(store, 1),
    "lease": take_lease_turn,
    "fit": fit_in_turn,
    "sweep": lambda store: store.sweep(),
}


@pytest.mark.parametrize("period", [1, 2, 3])
@pytest.mark.parametrize("name", READERS | WRITERS)
def test_creating_and_deleting_between_file_operations_is_no_error(tmp_path, monkeypatch, name, period):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.0)
    store, other = Store(tmp_path / "data"), Store(tmp_path / "data")
    for phase in range(2 * period):
        due = itertools.cycle([n == phase % period for n in range(period)])
        if phase >= period:
            create_or_delete(other)
        with monkeypatch.context() as patches:
            before_each_operation(patches, lambda due=due: next(due) and create_or_delete(other))
            with suppress(ProjectNotFound, Conflict, StoreBusy):
                (READERS | WRITERS)[name](store)


@pytest.mark.parametrize("change", [create, delete], ids=lambda change: change.__name__)
def test_readers_find_a_whole_project_or_none_before_each_operation_of_a_change(store, monkeypatch, change):
    if change is delete:
        create(store)
    reader, found = Store(store.root), []

    def look():
        for read in READERS.values():
            with suppress(ProjectNotFound):
                read(reader)
        found.append(reader.project_ids())

    with monkeypatch.context() as patches:
        before_each_operation(patches, look)
        change(store)
    assert [names for names, _ in itertools.groupby(found)] == ([[], ["p"]] if change is create else [["p"], []])
