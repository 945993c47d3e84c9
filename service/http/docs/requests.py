"""Requests as lines for a shell, and JSON for people."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from service.http.body.limits import MATRICES, PREDICTIONS
from service.http.docs.views import Span, Spans
from service.http.media_types import JSON, MULTIPART, NPY

LINE_WIDTH = 60
"""How long lines of JSON get, in characters."""

TOKENS = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*")"""
    r"""|(?P<literal>(?<![\w.])-?\b(?:true|false|null|\d[\d.eE+-]*)\b)"""
)


@dataclass(frozen=True, slots=True)
class Request:
    """What an example sends. `address` is quoted for the shell; `media_type` is empty without a body."""

    method: str
    address: str
    headers: Mapping[str, str]
    media_type: str
    body: Any

    def curl(self, files: Sequence[str] = ()) -> str:
        """Return the request as a line for the shell; parts of a form named in `files` are read from files."""
        method = "" if self.method == "GET" else f" -X {self.method}"
        line = f"curl -sS{method} {self.address}"
        for name, value in self.headers.items():
            line += f" -H {shlex.quote(f'{name}: {value}')}"
        if self.media_type == MULTIPART:
            for name, value in self.body.items():
                line += " -F "
                text = form_text(pretty(value, taken=width(line) + len(name) + 2))
                part = f"@{name}.npy;type={NPY}" if name in files else f"{text};type={JSON}"
                line += shlex.quote(f"{name}={part}")
        elif self.media_type:
            line += f" -H {shlex.quote(f'Content-Type: {self.media_type}')} -d "
            line += shlex.quote(pretty(self.body, taken=width(line) + 1))
        return line

    @property
    def matrices(self) -> list[str]:
        """The parts of a form that may as well come from files."""
        return [name for name in (*MATRICES, *PREDICTIONS) if name in self.body] if self.media_type == MULTIPART else []


def address(path: str, in_path: Mapping[str, str], in_query: Mapping[str, str]) -> str:
    """Return a path with its parameters, after $AQ and in double quotes for the shell."""
    for name, value in in_path.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    query = f"?{urlencode(in_query, safe='', quote_via=quote)}" if in_query else ""
    return f'"$AQ{path}{query}"'


def width(text: str) -> int:
    """Return how long the last line of a text is."""
    return len(text.rpartition("\n")[2])


def form_text(text: str) -> str:
    """Return text as curl takes it in -F, where a semicolon ends it and a quotation mark begins a quotation."""
    if ";" not in text and not text.startswith('"'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def pretty(value: Any, indent: str = "", taken: int = 0) -> str:
    """Return JSON that breaks only those lines that would be long; `taken` is how much of the first line is used."""
    line = json.dumps(value, ensure_ascii=False)
    if taken + len(line) <= LINE_WIDTH or not value or not isinstance(value, dict | list):
        return line
    below = indent + "  "
    if isinstance(value, list):
        start, lines, end = "[", filled([pretty(item, below, len(below)) for item in value], len(below)), "]"
    else:
        members = [(f"{json.dumps(key, ensure_ascii=False)}: ", item) for key, item in value.items()]
        start, lines, end = "{", [key + pretty(item, below, len(below + key) + 1) for key, item in members], "}"
    return f"{start}\n{below}" + f",\n{below}".join(lines) + f"\n{indent}{end}"


def filled(items: Iterable[str], indent: int) -> list[str]:
    """Return the items of a list in lines: an object on a line of its own, others several to a line."""
    lines: list[str] = []
    for item in items:
        longer = f"{lines[-1]}, {item}" if lines else ""
        if longer and indent + len(longer) < LINE_WIDTH and "\n" not in longer and not item.startswith("{"):
            lines[-1] = longer
        else:
            lines.append(item)
    return lines


def shown(media_type: str, value: Any) -> Spans:
    """Return the body of a reply: JSON with tints, anything else as it is."""
    return tinted(pretty(value)) if media_type.endswith("json") else (Span(value.replace("\r\n", "\n")),)


def tinted(text: str) -> Spans:
    """Return code with its keys, strings and literals told apart."""
    found: list[Span] = []
    end = 0
    for token in TOKENS.finditer(text):
        found += Span(text[end : token.start()]), Span(token[0], token.lastgroup or "")
        end = token.end()
    return tuple(span for span in (*found, Span(text[end:])) if span.text)
