"""active-query project | fit | append | export | import: projects of a service and their pools."""

from __future__ import annotations

from typing import Any

import click

from service.cli.connection import JSON, OUT, PROJECT, TerminalClient, opened, print_json, print_table, service_command
from service.cli.sample_files import SampleFile, file_options, is_list_of_texts, readable
from service.client import Client

FACTS = (
    "project_id",
    "n_samples",
    "n_features",
    "n_labeled",
    "n_unlabeled",
    "n_skipped",
    "n_removed",
    "classes",
    "class_counts",
    "model_version",
    "n_labels_since_fit",
)


def show(project: dict[str, Any], *, as_json: bool) -> None:
    """Print a project."""
    if as_json:
        print_json(project)
        return
    rows = [(name, str(as_shown(project.get(name)))) for name in FACTS]
    rows += [("estimator", project["estimator"]["name"])]
    rows += [(f"test {name}", f"{score:.4g}") for name, score in (project["test_score"] or {}).items()]
    print_table(rows)
    for note in project.get("notes", ()):
        click.echo(f"note: {note}", err=True)


def as_shown(value: object) -> object:
    """Return a fact as it is shown."""
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else value


@click.command()
@click.option("--project", help="Name of the project.  [default: list all projects]")
@JSON
@service_command
def project(client: Client, project: str | None, as_json: bool) -> None:
    """Show a project, or list all of them.

    Example: active-query project --project mails
    """
    if project is not None:
        show(client.project(project), as_json=as_json)
        return
    found = list(client.projects())
    if as_json:
        print_json({"projects": found})
    else:
        names = ("project_id", "n_samples", "n_labeled", "n_unlabeled", "model_version")
        print_table([[each[name] for name in names] for each in found], names)


def send_file(client: Client, project: str, samples: SampleFile, *, appends: bool, **fields: Any) -> dict[str, Any]:
    """Create a project of a file, or append the file to its pool, and return the project."""
    with readable(samples.name, samples.kind) as path:
        if path.suffix in (".npy", ".npz") or is_list_of_texts(path):
            if samples.columns:
                raise click.ClickException(f"{samples.name} has no columns with names")
            fields["texts" if is_list_of_texts(path) else "X"] = path
            return client.append(project, **fields) if appends else client.fit(project, **fields)
        send = client.append_table if appends else client.fit_table
        return send(project, path, samples.columns, **fields)


@click.command()
@PROJECT
@file_options
@click.option("--estimator", help="Name of the estimator; see GET /estimators.")
@click.option("--replace", is_flag=True, help="Replace a project that exists, with its labels.")
@JSON
@service_command
def fit(
    client: Client, project: str, samples: SampleFile | None, estimator: str | None, replace: bool, as_json: bool
) -> None:
    """Create a project of a file of samples, or train a project again.

    A file may be larger than the memory. Example:

    active-query fit --project mails --file mails.csv --text-column text --id-column id
    """
    fields: dict[str, Any] = {} if estimator is None else {"estimator": estimator}
    if samples is None:
        if replace:
            raise click.UsageError("--file is required with --replace")
        show(client.fit(project, **fields), as_json=as_json)
        return
    fields |= {"replace": True} if replace else {}
    show(send_file(client, project, samples, appends=False, **fields), as_json=as_json)


@click.command()
@PROJECT
@file_options
@click.option(
    "--if-known",
    type=click.Choice(("refuse", "ignore", "replace")),
    default="refuse",
    show_default=True,
    help="What happens to samples whose id the pool has.",
)
@JSON
@service_command
def append(client: Client, project: str, samples: SampleFile | None, if_known: str, as_json: bool) -> None:
    """Append a file of samples to the pool of a project.

    Columns are those that the project was made with, unless others are named. Example:

    active-query append --project mails --file today.csv --if-known ignore
    """
    if samples is None:
        raise click.UsageError("Missing option '--file'.")
    fields = {} if if_known == "refuse" else {"if_known": if_known}
    reply = send_file(client, project, samples, appends=True, **fields)
    show(reply, as_json=as_json)
    if not as_json:
        click.echo(f"{reply['n_added']} added, {reply['n_ignored']} left out, {reply['n_replaced']} replaced", err=True)


@click.command()
@PROJECT
@OUT
@service_command
def export(client: TerminalClient, project: str, out: str) -> None:
    """Write a whole project to an archive.

    Example: active-query export --project mails --out mails.zip
    """
    with opened(out) as file, client.writing(out):
        client.download(project, file)


@click.command("import")
@click.option("--project", help="Name of the new project.  [default: the name in the archive]")
@click.option("--file", required=True, help="An archive made by export; - reads a pipe.")
@JSON
@service_command
def import_project(client: Client, project: str | None, file: str, as_json: bool) -> None:
    """Make a project of an archive.

    Example: active-query import --file mails.zip --project copy
    """
    with readable(file, "zip") as archive:
        show(client.import_archive(archive, project), as_json=as_json)
