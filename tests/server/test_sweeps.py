"""The first workers leave the sweep of the data directory to their master; a worker after one that exited does not."""

from __future__ import annotations

import os

import pytest

from service.app import create_app
from service.server import checks, hooks, sweeps
from service.settings import Settings


@pytest.fixture
def removes_rubbish(tmp_path):
    settings = Settings(data_dir=tmp_path / "data", log_level="error")
    create_app(settings)
    rubbish = settings.data_dir / "staging" / "left"

    def start() -> bool:
        """Start a worker, and return whether it removed a directory that a dead process left."""
        rubbish.mkdir(exist_ok=True)
        create_app(settings)
        return not rubbish.exists()

    return start


def test_a_worker_of_a_master_that_has_swept_does_not_sweep_again(removes_rubbish, monkeypatch):
    monkeypatch.setattr(sweeps, "SWEPT_BY", [os.getppid()])
    assert not removes_rubbish()


def test_the_next_worker_removes_what_one_left_that_has_exited(removes_rubbish, monkeypatch):
    monkeypatch.setattr(sweeps, "SWEPT_BY", swept := [os.getppid()])
    monkeypatch.setattr(hooks, "SWEPT_BY", swept)
    monkeypatch.setattr(hooks, "shared_directory", lambda: None)
    monkeypatch.setattr(hooks, "end_worker", lambda *_: None)
    hooks.child_exit(None, type("Worker", (), {"number": 0, "pid": 1}))
    assert removes_rubbish()


def test_a_process_that_swept_itself_sweeps_again(removes_rubbish, monkeypatch, tmp_path):
    monkeypatch.setattr(sweeps, "SWEPT_BY", swept := [])
    monkeypatch.setattr(checks, "SWEPT_BY", swept)
    monkeypatch.setattr(os, "environ", {"AQ_DATA_DIR": str(tmp_path / "data")})
    assert checks.find_problem() is None
    assert swept == [os.getpid()]
    assert removes_rubbish()
