"""Clients generated from openapi.yaml use a real service, and linters find no error in it.

`pytest -m clients` installs the generators with pip and npm; other runs leave these tests out.
"""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from tests.support.serving import Service

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "openapi.yaml"

PYTHON_PACKAGES = ("openapi-python-client", "mypy", "numpy")
NODE_PACKAGES = (
    "@hey-api/openapi-ts",
    "@redocly/cli",
    "@stoplight/spectral-cli",
    "@types/node",
    "openapi-fetch",
    "openapi-typescript",
    "typescript@5",  # the newest that openapi-typescript can use
)
GENERATED = "active_query_client"


def run(*command: str | Path, folder: Path) -> str:
    """Run a command, and return its output; fail with it if the command fails."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with the generator of a Python client."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=True)
    run(folder / "bin/pip", "install", "-q", *PYTHON_PACKAGES, folder=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the generators of TypeScript clients and the programs that use these."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text("{}")
    run("npm", "install", "--no-audit", "--no-fund", *NODE_PACKAGES, folder=folder)
    for path in [*HERE.glob("*.ts"), *HERE.glob("*.mjs"), HERE / "tsconfig.json"]:
        shutil.copy(path, folder)
    return folder


def start(serve: Callable[..., Service], folder: Path) -> tuple[str, str]:
    """Start a service with its data in a folder, and return its URL and a key."""
    token, keys = new_token(), folder / "keys.json"
    change_keys(keys, lambda known: known.with_key(new_key(token, "client", "admin", ["*"], None)))
    service = serve(AQ_API_KEYS_FILE=str(keys), AQ_DATA_DIR=str(folder / "data"))
    return f"http://127.0.0.1:{service.port}", token


def test_a_python_client_has_the_right_types_and_works(
    python: Path, serve: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")  # ruff would change types
    generate = ("generate", "--path", CONTRACT, "--config", "config.yaml", "--meta", "none", "--output-path", GENERATED)
    run(python / "openapi-python-client", *generate, folder=tmp_path)
    shutil.copy(HERE / "python_client.py", tmp_path)
    run(python / "mypy", "--strict", GENERATED, "python_client.py", folder=tmp_path)
    used = run(python / "python", "python_client.py", *start(serve, tmp_path), folder=tmp_path)
    assert used.endswith("done\n")


def test_typescript_clients_have_the_right_types_and_work(
    node: Path, serve: Callable[..., Service], tmp_path: Path
) -> None:
    programs = node / "node_modules/.bin"
    run(programs / "openapi-ts", "-i", CONTRACT, "-o", "hey_api_client", folder=node)
    run("node", "openapi_typescript.mjs", CONTRACT, "openapi_fetch_schema.ts", folder=node)
    run(programs / "tsc", folder=node)
    for name in ("hey_api", "openapi_fetch"):
        folder = tmp_path / name
        folder.mkdir()
        used = run("node", f"js/{name}.js", *start(serve, folder), folder=node)
        assert used.endswith("done\n")


def test_linters_find_no_error_in_the_contract(node: Path) -> None:
    programs = node / "node_modules/.bin"
    (node / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    run(programs / "spectral", "lint", "--ruleset", "rules.yaml", CONTRACT, folder=node)
    run(programs / "redocly", "lint", "--extends=recommended", CONTRACT, folder=node)
