"""The pages at /docs: the reference and the guides, rendered from Markdown once.

They have no script, load nothing, and work without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

from service.http.docs.reference import ADDRESS, Reference
from service.http.docs.schema_text import Json

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[2]

GUIDES = (
    "own-models",
    "texts",
    "training",
    "annotators",
    "results",
    "evidence",
    "simulations",
    "retries",
    "large-pools",
    "scaling",
    "access",
    "strategies",
    "estimators",
    "regression",
    "benchmarks",
    "operations",
    "shell",
    "clients",
    "label-studio",
    "doccano",
    "recipe-mails",
    "recipe-images",
    "recipe-own-model",
    "recipe-web-tool",
    "recipe-argilla",
    "recipe-cvat",
    "recipe-prodigy",
)
"""The guide pages in reading order; each is `guide/<name>.md`."""

CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page: its own style and icon, nothing from outside."""

MARKDOWN = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
ENVIRONMENT = Environment(
    loader=FileSystemLoader([HERE, HERE.parent]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a page; `level` is 1 to 6."""

    level: int
    anchor: str
    text: str


@cache
def openapi_text() -> str:
    """Return openapi.yaml: inside the package when installed, beside it in a checkout."""
    installed = PACKAGE / "openapi.yaml"
    path = installed if installed.exists() else PACKAGE.parent / "openapi.yaml"
    return path.read_text(encoding="utf-8")


@cache
def reference_page() -> str:
    """Return the API reference as HTML."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return render_reference(yaml.load(openapi_text(), Loader=loader))  # noqa: S506 - a safe loader, in C where available


def render_reference(document: Json) -> str:
    """Return the reference of an OpenAPI document as HTML."""
    return render(Reference.of(document).markdown(), None)


def served_page(page: str, address: str) -> str:
    """Return a page whose commands and programs use this address of the service, unless it is no plain URL."""
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w.~-]+)*/?", address, re.ASCII):
        return page
    return re.sub(rf"(?<=AQ=){ADDRESS}|(?<=&quot;){ADDRESS}", address.rstrip("/"), page)


@cache
def guide_page(name: str) -> str:
    """Return a page of GUIDES as HTML."""
    return render(guide_text(name), name)


@cache
def guide_text(name: str) -> str:
    """Return a page of GUIDES as Markdown, without comments."""
    text = (HERE / "guide" / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"<!--.*?-->\n", "", text)


def render(text: str, guide: str | None) -> str:
    """Return a page of Markdown as HTML; `guide` is its name in GUIDES, None for the reference."""
    tokens = MARKDOWN.parse(text)
    headings = mark_headings(tokens)
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", served_link(str(child.attrGet("href"))))
    return ENVIRONMENT.get_template("page.html").render(
        body=MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}),
        title=next(heading.text for heading in headings if heading.level == 1),
        contents=[heading for heading in headings if heading.level == 2 or (guide and heading.level == 3)],
        guide=guide,
        guides={name: guide_text(name).splitlines()[0].removeprefix("# ") for name in GUIDES},
    )


def mark_headings(tokens: list[Token]) -> list[Heading]:
    """Give every heading an anchor as GitHub does, or the one it ends with (`{#anchor}`), and return the headings."""
    headings: list[Heading] = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        children = inline.children or []
        last = children[-1]
        anchor = ""
        if found := re.search(r" \{#([\w-]+)\}$", last.content):
            last.content, anchor = last.content[: found.start()], found[1]
        text = "".join(child.content for child in children)
        anchor = anchor or unique_anchor(text, (heading.anchor for heading in headings))
        token.attrSet("id", anchor)
        headings.append(Heading(int(token.tag[1]), anchor, text))
    return headings


def unique_anchor(text: str, taken: Iterable[str]) -> str:
    """Return the anchor that GitHub gives a heading: its words joined by hyphens, with a number when it is taken."""
    others = set(taken)
    first = anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    number = 0
    while anchor in others:
        number += 1
        anchor = f"{first}-{number}"
    return anchor


def served_link(href: str) -> str:
    """Return a link between files of the repository as a link between the pages that are served."""
    path, hash_, anchor = href.partition("#")
    if path.startswith("../") and path.endswith("openapi.yaml"):
        return f"../docs{hash_}{anchor}"
    return f"{path.removesuffix('.md')}{hash_}{anchor}" if re.fullmatch(r"[\w-]+\.md", path) else href
