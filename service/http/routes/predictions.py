"""GET /projects/{project_id}/predictions: the current model's predictions, as JSON, CSV, Parquet or .npy."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np
from flask import Response, request
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from werkzeug.exceptions import NotAcceptable

from service.auth.keys import Role
from service.compute.deadline import time_limit
from service.domain.labels import Label
from service.errors import InvalidRequest
from service.http.contract.operations import Operations, Reply
from service.http.csv_writer import SAFE_HEADER, csv_lines, csv_value
from service.http.media_types import CSV, JSON, NPY, PARQUET
from service.http.middleware.etags import with_etag
from service.http.responses import choose_media_type, json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas.predictions import PredictionPageSchema, PredictionQuerySchema
from service.usecases.predictions import (
    PredictionBlock,
    PredictionRequest,
    Predictions,
    first_predictions,
    list_predictions,
)

QUERY = PredictionQuerySchema()
PAGE_LENGTH = 1_000

operations = Operations("Predictions", "Get the predictions of a project's model.")


@operations.add(
    "GET",
    "/projects/<project_id>/predictions",
    role=Role.READER,
    query=PredictionQuerySchema,
    replies={
        200: Reply(
            "The predictions, in the order of the pool.",
            PredictionPageSchema,
            (CSV, NPY, PARQUET),
            etag=True,
            some_headers=(SAFE_HEADER,),
        )
    },
    problems=(404, 406, 409, 422, 503, 504),
)
def list_project_predictions(project_id: str) -> Response:
    """Predict the samples of a project with its current model.

    As pages of JSON; all of them as CSV with `Accept: text/csv`, or as Parquet with
    `Accept: application/vnd.apache.parquet`, which needs the extra `arrow`; or as the probabilities alone, an array
    (n, c) whose columns are the project's `classes`, with `Accept: application/x-npy`. `confidence` is the model's own
    probability: it is not calibrated, and where the model is wrong it may be high. Predicted numbers have no
    confidence, and are an array (n,) as .npy. Where a sample may have several labels, probabilities are marginals, and
    a label is a list, in CSV as JSON.
    """
    media_type = choose_media_type(request, JSON, CSV, NPY, PARQUET)
    if media_type == PARQUET and find_spec("pyarrow") is None:
        raise NotAcceptable("Parquet requires pip install 'active-query[arrow]' on the server; this is also CSV")
    data = read_query(QUERY)
    if media_type == NPY and (data["min_confidence"] or "limit" in data):
        field = "min_confidence" if data["min_confidence"] else "limit"
        raise InvalidRequest.at(f"/query/{field}", "does not apply to .npy, whose number of rows comes first")
    context = current_context()
    with time_limit(context.settings.query_seconds):
        asked = prediction_request(project_id, data, PAGE_LENGTH if media_type == JSON else None)
        found = list_predictions(context.store, asked, context.admission)
        response = WRITERS[media_type](found, data)
    response.vary.add("Accept")
    return with_etag(request, response, found.project, SUFFIXES[media_type])


def prediction_request(project_id: str, data: dict[str, Any], page_length: int | None) -> PredictionRequest:
    """Turn what PredictionQuerySchema loaded into a request for up to `page_length` predictions by default."""
    filters = data.get("indices"), data.get("after"), data["min_confidence"], data["unlabeled_only"]
    return PredictionRequest(project_id, *filters, data.get("limit", page_length))


def json_predictions(found: Predictions, data: dict[str, Any]) -> Response:
    """Reply with a page of predictions as JSON."""
    blocks, has_more = first_predictions(found.blocks, data.get("limit", PAGE_LENGTH), may_be_short=True)
    names = ("index", "id", "label", "confidence", "probabilities")
    records = [dict(zip(names, row, strict=False)) for block in blocks for row in rows_of(found, block, data)]
    return json_response(
        {
            "model_version": found.model_version,
            "classes": list(found.project.classes),
            "predictions": records,
            "next": records[-1]["index"] if has_more else None,
        }
    )


def rows_of(found: Predictions, block: PredictionBlock, data: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Return the predictions of a block as rows of plain values; NaN is shown as null."""
    indices = block.index.tolist()
    columns: list[Any] = [
        indices,
        [None] * len(indices) if found.ids is None else found.ids.names_at(indices),
        block.labels(found.project.classes),
        [None if value != value else value for value in block.confidence.tolist()],
    ]
    if data["probabilities"]:
        columns.append(list(block.probabilities))
    return zip(*columns, strict=True)


def csv_predictions(found: Predictions, data: dict[str, Any]) -> Response:
    """Reply with predictions as CSV, a block at a time."""
    blocks = limited_blocks(found, data)
    head, safe = ["index", "id", "label", "confidence"], data["safe"]
    if data["probabilities"]:
        head += [f"p({csv_value(label, 'none')})" for label in found.project.classes]

    def lines(block: PredictionBlock) -> str:
        rows = rows_of(found, block, data)
        return csv_lines(
            (*(csv_value(value, safe) for value in row[:4]), *(p for some in row[4:] for p in some.tolist()))
            for row in rows
        )

    return Response(chain([csv_lines([head])], map(lines, blocks)), mimetype=CSV, headers={SAFE_HEADER: safe})


def limited_blocks(found: Predictions, data: dict[str, Any]) -> Iterator[PredictionBlock]:
    """Return the predictions up to the limit, if there is one."""
    return iter(first_predictions(found.blocks, data["limit"])[0]) if "limit" in data else found.blocks


def parquet_predictions(found: Predictions, data: dict[str, Any]) -> Response:
    """Reply with predictions as Parquet, a row group at a time; it needs the extra `arrow`."""
    from service.http.parquet_writer import write_parquet  # noqa: PLC0415 - needs the extra

    classes = found.project.classes
    label_type = "float64" if found.project.target == "number" else arrow_type(classes[0])
    label_type = f"list {label_type}" if found.project.target == "labels" else label_type
    types = [("index", "int64"), ("id", id_type(found)), ("label", label_type), ("confidence", "float64")]
    names = [f"p({csv_value(label, 'none')})" for label in classes] if data["probabilities"] else []

    def columns(block: PredictionBlock) -> dict[str, Any]:
        values = zip(*rows_of(found, block, {**data, "probabilities": False}), strict=True)
        shares = zip(names, block.probabilities.T, strict=False)
        return dict(zip(("index", "id", "label", "confidence"), values, strict=True)) | dict(shares)

    blocks = map(columns, limited_blocks(found, data))
    return Response(write_parquet([*types, *((name, "float64") for name in names)], blocks), mimetype=PARQUET)


def id_type(found: Predictions) -> str:
    """Return the Arrow type of the ids, null without ids."""
    return "null" if found.ids is None else arrow_type(found.ids.names_at([0])[0])


def arrow_type(value: Label) -> str:
    """Return the Arrow type of a label or an id."""
    return {bool: "bool", int: "int64", float: "float64", str: "string"}[type(value)]


def npy_predictions(found: Predictions, data: dict[str, Any]) -> Response:
    """Reply with the probabilities, or the predicted numbers, as a .npy file, a block at a time."""
    head = io.BytesIO()
    of_numbers = found.project.target == "number"
    columns = () if of_numbers else (len(found.project.classes),)
    header = header_data_from_array_1_0(np.empty((0, *columns)))
    write_array_header_1_0(head, {**header, "shape": (found.n_candidates, *columns)})
    blocks = ((block.probabilities if block.numbers is None else block.numbers).tobytes() for block in found.blocks)
    return Response(chain([head.getvalue()], blocks), mimetype=NPY)


WRITERS = {JSON: json_predictions, CSV: csv_predictions, NPY: npy_predictions, PARQUET: parquet_predictions}
SUFFIXES = {JSON: "", CSV: "-csv", NPY: "-npy", PARQUET: "-parquet"}
