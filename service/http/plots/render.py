"""Drawing a plot, if the extra `plots` is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import get_args

from flask import Request
from werkzeug.exceptions import NotAcceptable

from service.http.media_types import PNG, SVG
from service.http.plots.values import Plot, Theme
from service.http.responses import choose_media_type

THEMES: tuple[Theme, ...] = get_args(Theme)

INSTALL = "pip install 'active-query[plots]'"


@cache
def are_plots_installed() -> bool:
    """Return whether the extra `plots` is installed."""
    return find_spec("matplotlib") is not None


def choose_plot_type(request: Request, *others: str) -> str:
    """Return the media type that the client prefers among `others`, SVG and PNG.

    Raises NotAcceptable, also for a plot without the extra `plots`.
    """
    chosen = choose_media_type(request, *others, SVG, PNG)
    if chosen in (SVG, PNG) and not are_plots_installed():
        raise NotAcceptable(f"plots require {INSTALL} on the server; this is also available as {' or '.join(others)}")
    return chosen


def render_plot(plot: Plot, media_type: str, theme: Theme = "light") -> bytes:
    """Draw a plot as SVG or PNG; the same plot gives the same bytes. It needs the extra `plots`."""
    from service.http.plots.drawing import draw  # noqa: PLC0415 - needs the extra

    return draw(plot, "svg" if media_type == SVG else "png", theme)
