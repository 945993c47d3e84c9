"""Request bodies other than plain JSON, and their headers."""

from __future__ import annotations

import json
from typing import Any

BOUNDARY = "----torture"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
ZIP = {"Content-Type": "application/zip"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def form(config: dict[str, Any], **files: bytes) -> bytes:
    """Encode a multipart form: the part `config`, and arrays as .npy files."""
    parts = [("config", "application/json", json.dumps(config).encode())]
    parts += [(name, "application/x-npy", data) for name, data in files.items()]
    return b"".join(part(*each) for each in parts) + f"--{BOUNDARY}--\r\n".encode()


def part(name: str, media_type: str, data: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}"'
    return f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode() + data + b"\r\n"
