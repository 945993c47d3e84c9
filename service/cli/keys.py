"""active-query keys new | list | revoke: manage the API keys in AQ_API_KEYS_FILE."""

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
    """Create, list and revoke API keys in AQ_API_KEYS_FILE. A running service applies changes at once."""


@keys.command()
@click.option("--name", required=True, help="Name of the key, in `list` and in the log.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(list(ROLES)),
    help="Role of the key; each may do what those before it may.",
)
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="A project that it may access, a prefix such as 'team-*', or '*' for all projects; may be repeated. "
    "Without it, the key may access no project.",
)
@click.option("--annotator", help="The only annotator that it may label as.")
def new(name: str, role: str, projects: tuple[str, ...], annotator: str | None) -> None:
    """Create a key and print its token. Only a hash of the token is stored."""
    token = new_token()
    with errors_as_messages():
        key = new_key(token, name, role, projects, annotator)
        change_keys(keys_file(), lambda keys: keys.with_key(key))
    click.echo(f"key {name!r}, {describe_caller(key.caller)}. Its token, which is not shown again:", err=True)
    click.echo(token)


@keys.command("list")
def list_keys() -> None:
    """List the keys: name, role, projects and creation time."""
    with errors_as_messages():
        for key in read_keys(keys_file()).all:
            click.echo(f"{key.caller.name}: {describe_caller(key.caller)}, created {key.created_at or 'by hand'}")


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key."""
    with errors_as_messages():
        left = change_keys(keys_file(), partial(Keys.without_key, name=name))
    click.echo(f"key {name!r} is revoked; {len(left.all)} remain", err=True)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn expected errors into ClickException."""
    try:
        yield
    except (KeysError, OSError, SettingsError) as error:
        raise click.ClickException(str(error).strip()) from None


def keys_file() -> Path:
    """Return the path of the key file. Raises SettingsError, and KeysError if it is not set."""
    path = Settings.from_process().api_keys_file
    if path is None:
        raise KeysError("AQ_API_KEYS_FILE is not set: set it to the path of the key file, here and for `serve`")
    return path


def describe_caller(caller: Caller) -> str:
    """Return a description of what a key may do."""
    projects = "all projects" if ALL_PROJECTS in caller.projects else ", ".join(caller.projects) or "no project"
    speaker = f", as annotator {caller.annotator!r}" if caller.annotator else ""
    return f"{caller.role} for {projects}{speaker}"
