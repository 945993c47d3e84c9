"""Examples of the contract as curl commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from service.http.media_types import JSON, MULTIPART

LINE_WIDTH = 88
"""JSON objects and nested lists that are longer than this are broken into lines."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of an example. `address` is quoted for the shell; `media_type` is empty without a body."""

    method: str
    address: str
    headers: Mapping[str, str]
    media_type: str
    body: Any

    def curl(self) -> str:
        """Return the request as a shell command."""
        method = "" if self.method == "GET" else f" -X {self.method}"
        command = f"curl -sS{method} {self.address}"
        for name, value in self.headers.items():
            command += f" -H {shlex.quote(f'{name}: {value}')}"
        if self.media_type == MULTIPART:
            for name, value in self.body.items():
                part = value if isinstance(value, str) else pretty(value)  # a file is text
                command += f" -F {shlex.quote(f'{name}={form_text(part)};type={JSON}')}"
        elif self.media_type:
            command += f" -H {shlex.quote(f'Content-Type: {self.media_type}')} -d {shlex.quote(pretty(self.body))}"
        return command


def address(path: str, in_path: Mapping[str, str], in_query: Mapping[str, str]) -> str:
    """Return a path with its parameters filled in, after $AQ and in double quotes."""
    for name, value in in_path.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    query = f"?{urlencode(in_query, safe='', quote_via=quote)}" if in_query else ""
    return f'"$AQ{path}{query}"'


def form_text(text: str) -> str:
    """Return text as the value of curl's -F, where a semicolon ends it and a quotation mark begins a quotation."""
    if ";" not in text and not text.startswith('"'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def pretty(value: Any, indent: str = "") -> str:
    """Return JSON with one item a line where an object or a list of lists does not fit into a line."""
    line = json.dumps(value, ensure_ascii=False)
    is_matrix = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    can_break = is_matrix or (isinstance(value, dict) and value)
    if not can_break or len(indent + line) <= LINE_WIDTH:
        return line
    below = indent + "  "
    if isinstance(value, list):
        lines = [pretty(item, below) for item in value]
    else:
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, below)}" for key, item in value.items()]
    start, end = "[]" if isinstance(value, list) else "{}"
    return f"{start}\n{below}" + f",\n{below}".join(lines) + f"\n{indent}{end}"
