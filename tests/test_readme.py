"""Everything that README.md and the guides show is run, and their tables are those of the code."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml

from service.cli.main import main
from service.cli.serve import gunicorn_command
from service.http import docs
from service.http.routes import OPERATIONS
from service.settings import Settings
from tests.support import curl
from tests.support.blocks import BLOCK, commands, program_of
from tests.support.placeholders import approx_nested, with_placeholders
from tests.support.serving import Service
from tests.support.tables import FILES, GUIDE, MARKED, TABLES, with_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS_GUIDE = (GUIDE / "operations.md").read_text(encoding="utf-8")
LABEL_STUDIO_GUIDE = (GUIDE / "label-studio.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

RUN_ELSEWHERE = {"demo": "tests/demo/test_demo.py", "tests": ".ci/run", "keys": "tests/auth/test_keyfile.py"}
"""The marks of blocks that are run, and where."""

PROGRAMS = {"python": "tests/test_recipes.py", "typescript": "tests/test_recipes.py"}
"""The languages of programs, and where these are run."""


def run(block: str, service: Service, folder: Path, expected: str) -> Any:
    """Run the commands of a block and return the last reply; `expected` is the JSON that follows it."""
    reply = None
    for command in commands(block):
        if program := program_of(command):
            subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
        elif command != "AQ=http://127.0.0.1:8000":
            reply = curl.run(command, service, folder)
            assert reply.status == 422 if '"status": 422' in expected else reply.status < 300, (command, reply.body)
    return reply


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log").start()
    yield service
    service.stop()


def test_the_two_commands_stand_at_the_top() -> None:
    top, _, _ = README.partition("\n## ")
    assert [block["mark"] for block in BLOCK.finditer(top) if block["mark"]] == ["demo", "tests"]


def test_the_readme_has_at_most_250_lines() -> None:
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_shown_happens(path: Path, service: Service, tmp_path: Path) -> None:
    reply = None
    shown = list(BLOCK.finditer(path.read_text(encoding="utf-8")))
    for block, following in zip_longest(shown, shown[1:]):
        mark_of_block = block["mark"] or ""
        if block["language"] == "json":
            assert reply is not None
            assert with_placeholders(reply.json) == approx_nested(with_placeholders(json.loads(block["text"]))), (
                reply.body
            )
        elif block["language"] == "bash" and not mark_of_block.startswith(("not run: ", *RUN_ELSEWHERE)):
            expected = following["text"] if following and following["language"] == "json" else ""
            reply = run(block["text"], service, tmp_path, expected)
    assert service.call("GET", "/projects").json["projects"] == [], "the examples must delete what they create"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_block_is_run_or_says_why_not(path: Path) -> None:
    for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
        assert block["language"] in {"bash", "json", "text", "yaml", "ini", "html", *PROGRAMS}
        if block["language"] == "bash" and block["mark"] is not None and block["mark"] not in RUN_ELSEWHERE:
            assert re.fullmatch(r"not run: .{10,}", block["mark"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python -m tests.support.tables"


def test_every_table_is_shown_once() -> None:
    names = [found["name"] for path in FILES for found in MARKED.finditer(path.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(TABLES)


# The deployment texts of the guide to operations.


def deployment(heading: str, language: str, guide: str = OPERATIONS_GUIDE) -> str:
    """The block of a language in a section."""
    section = guide.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (text,) = (block["text"] for block in BLOCK.finditer(section) if block["language"] == language)
    return text


def image_value(instruction: str) -> str:
    """The argument of the last instruction of a name in the Dockerfile, or of a variable that it sets."""
    return re.findall(rf"^(?:{instruction} |    {instruction}=)([^\s\\]+)", DOCKERFILE, re.M)[-1]


def check_settings(environment: dict[str, str], **image: str) -> Settings:
    """Read the settings of a deployment as the service does, and check that it would start with them."""
    settings = Settings.from_env(image | environment)
    settings.require_access_control()
    return settings


GUNICORN = gunicorn_command(Settings(), Path())
GRACEFUL_SECONDS = int(GUNICORN[GUNICORN.index("--graceful-timeout") + 1])
IMAGE = {name: image_value(name) for name in ("AQ_HOST", "AQ_PORT", "AQ_DATA_DIR")}
PORT = int(IMAGE["AQ_PORT"])


def test_the_systemd_unit_starts_the_service() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(deployment("systemd", "ini"))
    section = unit["Service"]
    settings = check_settings(dict(item.split("=", 1) for item in shlex.split(section["Environment"])))
    assert settings.port == Settings().port
    assert settings.data_dir == Path("/var/lib") / section["StateDirectory"]
    program, command = section["ExecStart"].split()
    assert Path(program).name == "active-query"
    assert command in main.list_commands(click.Context(main))
    assert int(section["TimeoutStopSec"]) > GRACEFUL_SECONDS


def test_the_compose_file_starts_the_image() -> None:
    document = yaml.safe_load(deployment("Docker Compose", "yaml"))
    service = document["services"]["active-query"]
    check_settings(service["environment"], **IMAGE)
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert service["volumes"] == [f"active-query:{IMAGE['AQ_DATA_DIR']}"]
    assert [*document["volumes"]] == ["active-query"]
    assert service["read_only"]
    assert int(service["stop_grace_period"].removesuffix("s")) > GRACEFUL_SECONDS


def check_bridge(arguments: list[str], environment: Iterable[str], hosts: dict[str, int]) -> None:
    """Check that the bridge takes these arguments, and that its addresses are of these hosts and ports."""
    name, *options = arguments
    command = main.get_command(click.Context(main), name)
    assert command is not None
    variables = {"LABEL_STUDIO_API_KEY": "token", "ACTIVE_QUERY_KEY": "aq_key"}
    assert {*environment} == {*variables}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        found = command.make_context(name, options).params
    assert (found["token"], found["key"], found["batch_size"], found["project"]) == ("token", "aq_key", 10, 1)
    addresses = [urlsplit(found[which]) for which in ("url", "aq")]
    assert {(address.hostname, address.port) for address in addresses} == {*hosts.items()}


def test_the_compose_file_with_label_studio_starts_the_image_and_the_bridge() -> None:
    document = yaml.safe_load(deployment("Docker Compose", "yaml", LABEL_STUDIO_GUIDE))
    services = document["services"]
    alone = yaml.safe_load(deployment("Docker Compose", "yaml"))["services"]["active-query"]
    del alone["ports"]  # only the bridge needs it
    assert services["active-query"] == alone
    assert {*document["volumes"]} == {"active-query", "label-studio"}
    (published,) = services["label-studio"]["ports"]
    bridge = services["bridge"]
    assert bridge["image"] == alone["image"] and bridge["healthcheck"] == {"disable": True}
    hosts = {"active-query": PORT, "label-studio": int(published.rpartition(":")[2])}
    assert {*bridge["depends_on"]} == {*hosts} == {*services} - {"bridge"}
    check_bridge(bridge["command"], bridge["environment"], hosts)


def test_the_kubernetes_object_of_the_bridge_reaches_the_service() -> None:
    deployed = yaml.safe_load(deployment("Kubernetes", "yaml", LABEL_STUDIO_GUIDE))
    *_, exposed = yaml.safe_load_all(deployment("Kubernetes", "yaml"))
    pod = deployed["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (secret,) = container["envFrom"]
    command = deployment("Kubernetes", "bash", LABEL_STUDIO_GUIDE)
    assert f"secret generic {secret['secretRef']['name']} " in command
    hosts = {exposed["metadata"]["name"]: exposed["spec"]["ports"][0]["port"], "label-studio": 8080}
    check_bridge(container["args"], re.findall(r"--from-literal=(\w+)=", command), hosts)
    assert deployed["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert pod["spec"]["securityContext"]["runAsUser"] == int(image_value("USER").split(":")[0])
    assert pod["spec"]["enableServiceLinks"] is False


def test_the_kubernetes_objects_start_the_image() -> None:
    claim, deployed, exposed = yaml.safe_load_all(deployment("Kubernetes", "yaml"))
    assert (claim["kind"], deployed["kind"], exposed["kind"]) == ("PersistentVolumeClaim", "Deployment", "Service")
    pod = deployed["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    check_settings({item["name"]: item["value"] for item in container["env"]}, **IMAGE)
    paths = {operation.path for operation in OPERATIONS.all if operation.role is None}
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] == PORT
    assert container["ports"] == [{"containerPort": PORT}]
    assert exposed["spec"]["ports"] == [{"port": PORT, "targetPort": PORT}]
    assert exposed["spec"]["selector"] == deployed["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert mounts["data"] == IMAGE["AQ_DATA_DIR"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    user, group = map(int, image_value("USER").split(":"))
    security = pod["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (user, group, group)
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["terminationGracePeriodSeconds"] > GRACEFUL_SECONDS
    assert deployed["spec"]["replicas"] == 1


def test_the_readme_the_guide_and_the_dockerfile_run_the_image_alike() -> None:
    (readme,) = (block["text"] for block in BLOCK.finditer(README) if "docker build" in block["text"])
    (guide,) = (block["text"] for block in BLOCK.finditer(OPERATIONS_GUIDE) if "docker build" in block["text"])
    head = "".join(line.removeprefix("# ") for line in DOCKERFILE.splitlines(keepends=True)[:3])
    assert readme == guide == head


def test_the_guides_are_listed_in_the_readme_in_their_order() -> None:
    section = README.split("\n## Guides\n", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"\(service/http/docs/guide/([\w-]+)\.md\)", section) == [*docs.GUIDES]
