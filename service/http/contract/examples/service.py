"""Examples of what the service offers, and of a project that is deleted."""

from __future__ import annotations

from service import __version__
from service.errors import ProjectNotFound
from service.http.contract.examples.example import Example, problem
from service.http.contract.examples.flowers import PROJECT_PATH

EXAMPLES = (
    Example("list_strategies", "All strategies", 200),
    Example("list_estimators", "All estimators", 200),
    Example("get_health", "The process is alive", 200, reply={"status": "ok", "version": __version__}),
    Example("get_readiness", "The data directory is writable", 200, reply={"status": "ok"}),
    Example("get_metrics", "All metrics", 200, media_type="text/plain"),
    Example("get_openapi", "The contract", 200, media_type="application/yaml"),
    Example("get_docs", "The reference", 200, media_type="text/html"),
    Example("get_guide", "The guide to training", 200, path={"page": "training"}, media_type="text/html"),
    Example("delete_project", "The end", 204, path=PROJECT_PATH),
    Example(
        "get_project",
        "A deleted project",
        404,
        path=PROJECT_PATH,
        reply=problem(404, "Not Found", str(ProjectNotFound("flowers"))),
    ),
)
