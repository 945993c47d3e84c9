"""JSON over HTTP for the bridges, with the standard library only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60.0
JSON = "application/json"


class ToolError(Exception):
    """A labelling tool refused a request, or does not answer. `status` is that of its reply, None without one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Web:
    """A web server at a URL, which may have a path. Every method raises ToolError."""

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = urlsplit(url.rstrip("/"))
        self.timeout = timeout
        if self.url.scheme not in ("http", "https") or not self.url.netloc:
            raise ToolError(f"{url!r} is not a URL: it must start with http:// or https://", status=400)

    def send(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a JSON document, or no body, and return the parsed reply, None if it has no body."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": JSON, **({} if content is None else {"Content-Type": JSON}), **(headers or {})}
        connect = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        try:
            with closing(connect(self.url.netloc, timeout=self.timeout)) as connection:
                connection.request(method, self.url.path + path, content, headers)
                reply = connection.getresponse()
                text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise ToolError(f"{self.url.geturl()} does not answer: {error!r}") from error
        if reply.status >= 300:
            said = text[:500].decode(errors="replace")
            raise ToolError(f"{method} {path.partition('?')[0]}: {reply.status} {reply.reason}: {said}", reply.status)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise ToolError(f"{method} {path.partition('?')[0]}: the reply is not JSON", reply.status) from None
