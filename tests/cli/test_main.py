"""The list of commands."""

from __future__ import annotations

import click
import pytest

from service.cli.main import COMMANDS, main

SUMMARIES = {name: summary for commands in COMMANDS.values() for name, (_, summary) in commands.items()}


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_list_has_the_first_sentence_of_each_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    text = " ".join((command.help or "").split("\n\n")[0].split())
    assert command.name == name
    assert f"{text} ".startswith(f"{SUMMARIES[name]} ")


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(click.UsageError, match="No such command 'fitt'"):
        main(["fitt"], standalone_mode=False)
