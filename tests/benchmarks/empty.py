"""Baseline for small requests: a Flask endpoint that loads JSON through a schema of three fields and returns it.

A second endpoint also replaces a small file and syncs it to disk.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from flask import Flask, Response, jsonify, request
from marshmallow import Schema, fields


class QuerySchema(Schema):
    project_id = fields.String(required=True)
    strategy = fields.String(required=True)
    batch_size = fields.Integer(required=True)


STATE_BYTES = 8_000
"""About the size of the state of a project with 90 labels."""


def create_app(directory: str) -> Flask:
    app = Flask(__name__)
    schema = QuerySchema()
    root = Path(directory)

    @app.get("/healthz")
    def health() -> Response:
        return jsonify(status="ok")

    @app.post("/empty")
    def echo() -> Response:
        return jsonify(schema.load(request.get_json()))

    @app.post("/durable")
    def echo_durably() -> Response:
        data = schema.load(request.get_json())
        replace_file(root, data["project_id"])
        return jsonify(data)

    return app


def replace_file(root: Path, name: str) -> None:
    """Replace a file atomically, without a lock, and sync it to disk."""
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
