"""active-query report | simulate: how good the model is, and which strategy saves labels."""

from __future__ import annotations

import time
from typing import Any

import click

from service.cli.connection import JSON, PROJECT, TerminalClient, print_json, print_table, service_command
from service.client import Client, ServiceError

POLL_SECONDS = 0.5
ENDED = ("done", "failed", "cancelled")


@click.command()
@PROJECT
@JSON
@service_command
def report(client: Client, project: str, as_json: bool) -> None:
    """Say whether to go on labelling, and why.

    Example: active-query report --project mails
    """
    found = client.report(project)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['verdict']}")
    for reason in found["reasons"]:
        click.echo(f"- {reason}")
    click.echo()
    print_table([[each["label"], each["n_labeled"], each["share"]] for each in found["classes"]], CLASS_HEADINGS)
    wrong = found.get("suspect_labels") or []
    if wrong:
        click.echo("\nLabels that are probably wrong:")
        names = ("index", "id", "given", "suggested", "quality")
        print_table([[each[name] for name in names] for each in wrong[:10]], names)


CLASS_HEADINGS = ("label", "samples", "share")


@click.command()
@PROJECT
@click.option("--strategy", "strategies", multiple=True, required=True, help="A strategy to try; may be repeated.")
@click.option("--initial", "n_initial", type=click.IntRange(1), help="Number of labels at the start.")
@click.option("--budget", type=click.IntRange(1), help="Number of questions of a run.  [default: 200]")
@click.option("--batch-size", type=click.IntRange(1), help="Number of samples of a question.  [default: 10]")
@click.option("--repeats", type=click.IntRange(1), help="Number of runs of each strategy.")
@JSON
@service_command
def simulate(
    client: TerminalClient, project: str, strategies: tuple[str, ...], as_json: bool, **sizes: int | None
) -> None:
    """Compare strategies on the labelled samples of a project, and wait for the result.

    Example: active-query simulate --project mails --strategy margin --strategy entropy
    """
    given = {name: size for name, size in sizes.items() if size is not None}
    found = wait_for(client, client.simulate(project, strategies=list(strategies), **given))
    if found["status"] != "done":
        raise ServiceError(f"the simulation {found['status']}: {found.get('error') or 'no result'}")
    if as_json:
        print_json(found)
        return
    print_table(
        [[each["strategy"], *last_point(each)] for each in found["result"]["strategies"]],
        ("strategy", "labels", "accuracy"),
    )
    click.echo(found["result"]["recommendation"])


def last_point(result: dict[str, Any]) -> tuple[Any, Any]:
    """Return the number of labels and the mean accuracy at the end of a curve."""
    point = result["curve"][-1]
    return point["n_labeled"], point["mean"]


def wait_for(client: TerminalClient, simulation: dict[str, Any]) -> dict[str, Any]:
    """Return a simulation once it has ended; meanwhile show how many of its runs are done."""
    with client.progress.step("Simulating", simulation["progress"]["total"]) as set_done:
        while simulation["status"] not in ENDED:
            time.sleep(POLL_SECONDS)
            simulation = client.simulation(simulation["simulation_id"])
            set_done(simulation["progress"]["done"])
    return simulation
