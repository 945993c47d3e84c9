"""The pages for people: a list of projects, a page for each, and a form for an API key. They have no script."""

from service.http.pages.render import (
    CSP,
    data_uri,
    error_page,
    project_page,
    projects_page,
    sign_in_page,
    simulate_page,
    simulation_page,
)

__all__ = [
    "CSP",
    "data_uri",
    "error_page",
    "project_page",
    "projects_page",
    "sign_in_page",
    "simulate_page",
    "simulation_page",
]
