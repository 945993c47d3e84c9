"""active-query check: verify the data directory."""

from __future__ import annotations

import sys

import click

from service.cli.setting_options import environment_with, setting_option
from service.settings import Settings, SettingsError
from service.store.check import check_project, project_directories


@click.command()
@setting_option("data_dir")
@click.option("--project", "project_id", help="Check only this project.")
def check(project_id: str | None, **options: str | None) -> None:
    """Verify every byte of the data directory. Print a line for each problem, and exit with status 1 if there is one.

    Nothing is changed, and the service may be running.
    """
    try:
        data_dir = Settings.from_env(environment_with(options)).data_dir
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    try:
        directories = project_directories(data_dir)
    except FileNotFoundError:
        lacks = "holds no directory 'projects'" if data_dir.is_dir() else "does not exist"
        raise click.ClickException(f"AQ_DATA_DIR={str(data_dir)!r} {lacks}: no data to check") from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
    if project_id is not None:
        directories = [path for path in directories if path.name == project_id]
        if not directories:
            raise click.ClickException(f"there is no project {project_id!r}")
    n_findings = 0
    for directory in directories:
        for finding in check_project(directory):
            n_findings += 1
            click.echo(f"{finding.project_id}: {finding.file}: {finding.problem}")
    click.echo(f"{len(directories)} projects checked, {n_findings} findings", err=True)
    sys.exit(1 if n_findings else 0)
