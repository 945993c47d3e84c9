"""The tables of README.md and the guides that are generated from the code.

`python -m tests.support.tables` writes them between `<!-- table: name -->` and `<!-- end -->`; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from service.http import docs
from service.learning.estimators import ESTIMATORS
from service.settings import Settings, variable_name
from service.strategies import STRATEGIES
from service.telemetry.metrics import CATALOGUE

ROOT = Path(__file__).parents[2]
GUIDE = Path(docs.__file__).parent / "guide"
FILES = [ROOT / "README.md", *(GUIDE / f"{name}.md" for name in docs.GUIDES)]
MARKED = re.compile(r"(?<=<!-- table: )(?P<name>\w+)(?P<head> -->\n)(?P<table>.*?)(?P<end><!-- end -->)", re.S)


def settings_table() -> str:
    rows = []
    for item in fields(Settings):
        default = getattr(Settings(), item.name)
        shown = str(int(default)) if isinstance(default, bool) else "none" if default is None else str(default)
        kind = {"int": "integer", "bool": "0 or 1", "Path": "directory", "Path | None": "file"}.get(
            str(item.type), "text"
        )
        rows.append([f"`{variable_name(item)}`", kind, f"`{shown}`", item.metadata["sentence"]])
    return table(["variable", "type", "default", "meaning"], rows)


def strategies_table() -> str:
    rows = [
        [f"`{name}`", strategy.summary, code(strategy.targets), strategy.source]
        for name, strategy in STRATEGIES.items()
    ]
    return table(["strategy", "selects", "targets", "source"], rows)


def estimators_table() -> str:
    rows = [
        [
            f"`{name}`",
            kind.summary,
            code(kind.targets),
            "yes" if kind.sparse else "no",
            code(parameter.name for parameter in kind.parameters),
        ]
        for name, kind in ESTIMATORS.items()
    ]
    return table(["estimator", "description", "targets", "sparse pools", "parameters"], rows)


def metrics_table() -> str:
    rows = [
        [f"`{each.name}`", each.kind, code(each.labels), each.help]
        for each in sorted(CATALOGUE, key=lambda each: each.name)
    ]
    return table(["metric", "type", "labels", "meaning"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "strategies": strategies_table,
    "estimators": estimators_table,
    "metrics": metrics_table,
}


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def with_tables(text: str) -> str:
    """The text of a page with the tables as they should be."""
    return MARKED.sub(lambda found: f"{found['name']}{found['head']}{TABLES[found['name']]()}{found['end']}", text)


if __name__ == "__main__":
    for path in FILES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
