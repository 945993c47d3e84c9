"""Options of commands that override settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields

import click

from service.settings import Settings, variable_name

SETTINGS = {item.name: item for item in fields(Settings)}


def setting_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for a setting; it overrides the setting's variable."""
    item = SETTINGS[name]
    text = f"{item.metadata['sentence']} Overrides {variable_name(item)}.  [default: {item.default}]"
    return click.option(f"--{name.replace('_', '-')}", name, help=text)


def environment_with(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return this process's environment, with the options that were given in place of their variables."""
    given = {variable_name(SETTINGS[name]): text for name, text in options.items() if text is not None}
    return {**os.environ, **given}
