"""The demo: compares active queries with random ones, over HTTP, and plots both. Needs the extra `demo`.

The service simulates both: POST /simulate runs the loop of a labeling tool, with the true labels as the answers.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import click

from service.client import Client, ServiceError
from service.demo.comparisons import COMPARISONS
from service.demo.measurement import measure_comparison
from service.demo.report import LEGEND, as_json, describe_comparison, draw_curves, format_table, summarize
from service.demo.serving import run_service


def run(out: Path, seeds: int | None, url: str | None) -> None:
    """Run both comparisons, print them, and write plots and numbers to the directory `out`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM cleans up like Ctrl-C
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    measured = {}
    try:
        with run_service() if url is None else nullcontext(url) as base:
            client = Client(base)
            for comparison in COMPARISONS:
                outcome = measure_comparison(client, comparison, seeds or comparison.default_seeds)
                measured[comparison.name] = as_json(outcome)
                draw_curves(outcome, out / f"{comparison.name}.png")
                click.echo(f"{describe_comparison(outcome)}\n\n{format_table(outcome)}\n\n{summarize(outcome)}\n")
    except ServiceError as error:
        raise click.ClickException(str(error)) from None
    (out / "curves.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    pictures = ", ".join(f"{name}.png" for name in measured)
    click.echo(f"{LEGEND}\n\n{time.monotonic() - began:.0f} s; {out} now holds {pictures} and curves.json")
