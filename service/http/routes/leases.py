"""The leases of a project."""

from __future__ import annotations

from flask import Response, request

from service.auth.keys import Role
from service.http.body.reader import has_body, read_json
from service.http.contract.operations import Operations, Reply
from service.http.middleware import auth
from service.http.responses import empty_response, json_response
from service.http.routes.context import current_context
from service.http.schemas import responses
from service.http.schemas.leases import RenewSchema
from service.usecases import leases

RENEW, LEASE_REPLY, LEASES_REPLY = RenewSchema(), responses.LeaseSchema(), responses.LeaseListSchema()

operations = Operations("Leases", "List, renew and release leases.")


@operations.add(
    "GET",
    "/projects/<project_id>/leases",
    role=Role.READER,
    replies={200: Reply("The leases.", responses.LeaseListSchema)},
    problems=(404,),
)
def list_project_leases(project_id: str) -> Response:
    """List the leases of a project.

    Leases that expired or were released are not listed, nor are samples labelled since.
    """
    return json_response(LEASES_REPLY.dump({"leases": leases.list_leases(current_context().store, project_id)}))


@operations.add(
    "POST",
    "/projects/<project_id>/leases/<query_id>/renew",
    role=Role.ANNOTATOR,
    body=RenewSchema,
    optional=True,
    replies={200: Reply("The lease with its new end.", responses.LeaseSchema)},
    problems=(404, 413, 415, 422, 503, 507),
)
def renew_lease(project_id: str, query_id: str) -> Response:
    """Renew a lease.

    A lease that has ended cannot be renewed: its samples may be leased to another annotator.
    """
    data = RENEW.load(read_json(request, current_context().limits) if has_body(request) else {})
    lease = leases.renew_lease(
        current_context().store, project_id, query_id, data.get("lease_seconds"), auth.check_lease_holder
    )
    return json_response(LEASE_REPLY.dump(lease))


@operations.add(
    "DELETE",
    "/projects/<project_id>/leases/<query_id>",
    role=Role.ANNOTATOR,
    replies={204: Reply("Its samples can be leased again.")},
    problems=(404, 422, 503, 507),
)
def release_lease(project_id: str, query_id: str) -> Response:
    """Release a lease.

    Its samples can be queried by other annotators at once.
    """
    leases.release_lease(current_context().store, project_id, query_id, auth.check_lease_holder)
    return empty_response()
