"""active-query keys new | list | revoke: the API keys in the file that AQ_API_KEYS_FILE names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from service.auth.keyfile import change_keys, read_keys
from service.auth.keys import ALL_PROJECTS, ROLES, Caller, Keys, KeysError, new_key, new_token
from service.settings import Settings, SettingsError


@click.group()
def keys() -> None:
    """Make, list and revoke API keys, in the file that AQ_API_KEYS_FILE names. A service at work follows at once."""


@keys.command()
@click.option("--name", required=True, help="What the key is called, in this list and in what the service keeps.")
@click.option("--role", required=True, type=click.Choice(list(ROLES)), help="What it may do.")
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="A project that it may touch, or the beginning of their names such as 'team-*', or '*' for all; "
    "may be repeated. Without it: none.",
)
@click.option("--annotator", help="Answer as this annotator, and as no other.")
def new(name: str, role: str, projects: tuple[str, ...], annotator: str | None) -> None:
    """Make a key and print its token, which is kept nowhere: only its hash is."""
    token = new_token()
    with errors_as_messages():
        key = new_key(token, name, role, projects, annotator)
        change_keys(keys_file(), lambda keys: keys.with_key(key))
    click.echo(f"key {name!r}, {describe_caller(key.caller)}. This is its token, shown once:", err=True)
    click.echo(token)


@keys.command("list")
def list_keys() -> None:
    """List the keys: name, role, projects, when it was made."""
    with errors_as_messages():
        for key in read_keys(keys_file()).all:
            click.echo(f"{key.caller.name}: {describe_caller(key.caller)}, made {key.created_at or 'by hand'}")


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Take a key away."""
    with errors_as_messages():
        left = change_keys(keys_file(), partial(Keys.without_key, name=name))
    click.echo(f"key {name!r} is revoked; {len(left.all)} left", err=True)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Say in one sentence what went wrong."""
    try:
        yield
    except (KeysError, OSError, SettingsError) as error:
        raise click.ClickException(str(error).strip()) from None


def keys_file() -> Path:
    """Return where the keys lie. Raises SettingsError, and KeysError where no setting says so."""
    path = Settings.from_process().api_keys_file
    if path is None:
        raise KeysError("AQ_API_KEYS_FILE names no file: set it to where the keys are to lie, here and for `serve`")
    return path


def describe_caller(caller: Caller) -> str:
    """Say what a key may do."""
    projects = "all projects" if ALL_PROJECTS in caller.projects else ", ".join(caller.projects) or "no project"
    speaker = f", as annotator {caller.annotator!r}" if caller.annotator else ""
    return f"{caller.role} for {projects}{speaker}"
