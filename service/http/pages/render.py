"""Rendering of the pages from their templates."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.domain.project import LabelsScore, NumberScore, Score

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text(encoding="utf-8")
CSP = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the pages: their own style and images, no script, and forms to the service alone."""

ENVIRONMENT = Environment(
    loader=FileSystemLoader([HERE, HERE.parent]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals["style"] = STYLE


MAX_LABEL = 60
"""Characters of a label that are shown."""


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def main_score(score: Score) -> str:
    """Return the accuracy on a held-out set as a percentage, F1 of several labels, or the error of numbers."""
    if isinstance(score, LabelsScore):
        return f"F1 {score.f1_micro:.3f}"
    return f"RMSE {score.rmse:.4g}" if isinstance(score, NumberScore) else percent(score.accuracy)


def main_value(value: float, of_numbers: bool) -> str:
    """Return an accuracy as a percentage, or the error of numbers."""
    return f"RMSE {value:.4g}" if of_numbers else percent(value)


def grouped(number: int) -> str:
    """Return a number with commas between thousands."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{grouped(number)} {noun}{'' if number == 1 else 's'}"


def shown(label: Any) -> str:
    """Return a label as JSON shows it, strings without quotes, and of a long one the beginning."""
    text = str(label).lower() if isinstance(label, bool) else str(label)
    return text if len(text) <= MAX_LABEL else f"{text[:MAX_LABEL]}…"


def field(pointer: str) -> str:
    """Return the name of the field that a pointer of a problem document points to."""
    return pointer.removeprefix("/query").removeprefix("/headers").removeprefix("/")


ENVIRONMENT.filters |= {
    "field": field,
    "percent": percent,
    "main_score": main_score,
    "main_value": main_value,
    "grouped": grouped,
    "counted": counted,
    "shown": shown,
}


def data_uri(svg: bytes) -> str:
    """Return an image as the address of its own content."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def projects_page(**values: Any) -> str:
    """Return the page with all projects."""
    return ENVIRONMENT.get_template("projects.html").render(root="./", **values)


def project_page(**values: Any) -> str:
    """Return the page of a project."""
    return ENVIRONMENT.get_template("project.html").render(root="../../", **values)


def simulation_page(**values: Any) -> str:
    """Return the page of a simulation."""
    return ENVIRONMENT.get_template("simulation.html").render(root="../../", **values)


def sign_in_page(root: str, problem: str | None) -> str:
    """Return the page with the form for an API key; `root` is the relative address of the service."""
    return ENVIRONMENT.get_template("sign_in.html").render(root=root, problem=problem, signed_in=None)


def error_page(root: str, **values: Any) -> str:
    """Return a page that says what is wrong; `root` is the relative address of the service."""
    return ENVIRONMENT.get_template("error.html").render(root=root, **values)


def simulate_page(**values: Any) -> str:
    """Return the page with the form for a simulation, and what is wrong with its fields."""
    return ENVIRONMENT.get_template("simulate.html").render(root="../../../", **values)
