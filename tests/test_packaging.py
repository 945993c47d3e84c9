"""What is shipped: the lock, the image and its context, and nothing of the machine they were made on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from service import __version__
from tests.test_layers import MODULES, imports

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

# One requirement of the lock: a name, a version, maybe a marker, and hashes.
LOCKED = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.]*)(?: ; (?P<marker>[^\\\n]+?))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n",
    re.M,
)

# In pieces, so that this file does not hold what it looks for.
FOREIGN = re.compile(
    "|".join(
        [
            r"pypi\.org" + "/simple",
            r"files\.python" + "hosted",
            "registry" + r"\.npmjs",
            "--(?:extra-)?" + r"index-url[ =]",
            "--find" + r"-links[ =]",
            "--trusted" + r"-host[ =]",
            "PIP_(?:EXTRA_)?" + "INDEX_URL",
            "PIP_FIND" + "_LINKS",
            "file:" + "///",
            r"/(?:home|Users)" + r"/\w",
            "/root" + "/",
            *(re.escape(str(path)) + r"\b" for path in (ROOT, Path.home()) if len(path.parts) > 2),
        ]
    )
)


def locked() -> dict[str, Version]:
    """The versions that the lock names."""
    return {found["name"]: Version(found["version"]) for found in LOCKED.finditer(LOCK)}


def test_the_lock_holds_names_versions_hashes_and_nothing_else() -> None:
    assert LOCKED.sub("", LOCK) == ""
    names = [found["name"] for found in LOCKED.finditer(LOCK)]
    assert names == sorted(set(names))


# The image reads tables, and has fast forests.
EXTRAS = PROJECT["optional-dependencies"]
IN_IMAGE = [*CORE, *(Requirement(text) for extra in ("arrow", "compiled", "plots") for text in EXTRAS[extra])]


@pytest.mark.parametrize("requirement", IN_IMAGE, ids=str)
def test_the_lock_has_each_dependency_in_a_version_that_will_do(requirement: Requirement) -> None:
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def test_what_the_service_imports_is_declared() -> None:
    texts = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    imported = {name.split(".")[0] for path in MODULES.values() for name in imports(path)}
    # Python 3.14 has `compression`, and only mypy looks for `_typeshed`.
    foreign = imported - sys.stdlib_module_names - {"service", "compression", "_typeshed"}
    makers = packages_distributions()
    assert [
        name for name in sorted(foreign) if not declared & set(map(canonicalize_name, makers.get(name, [name])))
    ] == []


def test_the_lock_has_nothing_of_the_other_extras() -> None:
    extras = {
        canonicalize_name(Requirement(text).name)
        for texts in PROJECT["optional-dependencies"].values()
        for text in texts
    } - {canonicalize_name(requirement.name) for requirement in IN_IMAGE}
    assert not extras & set(locked())


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of a name in the Dockerfile."""
    lines = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [" ".join(line.split()[1:]) for line in lines.splitlines() if line.startswith(f"{name} ")]


def test_the_image_is_made_from_one_exact_python() -> None:
    (argument,) = instructions("ARG")
    assert re.fullmatch(r"PYTHON=3\.\d+\.\d+-slim-\w+", argument)
    assert [base.split()[0] for base in instructions("FROM")] == ["python:${PYTHON}"] * 2
    assert (
        Version(argument.removeprefix("PYTHON=").split("-")[0])
        in Requirement(f"x{PROJECT['requires-python']}").specifier
    )


def test_the_image_runs_the_service_as_a_numbered_user_who_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])
    assert [*json.loads(instructions("ENTRYPOINT")[-1]), *json.loads(instructions("CMD")[-1])] == [
        "active-query",
        "serve",
    ]


def test_the_image_says_which_version_it_holds() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in DOCKERFILE


def test_the_image_is_given_what_it_copies() -> None:
    copied = {source for line in instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]}
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == given
    assert all((ROOT / name).exists() for name in given)


def test_the_check_for_new_machines_can_be_started() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)  # noqa: S607 - wherever bash lies


def test_no_file_names_a_registry_or_the_machine_it_was_made_on() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("only a clone tells its own files from others")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    assert len(files) > 20
    found = {
        str(file.relative_to(ROOT)): match.group()
        for file in files
        if (match := FOREIGN.search(file.read_bytes().decode("utf-8", "replace")))
    }
    assert found == {}
