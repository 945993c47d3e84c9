"""Run the curl commands of the documentation without curl, over http.client."""

from __future__ import annotations

import argparse
import shlex
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.support.serving import Reply, Service

# The documentation sets `AQ=http://127.0.0.1:8000` once.
ADDRESS = "$AQ"


def parser() -> argparse.ArgumentParser:
    """Return a parser of the curl options that the documentation uses."""
    options = argparse.ArgumentParser(prog="curl", allow_abbrev=False, exit_on_error=False)
    options.add_argument("-s", "-S", "-sS", action="store_true")
    options.add_argument("-X", dest="method")
    options.add_argument("-H", dest="headers", action="append", default=[])
    options.add_argument("-d", dest="data")
    options.add_argument("--data-binary", dest="file")
    options.add_argument("-o", dest="output")
    options.add_argument("-F", dest="form", action="append", default=[])
    options.add_argument("--url-query", dest="query")
    options.add_argument("url")
    return options


def run(line: str, service: Service, folder: Path) -> Reply:
    """Send the request of a curl command to a service; `@file` is read from a folder."""
    words = shlex.split(line.replace("\\\n", " "))
    assert words[0] == "curl", line
    options = parser().parse_args(words[1:])
    assert options.url.startswith(ADDRESS), options.url
    headers = dict(header.split(": ", 1) for header in options.headers)
    body = options.data.encode() if options.data is not None else None
    if options.file is not None:
        body = (folder / options.file.removeprefix("@")).read_bytes()
    if options.form:
        boundary = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        body = form(options.form, boundary, folder)
    address = urlsplit(options.url.removeprefix(ADDRESS))
    if options.query is not None:
        name, value = options.query.split("=", 1)
        address = address._replace(query=f"{name}={quote(value)}")
    method = options.method or ("GET" if body is None else "POST")
    reply = service.call(method, address.geturl(), body, headers)
    if options.output is not None:
        (folder / options.output).write_bytes(reply.body)
    return reply


def form(fields: list[str], boundary: str, folder: Path) -> bytes:
    """Encode form fields as curl does: `name=value;type=...` or `name=@file;type=...`."""
    parts = []
    for field in fields:
        name, value = field.split("=", 1)
        value, _, media_type = value.rpartition(";type=")
        disposition = f'form-data; name="{name}"'
        data = value.encode()
        if value.startswith("@"):
            disposition += f'; filename="{value[1:]}"'
            data = (folder / value[1:]).read_bytes()
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {media_type}\r\n\r\n"
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode()
