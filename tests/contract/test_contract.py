"""Schemathesis over the whole contract, with all checks, against a real gunicorn that requires a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.http.routes import OPERATIONS
from tests.contract.run import run_schemathesis
from tests.support.serving import Service


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_schemathesis_finds_no_failure(serve: Callable[..., Service], tmp_path: Path) -> None:
    found = run_schemathesis(serve, tmp_path, 12, 1)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    # All but GET /openapi.yaml, from which it has them.
    assert f"Tested: {len(OPERATIONS.all) - 1}" in found.stdout
