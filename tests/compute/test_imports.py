"""Quick imports."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import pytest

from service.compute.imports import quick_imports


@pytest.fixture
def _unfreeze():
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_unfreeze")
def test_the_block_cannot_import_pandas_and_what_follows_can(monkeypatch):
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with quick_imports(), pytest.raises(ImportError):
        import_module("pandas")
    assert "pandas" not in sys.modules


@pytest.mark.usefixtures("_unfreeze")
def test_pandas_that_is_imported_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", sys)
    with quick_imports():
        assert import_module("pandas") is sys


@pytest.mark.usefixtures("_unfreeze")
def test_the_collector_is_off_in_the_block_and_ignores_what_it_imported():
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
