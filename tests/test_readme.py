"""Whatever the README shows is run, and its tables are what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from service.learning.estimators import ESTIMATORS
from service.settings import Settings, variable_name
from service.strategies import STRATEGIES
from service.telemetry.metrics import CATALOGUE
from tests.support import curl
from tests.support.placeholders import approx_nested, with_placeholders
from tests.support.serving import Service

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

# A fenced block, and the comment before it that says what it is for, where there is one.
BLOCK = re.compile(r"(?:<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def blocks(heading: str) -> list[re.Match[str]]:
    """The fenced blocks of a section."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return list(BLOCK.finditer(section))


def commands(script: str) -> list[str]:
    """The commands of a shell script: lines, joined where a quote or a backslash leaves them open."""
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        is_open = pending.count("'") % 2 or line.endswith("\\")
        if "<<'PYTHON'" in pending and line != "PYTHON":
            is_open = True
        if not is_open:
            found.append(pending.strip())
            pending = ""
    return [command for command in found if command]


def test_the_two_commands_stand_at_the_top() -> None:
    top, _, _ = README.partition("\n## ")
    assert [block["mark"] for block in BLOCK.finditer(top) if block["mark"]] == ["demo", "tests"]


@pytest.mark.parametrize(
    "heading", ["Five-minute tour", "When models are trained", "Leases", "Retries and conditions", "Large pools"]
)
def test_what_is_shown_happens(heading: str, serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve()
    reply = None
    n_run = 0
    shown = blocks(heading)
    for block, following in zip(shown, [*shown[1:], None], strict=True):
        is_wrong = following is not None and following["language"] == "json" and '"status": 422' in following["text"]
        if block["language"] == "json":
            assert reply is not None
            assert with_placeholders(reply.json) == approx_nested(with_placeholders(json.loads(block["text"]))), (
                reply.body
            )
        elif not (block["mark"] or "").startswith("not run"):
            for command in commands(block["text"]):
                if command.startswith(".venv/bin/python - <<'PYTHON'"):
                    program = command.split("\n", 1)[1].removesuffix("PYTHON")
                    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
                elif command != "AQ=http://127.0.0.1:8000":
                    reply = curl.run(command, service, tmp_path)
                    assert reply.status == 422 if is_wrong else reply.status < 300, (command, reply.body)
                n_run += 1
    assert n_run >= 4


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def settings_table() -> str:
    """What can be set."""
    rows = []
    for item in fields(Settings):
        default = getattr(Settings(), item.name)
        shown = str(int(default)) if isinstance(default, bool) else "none" if default is None else str(default)
        kind = {"int": "integer", "bool": "0 or 1", "Path": "directory", "Path | None": "file"}.get(
            str(item.type), "text"
        )
        rows.append([f"`{variable_name(item)}`", kind, f"`{shown}`", item.metadata["sentence"]])
    return table(["variable", "type", "default", "what it does"], rows)


def strategies_table() -> str:
    """What can be asked with."""
    rows = [[f"`{name}`", strategy.summary, strategy.source] for name, strategy in STRATEGIES.items()]
    return table(["strategy", "asks for", "source"], rows)


def estimators_table() -> str:
    """What can be trained."""
    rows = [
        [
            f"`{name}`",
            kind.summary,
            "yes" if kind.sparse else "no",
            ", ".join(f"`{parameter.name}`" for parameter in kind.parameters),
        ]
        for name, kind in ESTIMATORS.items()
    ]
    return table(["estimator", "what it is", "sparse pools", "parameters"], rows)


def metrics_table() -> str:
    """What is counted and timed."""
    rows = [
        [f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.sentence]
        for each in sorted(CATALOGUE, key=lambda each: each.name)
    ]
    return table(["metric", "type", "labels", "meaning"], rows)


@pytest.mark.parametrize("made", [settings_table, strategies_table, estimators_table, metrics_table])
def test_the_tables_are_what_the_code_says(made: Callable[[], str]) -> None:
    assert made() in README, f"the README must have this table:\n{made()}"
