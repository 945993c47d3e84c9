"""The programs in the guide run, and print what follows them there; labelling tools are small stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import Service
from tests.support.tables import FILES

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
DEFAULT = "http://127.0.0.1:8000"


def program(path: Path, language: str) -> str:
    """The blocks of a language on a page."""
    return "\n".join(text for each, text in BLOCK.findall(path.read_text(encoding="utf-8")) if each == language)


def output(path: Path) -> str:
    """The output that a page shows."""
    return program(path, "text")


def pages(language: str) -> list[Path]:
    return [path for path in FILES if program(path, language)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log").start()
    yield service
    service.stop()


def run(commands: list[list[str]], file: Path, text: str, service: Service) -> str:
    """Run commands on a program that calls a service, and return the output of the last."""
    file.write_text(text.replace(DEFAULT, f"http://127.0.0.1:{service.port}"), encoding="utf-8")
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "stand_ins")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for command in commands:
        done = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert service.call("GET", "/projects").json["projects"] == []
    return done.stdout


@pytest.mark.parametrize("path", pages("python"), ids=lambda path: path.stem)
def test_a_python_program_prints_what_is_shown(path: Path, service: Service, tmp_path: Path) -> None:
    commands = [[sys.executable, "recipe.py"]]
    assert run(commands, tmp_path / "recipe.py", program(path, "python"), service) == output(path)


def typescript_commands() -> list[list[str]]:
    """The commands that run a TypeScript program: tsc and Node, or Node alone from 22.6 on; none without these."""
    node, tsc = shutil.which("node"), shutil.which("tsc")
    if node is None:
        return []
    if tsc is not None:
        return [[tsc, "--strict", "--target", "es2022", "--lib", "es2022,dom", "recipe.ts"], [node, "recipe.js"]]
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = map(int, version.removeprefix("v").split(".")[:2])
    return [[node, "--no-warnings", "--experimental-strip-types", "recipe.ts"]] if (major, minor) >= (22, 6) else []


@pytest.mark.parametrize("path", pages("typescript"), ids=lambda path: path.stem)
def test_a_typescript_program_prints_what_is_shown(path: Path, service: Service, tmp_path: Path) -> None:
    commands = typescript_commands()
    if not commands:
        pytest.skip("neither tsc nor a Node that runs TypeScript (22.6 or later) is installed")
    assert run(commands, tmp_path / "recipe.ts", program(path, "typescript"), service) == output(path)
