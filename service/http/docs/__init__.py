"""The contract for machines and for people: openapi.yaml as it is, and a page rendered from it.

The page is what the contract says and nothing else: the document becomes frozen values that a template writes down.
It needs no script, loads nothing, and works from a service without any network.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.http.docs.contract import Contract
from service.http.docs.words import Json

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[2]

CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy that the page keeps to: a style and an icon of its own, nothing from outside."""


@cache
def openapi_text() -> str:
    """Return openapi.yaml, which lies in an installed package, and beside it in a checkout."""
    installed = PACKAGE / "openapi.yaml"
    path = installed if installed.exists() else PACKAGE.parent / "openapi.yaml"
    return path.read_text(encoding="utf-8")


@cache
def page() -> str:
    """Return the reference as HTML."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return render(yaml.load(openapi_text(), Loader=loader))  # noqa: S506 - a safe loader, written in C where there is one


def render(document: Json) -> str:
    """Return the reference of an OpenAPI document."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("docs.html").render(reference=Contract.of(document).reference())
