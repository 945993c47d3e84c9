"""schemathesis over the whole contract, all checks on, against a real gunicorn that asks for a key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.access import new_key, new_token
from service.http.routes import operations
from service.keyfile import change_keys
from tests.contract.hooks import PROJECTS
from tests.serving import Service

HERE = Path(__file__).parent / "contract"


@pytest.mark.timeout(200)
def test_schemathesis_finds_nothing(serve: Callable[..., Service], tmp_path: Path) -> None:
    token, keys_file = new_token(), tmp_path / "keys.json"
    change_keys(keys_file, lambda keys: keys.added(new_key(token, "schemathesis", "admin", ["*"], None)))
    bearer = f"Bearer {token}"
    service = serve(AQ_MAX_PROJECTS="100000", AQ_LOG_LEVEL="error", AQ_API_KEYS_FILE=str(keys_file))
    for name in PROJECTS:
        pool = [[row % 5, row / 3] for row in range(30)]
        body = {"project_id": name, "X": pool, "y": [0, 1] + [None] * 28}
        assert service.call("POST", "/fit", body, {"Authorization": bearer}).status == 201
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"http://127.0.0.1:{service.port}/openapi.yaml"),
        *("--header", f"Authorization: {bearer}"),
        # A project may be called "import": OPTIONS /projects/import tells what is allowed of that one, too.
        *("--exclude-checks", "allow_header_conformance"),
        *("--checks", "all", "--mode", "all", "--max-examples", "40", "--seed", "1", "--no-color"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.hooks", "PYTHONPATH": str(HERE.parent.parent)}
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    # All but GET /openapi.yaml, from which it has them.
    assert f"Tested: {len(operations.all) - 1}" in found.stdout
