"""The command line. A command is imported when it runs, so that its help and small commands start quickly."""

from __future__ import annotations

from importlib import import_module

import click

from service import __version__

COMMANDS = {
    "The service": {
        "serve": ("serve:serve", "Serve over HTTP with gunicorn until stopped."),
        "keys": ("keys:keys", "Create, list and revoke API keys in AQ_API_KEYS_FILE."),
        "check": ("check:check", "Verify every byte of the data directory."),
        "demo": ("demo:demo", "Compare active queries with random ones and plot both."),
        "openapi": ("openapi:openapi", "Write openapi.yaml, generated from the code."),
    },
    "Projects of a service": {
        "project": ("projects:project", "Show a project, or list all of them."),
        "fit": ("projects:fit", "Create a project of a file of samples, or train a project again."),
        "append": ("projects:append", "Append a file of samples to the pool of a project."),
        "query": ("labels:query", "Ask which samples to label next."),
        "label": ("labels:label", "Send the labels of a file."),
        "annotate": ("annotate:annotate", "Label samples in the terminal, one after the other."),
        "predict": ("labels:predict", "Write what the model predicts for all samples."),
        "report": ("evidence:report", "Say whether to go on labelling, and why."),
        "simulate": (
            "evidence:simulate",
            "Compare strategies on the labelled samples of a project, and wait for the result.",
        ),
        "export": ("projects:export", "Write a whole project to an archive."),
        "import": ("projects:import_project", "Make a project of an archive."),
    },
    "Labelling tools": {
        "label-studio": (
            "bridges:label_studio",
            "Let a project of Label Studio show its most useful tasks first.",
        ),
        "doccano": ("bridges:doccano", "Give the most useful examples of a doccano project the lowest scores."),
    },
}
"""By heading and name: the module and function of each command, and the first sentence of its help."""


class LazyGroup(click.Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None if there is none of this name."""
        for commands in COMMANDS.values():
            if cmd_name in commands:
                module, _, function = commands[cmd_name][0].partition(":")
                found: click.Command = getattr(import_module(f"service.cli.{module}"), function)
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries of the commands."""
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, summary) for name, (_, summary) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="active-query")
def main() -> None:
    """Active Query: which samples should be labelled next? Settings are read from AQ_* variables."""
