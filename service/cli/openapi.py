"""active-query openapi: write the contract."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--check", is_flag=True, help="Fail if the file differs from what the code generates.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("openapi.yaml"))
def openapi(path: Path, check: bool) -> None:
    """Write openapi.yaml, generated from the code. Needs the extra 'dev'."""
    try:
        from service.http.contract.openapi import render  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'active-query[dev]'") from None

    if not check:
        path.write_text(render(), encoding="utf-8")
    elif path.read_text(encoding="utf-8") != render():
        raise click.ClickException(f"{path} is out of date: run `active-query openapi`")
