"""The query string of a request."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import request
from marshmallow import Schema, ValidationError

from service.domain.parameters import pointer_token
from service.errors import InvalidRequest
from service.http.media_types import JSON, MULTIPART
from service.http.problems import flatten
from service.http.schemas.samples import ConfigQuerySchema

CONFIG = ConfigQuerySchema()


def read_query(schema: Schema) -> dict[str, Any]:
    """Load the query string. Raises InvalidRequest with pointers below `/query`."""
    repeated = [
        name for name, times in Counter((key for key, _ in request.args.items(multi=True))).items() if times > 1
    ]
    if repeated:
        raise InvalidRequest.at(f"/query/{pointer_token(repeated[0])}", "is given more than once")
    try:
        data: dict[str, Any] = schema.load(request.args.to_dict())
    except ValidationError as error:
        raise InvalidRequest(flatten(error.messages)).with_prefix("/query") from None
    return data


def read_config() -> dict[str, Any]:
    """Return the fields in the query string beside a body of CSV or JSON lines. Raises InvalidRequest."""
    if "config" not in request.args:
        return {}
    if request.mimetype in (JSON, MULTIPART):
        problem = "is only for a body of CSV or JSON lines; put these fields into the body"
        raise InvalidRequest.at("/query/config", problem)
    config: dict[str, Any] = read_query(CONFIG)["config"]
    return config
