"""active-query query | label | predict: ask, answer, and get predictions."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import click

from service.cli.connection import JSON, OUT, PROJECT, TerminalClient, opened, print_json, print_table, service_command
from service.cli.label_text import label_of_text
from service.cli.sample_files import read_rows, readable
from service.client import Client, ServiceError

LABELS_AT_ONCE = 10_000
LABEL_FORMATS = ("csv", "jsonl", "parquet")
PREDICTION_FORMATS = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "npy": "application/x-npy",
}


@click.command()
@PROJECT
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1), help="Number of samples.")
@click.option("--strategy", help="Name of the strategy; see GET /strategies.  [default: auto]")
@click.option("--annotator", help="Who will label the samples.")
@click.option("--lease-seconds", type=click.IntRange(0), help="Reserve the samples for the annotator for so long.")
@click.option("--out", help="Write the samples to a .csv or .jsonl with an empty column 'label' to fill in; - is CSV.")
@JSON
@service_command
def query(
    client: Client,
    project: str,
    batch_size: int,
    strategy: str | None,
    annotator: str | None,
    lease_seconds: int | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Ask which samples to label next.

    Example: active-query query --project mails --batch-size 20 --out batch.csv
    """
    if out is not None and not out.endswith(("-", ".csv", ".jsonl", ".ndjson")):
        raise click.ClickException(f"{out}: samples are written to .csv or .jsonl")
    given = {"strategy": strategy, "annotator": annotator, "lease_seconds": lease_seconds}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    reply = client.query(project, batch_size, **fields, include=stored_parts(client, project, "text", "url")).reply
    if as_json:
        print_json(reply)
        return
    rows = records_of(reply)
    if out is not None:
        with opened(out) as file:
            file.write(as_lines(rows) if out.endswith(("jsonl", "ndjson")) else as_csv(rows))
    elif rows:
        shown = [{name: value for name, value in row.items() if name not in ("label", "query_id")} for row in rows]
        print_table([[*row.values()] for row in shown], [*shown[0]])
    if reply["fallback_reason"]:
        click.echo(f"note: {reply['fallback_reason']}", err=True)


def stored_parts(client: Client, project: str, *parts: str) -> list[str]:
    """Return those of some parts of its samples that a project stores: an error for the others names them."""
    try:
        client.query(project, strategy="random", include=list(parts))
    except ServiceError as error:
        wrong = {each["pointer"] for each in error.errors}
        stored = [part for at, part in enumerate(parts) if f"/include/{at}" not in wrong]
        if len(stored) == len(parts):
            raise
        return stored
    return list(parts)


PARTS_OF_SAMPLES = {
    "indices": "index",
    "ids": "id",
    "scores": "score",
    "texts": "text",
    "urls": "url",
    "features": "features",
}
"""The lists in the reply to a query, each with the name of its values."""


def records_of(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the samples of a query, each with an empty label to fill in."""
    n = len(reply["indices"])
    given = {name: reply[part] for part, name in PARTS_OF_SAMPLES.items() if reply[part] is not None}
    filled = {**given, "label": [None] * n, "query_id": [reply["query_id"]] * n}
    return [dict(zip(filled, row, strict=True)) for row in zip(*filled.values(), strict=True)]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


@click.command()
@PROJECT
@click.option("--file", required=True, help="A .csv, .jsonl or .parquet with a label for each sample; - reads a pipe.")
@click.option("--format", "kind", type=click.Choice(LABEL_FORMATS), help="Format, if the name does not say.")
@click.option("--id-column", help="Column with the ids of the samples.  [default: index, a column of positions]")
@click.option("--label-column", default="label", show_default=True, help="Column with the labels; empty = none yet.")
@click.option("--annotator", help="Who gave the labels.")
@click.option(
    "--refit",
    type=click.Choice(("wait", "background", "never")),
    default="wait",
    show_default=True,
    help="Whether to wait for the new model.",
)
@JSON
@service_command
def label(
    client: TerminalClient,
    project: str,
    file: str,
    kind: str | None,
    id_column: str | None,
    label_column: str,
    annotator: str | None,
    refit: str,
    as_json: bool,
) -> None:
    """Send the labels of a file.

    Rows without a label are left out, so a partly filled batch can be sent. Example:

    active-query label --project mails --file batch.csv --annotator ada
    """
    facts = client.project(project)
    with readable(file, kind) as path:
        records = [
            record
            for row in read_rows(path)
            if (record := record_of(row, id_column, label_column, annotator, facts)) is not None
        ]
    if not records:
        raise click.ClickException(f"{file} has no label in its column {label_column!r}")
    reply: dict[str, Any] = {}
    with client.progress.step("Sending labels", len(records)) as set_done:
        for start in range(0, len(records), LABELS_AT_ONCE):
            end = start + LABELS_AT_ONCE
            reply = client.label(project, records[start:end], refit="never" if end < len(records) else refit)
            set_done(min(end, len(records)))
    if as_json:
        print_json(reply)
    else:
        names = ("n_labeled", "n_unlabeled", "n_skipped", "model_version")
        print_table([(name, str(reply[name])) for name in names])


def record_of(
    row: dict[str, Any], id_column: str | None, label_column: str, annotator: str | None, facts: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the record of a row, None without a label. Raises ClickException for a row without a sample."""
    column = "index" if id_column is None else id_column
    for needed in (column, label_column):
        if needed not in row:
            there = ", ".join(map(str, row))
            raise click.ClickException(f"there is no column {needed!r}; the columns are {there}")
    given = row[label_column]
    if given is None or given == "":
        return None
    sample = row[column]
    if id_column is None:
        if not str(sample).isdigit():
            raise click.ClickException(f"{sample!r} in the column 'index' is not a position; --id-column names ids")
        sample = int(sample)
    record = {"index" if id_column is None else "id": sample, "label": label_of_text(given, facts)}
    query_id = row.get("query_id")
    return record | ({"annotator": annotator} if annotator else {}) | ({"query_id": query_id} if query_id else {})


@click.command()
@PROJECT
@OUT
@click.option(
    "--format",
    "kind",
    type=click.Choice([*PREDICTION_FORMATS, "jsonl"]),
    help="Format.  [default: by the end of the name, or csv]",
)
@click.option("--unlabeled", is_flag=True, help="Only samples without a label.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line instead.")
@service_command
def predict(client: TerminalClient, project: str, out: str, kind: str | None, unlabeled: bool, as_json: bool) -> None:
    """Write what the model predicts for all samples.

    Example: active-query predict --project mails --out predictions.csv
    """
    chosen = {"unlabeled_only": True} if unlabeled else {}
    kind = kind or next((kind for kind in (*PREDICTION_FORMATS, "jsonl") if out.endswith(f".{kind}")), "csv")
    with opened(out) as file, client.writing(out):
        if as_json or kind == "jsonl":
            for each in client.predictions(project, **chosen):
                file.write(as_lines([each]))
        else:
            client.download_predictions(project, file, PREDICTION_FORMATS[kind], **chosen)
