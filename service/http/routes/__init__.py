"""The endpoints, one module for each resource: parse the request, make one call, dump its result."""

from service.http.routes.context import Context
from service.http.routes.pages import problem_page
from service.http.routes.register import OPERATIONS, register

__all__ = ["OPERATIONS", "Context", "problem_page", "register"]
