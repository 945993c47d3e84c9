"""The least that a service of this kind does with a request: Flask, JSON, a schema of three fields, and JSON again.

And the least that one does which keeps what it was told: it replaces a small file and waits until that is on disk.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from flask import Flask, Response, jsonify, request
from marshmallow import Schema, fields


class Asked(Schema):
    project_id = fields.String(required=True)
    strategy = fields.String(required=True)
    batch_size = fields.Integer(required=True)


STATE_BYTES = 8_000
"""About what the state of a project with 90 labels takes."""


def create_app(directory: str) -> Flask:
    app = Flask(__name__)
    asked = Asked()
    root = Path(directory)

    @app.get("/healthz")
    def health() -> Response:
        return jsonify(status="ok")

    @app.post("/empty")
    def answer() -> Response:
        return jsonify(asked.load(request.get_json()))

    @app.post("/durable")
    def keep() -> Response:
        told = asked.load(request.get_json())
        keep_file(root, told["project_id"])
        return jsonify(told)

    return app


def keep_file(root: Path, name: str) -> None:
    """Put a new file in the place of the old one, without any lock, and return when it would survive a power cut."""
    new = root / f"{name}.{os.getpid()}.{threading.get_ident()}"
    with new.open("wb") as file:
        file.write(bytes(STATE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    new.rename(root / name)
    directory = os.open(root, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
