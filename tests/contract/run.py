"""Run schemathesis over the whole contract, with all checks and phases, against a service that requires a key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from tests.contract.hooks import PROJECTS
from tests.support.serving import Service

HERE = Path(__file__).parent


def run_schemathesis(
    serve: Callable[..., Service], directory: Path, max_examples: int, seed: int
) -> subprocess.CompletedProcess[str]:
    """Start a service and send it random valid and invalid requests derived from its openapi.yaml."""
    token, keys_file = new_token(), directory / "keys.json"
    change_keys(keys_file, lambda keys: keys.with_key(new_key(token, "schemathesis", "admin", ["*"], None)))
    bearer = f"Bearer {token}"
    service = serve(AQ_MAX_PROJECTS="100000", AQ_LOG_LEVEL="error", AQ_API_KEYS_FILE=str(keys_file))
    for name in PROJECTS:
        pool = [[row % 5, row / 3] for row in range(30)]
        body = {"project_id": name, "estimator": "logistic_regression", "X": pool, "y": [0, 1] + [None] * 28}
        assert service.call("POST", "/fit", body, {"Authorization": bearer}).status == 201
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"http://127.0.0.1:{service.port}/openapi.yaml"),
        *("--header", f"Authorization: {bearer}"),
        # A project may be called "import", so OPTIONS /projects/import also lists the methods of a project.
        *("--exclude-checks", "allow_header_conformance"),
        *("--checks", "all", "--mode", "all", "--max-examples", str(max_examples), "--seed", str(seed), "--no-color"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.hooks", "PYTHONPATH": str(HERE.parent.parent)}
    return subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
