"""What the commands that call a service share: its address, the API key, and errors in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import IO, Any

import click

from service.cli.progress import Progress
from service.client import Client, Sent, ServiceError

PROJECT = click.option("--project", required=True, help="Name of the project.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the reply of the service as JSON.")
ANSWER_SECONDS = 600.0
"""How long a command waits for a reply: a fit of a large pool takes minutes."""

SMALL_BYTES = 2**16
"""Up to this size, a body is sent too quickly for a bar."""

ERRORS_SHOWN = 3

OUT = click.option("--out", default="-", show_default=True, help="File to write; - is the standard output.")


class TerminalClient(Client):
    """A client that shows on the terminal how far a request is."""

    def __init__(self, url: str, key: str | None, progress: Progress) -> None:
        super().__init__(url, key, timeout=ANSWER_SECONDS)
        self.progress = progress

    def watch(self, n_bytes: int) -> AbstractContextManager[Sent]:
        """Show a bar while a large body is sent, then the seconds until the reply."""
        if n_bytes > SMALL_BYTES:
            return self.progress.step("Sending", n_bytes)
        return self.progress.step("Waiting for the service")

    def writing(self, out: str) -> AbstractContextManager[object]:
        """Show that a file is written; the standard output may be the terminal itself."""
        return nullcontext() if out == "-" else self.progress.step(f"Writing {out}")


def service_command(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --url and --key, call a command with a client, and print errors of the service in words."""

    @wraps(command)
    def run(url: str, key: str | None, **options: Any) -> None:
        try:
            command(TerminalClient(url, key, Progress(is_wanted=not options.get("as_json"))), **options)
        except ServiceError as error:
            raise click.ClickException(in_words(error)) from None
        except BrokenPipeError:
            raise  # the reader of a pipe has enough: click exits
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{named}{error.strerror or error}") from None

    with_key = click.option("--key", envvar="ACTIVE_QUERY_KEY", help="API key.  [env: ACTIVE_QUERY_KEY]")(run)
    return click.option(
        "--url",
        default="http://127.0.0.1:8000",
        show_default=True,
        envvar="ACTIVE_QUERY_URL",
        help="Address of the service.  [env: ACTIVE_QUERY_URL]",
    )(with_key)


def in_words(error: ServiceError) -> str:
    """Return an error as one line, with the first of the wrong fields."""
    if isinstance(error.__cause__, ConnectionRefusedError):
        return "nothing listens at the address: is the service running, and is --url right?"
    if not error.errors:
        return " ".join(str(error).split())
    shown = [f"{each['pointer'].lstrip('/') or 'request'}: {each['detail']}" for each in error.errors[:ERRORS_SHOWN]]
    n_more = len(error.errors) - len(shown)
    return "; ".join([*shown, *([f"and {n_more} more"] if n_more else [])])


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(rows: Sequence[Sequence[object]], headings: Sequence[str] = ()) -> None:
    """Print rows as a table; columns of numbers are aligned to the right."""
    cells = [[as_cell(value) for value in row] for row in rows]
    lines = [list(headings), *cells] if headings else cells
    if not lines:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    is_number = [all(is_numeric(row[column]) for row in rows) for column in range(len(lines[0]))]
    for line in lines:
        padded = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, is_number, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def is_numeric(value: object) -> bool:
    """Return whether a value is a number, or missing."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def as_cell(value: object) -> str:
    """Return a value as the cell of a table: text in one line of up to 60 characters."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def opened(out: str) -> Iterator[IO[bytes]]:
    """Open a file to write, or the standard output for `-`."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with Path(out).open("wb") as file:
            yield file
