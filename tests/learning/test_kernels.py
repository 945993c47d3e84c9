"""Compiled functions: no request waits for them, and all works without."""

from __future__ import annotations

from numba import types
from numba.core import caching

from service.learning import jit, kernels
from service.learning.kernels import Kernel


def test_nothing_waits_for_the_compiler_or_starts_it_without_need(monkeypatch):
    kernel = Kernel("json", "dumps")
    assert kernel.get(is_worth_it=False) is None
    assert kernel._compiling is None
    monkeypatch.setattr(kernel, "_compile", lambda: None)
    assert kernel.get(is_worth_it=True) is None
    assert kernel._compiling is not None


def test_a_function_is_there_once_it_is_compiled():
    kernel = Kernel("json", "dumps")
    kernel.start().join()
    assert kernel.get(is_worth_it=False)([1]) == "[1]"


def test_without_numba_there_is_none(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    kernel = Kernel("json", "dumps")
    kernel.start().join()
    assert kernel.get(is_worth_it=True) is None


def test_a_function_that_cannot_be_compiled_is_logged(caplog):
    kernel = Kernel("json", "no_such_function")
    kernel.start().join()
    assert kernel.get(is_worth_it=True) is None
    assert "cannot compile no_such_function" in caplog.text


def test_functions_are_compiled_where_nothing_can_be_written(monkeypatch):
    """As on a read-only root file system: numba then has no place for what it has compiled."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert jit.compiled(types.int64(types.int64))(lambda x: 2 * x)(21) == 42
