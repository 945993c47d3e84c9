"""active-query label-studio | doccano: keep a project of the service and a labelling tool in step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from service.bridges.bridge import Bridge, Tool
from service.bridges.doccano import Doccano
from service.bridges.label_studio import LabelStudio
from service.bridges.labeling_config import TaskFields
from service.bridges.web import ToolError
from service.client import Client, ServiceError

POLL_SECONDS = 1.0


def bridge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every bridge has."""
    options = [
        click.option("--aq", default="http://127.0.0.1:8000", show_default=True, help="URL of the service."),
        click.option("--key", envvar="ACTIVE_QUERY_KEY", help="API key of the service, if it needs one."),
        click.option("--aq-project", help="Name of the project in the service.  [default: the tool and its project]"),
        click.option("--batch-size", default=10, show_default=True, type=click.IntRange(1, 10_000)),
        click.option("--once", is_flag=True, help="Bring both sides in step once, and exit."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("label-studio")
@click.option("--url", required=True, help="URL of Label Studio.")
@click.option(
    "--token", required=True, envvar="LABEL_STUDIO_API_KEY", help="A personal access token, or a legacy token."
)
@click.option("--project", required=True, type=click.IntRange(1), help="Number of the project in Label Studio.")
@click.option("--text-field", help="Field of the tasks with the text.  [default: that of the labelling config]")
@click.option(
    "--vector-field",
    help="Field with a list of numbers, instead of a text.  [default: the first such field, if no text is shown]",
)
@click.option("--url-field", help="Field of the tasks with an address, which queries return.")
@click.option("--prelabel", is_flag=True, help="Show the class that the model predicts, with its confidence.")
@bridge_options
def label_studio(
    url: str,
    token: str,
    project: int,
    text_field: str | None,
    vector_field: str | None,
    url_field: str | None,
    prelabel: bool,
    **shared: Any,
) -> None:
    """Let a project of Label Studio show its most useful tasks first.

    Its tasks become a project of the service, its annotations the labels, and "Label All Tasks" shows each batch in the
    order of the service. Runs until it is stopped; stopped and started again, it goes on.
    """
    if text_field and vector_field:
        raise click.UsageError("--text-field and --vector-field exclude each other")
    fields = TaskFields(text_field, vector_field, url_field)
    run(lambda: LabelStudio(url, token, project, fields), f"label-studio-{project}", prelabel=prelabel, **shared)


@click.command("doccano")
@click.option("--url", required=True, help="URL of doccano.")
@click.option("--username", required=True, help="Name of a user who is an admin of the project.")
@click.option("--password", required=True, envvar="DOCCANO_PASSWORD", help="Password of this user.")
@click.option("--project", required=True, type=click.IntRange(1), help="Number of the project in doccano.")
@bridge_options
def doccano(url: str, username: str, password: str, project: int, **shared: Any) -> None:
    """Give the most useful examples of a doccano project the lowest scores.

    Its examples become a project of the service, their categories the labels, and each batch has the lowest scores, in
    the order of the service. Runs until it is stopped; stopped and started again, it goes on.
    """
    run(lambda: Doccano(url, username, password, project), f"doccano-{project}", prelabel=False, **shared)


def run(
    connect: Callable[[], Tool],
    default_name: str,
    *,
    prelabel: bool,
    aq: str,
    key: str | None,
    aq_project: str | None,
    batch_size: int,
    once: bool,
) -> None:
    """Run a bridge. An error that waiting does not heal ends it with a message, before anything is in step."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        bridge = Bridge(connect(), Client(aq, key), aq_project or default_name, batch_size, prelabel=prelabel)
        if once:
            bridge.step()
        else:
            bridge.run(POLL_SECONDS)
    except (ToolError, ServiceError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return
