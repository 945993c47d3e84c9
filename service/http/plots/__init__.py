"""Plots as SVG or PNG: values that describe a plot, and `render_plot`, which draws it if the extra `plots` is there."""

from service.http.plots.render import THEMES, are_plots_installed, choose_plot_type, render_plot
from service.http.plots.values import SCORE_LABELS, Line, LinePlot, Plot, PointPlot, Points, Theme

__all__ = [
    "SCORE_LABELS",
    "THEMES",
    "Line",
    "LinePlot",
    "Plot",
    "PointPlot",
    "Points",
    "Theme",
    "are_plots_installed",
    "choose_plot_type",
    "render_plot",
]
