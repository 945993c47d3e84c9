"""schemathesis over the whole contract, all checks on, against a real gunicorn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.http.routes import operations
from tests.contract.hooks import PROJECTS
from tests.serving import Service

HERE = Path(__file__).parent / "contract"


@pytest.mark.timeout(200)
def test_schemathesis_finds_nothing(serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve(AQ_MAX_PROJECTS="100000", AQ_LOG_LEVEL="error")
    for name in PROJECTS:
        pool = [[row % 5, row / 3] for row in range(30)]
        service.post("/fit", {"project_id": name, "X": pool, "y": [0, 1] + [None] * 28}, expect=201)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"http://127.0.0.1:{service.port}/openapi.yaml"),
        *("--checks", "all", "--mode", "all", "--max-examples", "40", "--seed", "1", "--no-color"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.hooks", "PYTHONPATH": str(HERE.parent.parent)}
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    # All but GET /openapi.yaml, from which it has them.
    assert f"Tested: {len(operations.all) - 1}" in found.stdout
