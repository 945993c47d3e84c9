"""Baseline for small requests: a Flask endpoint that loads JSON through a schema of three fields and returns it.

A second endpoint also commits a row to SQLite.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from flask import Flask, Response, jsonify, request
from marshmallow import Schema, fields

from tests.benchmarks.sqlite import commit_label, connect


class QuerySchema(Schema):
    project_id = fields.String(required=True)
    strategy = fields.String(required=True)
    batch_size = fields.Integer(required=True)


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

    @app.post("/sqlite")
    def echo_and_commit() -> Response:
        data = schema.load(request.get_json())
        commit_label(database_of(root / f"{data['project_id']}.sqlite"), data["batch_size"])
        return jsonify(data)

    return app


THREAD = threading.local()


def database_of(path: Path) -> sqlite3.Connection:
    """Return this thread's connection to a database."""
    connections: dict[Path, sqlite3.Connection] = THREAD.__dict__
    if path not in connections:
        connections[path] = connect(path)
    return connections[path]
