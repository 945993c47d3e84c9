"""active-query demo: compare active queries with random ones."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("active-query-demo"),
    show_default=True,
    help="Directory for the plots and curves.json.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Number of runs with random queries.  [default: 20 for the yardstick, 5 for the digits]",
)
@click.option("--url", help="URL of a running service to measure; by default the demo starts its own.")
def demo(out: Path, seeds: int | None, url: str | None) -> None:
    """Compare active queries with random ones and plot both. Needs the extra 'demo'."""
    try:
        from service.demo import run  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        raise click.ClickException("the plots need matplotlib: pip install 'active-query[demo]'") from None
    run(out, seeds, url)
