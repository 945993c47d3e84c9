"""Conditional requests (RFC 9110, section 13): If-Match, If-None-Match and ETags."""

from __future__ import annotations

import re

from flask import Request, Response

from service.domain.preconditions import ANY, UNCONDITIONAL, Preconditions, Tags
from service.domain.project import Project
from service.errors import InvalidRequest

IF_MATCH, IF_NONE_MATCH = "If-Match", "If-None-Match"
CONDITIONS = (IF_MATCH, IF_NONE_MATCH)

ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def read_conditions(request: Request) -> Preconditions:
    """Return the conditions of a request, or raise InvalidRequest."""
    if not has_conditions(request):
        return UNCONDITIONAL
    return Preconditions(read_tags(request, IF_MATCH), read_tags(request, IF_NONE_MATCH))


def has_conditions(request: Request) -> bool:
    """Return whether a request has conditions; most have none, so this must be fast."""
    environ = request.environ
    return "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ


def read_tags(request: Request, header: str) -> Tags | None:
    """Return the entity tags of a header, None if it was not sent. Raises InvalidRequest."""
    text = request.headers.get(header)
    if text is None:
        return None
    if text.strip() == ANY:
        return frozenset({ANY})
    tags = ENTITY_TAG.findall(text)
    # A tag may hold a comma, so all tags are made empty before the text is split at commas.
    between = {part.strip(" \t") for part in ENTITY_TAG.sub('""', text).split(",")}
    if not tags or not between <= {'""', ""}:
        raise InvalidRequest.at(f"/headers/{header}", 'must be "*" or quoted ETags separated by commas')
    return frozenset(tags)


def with_etag(
    request: Request, response: Response, project: Project, suffix: str = "", *, cached: bool = True
) -> Response:
    """Return a response with the project's strong ETag, or 304 for a GET if the caller's copy is current.

    `suffix` distinguishes the representations of a project. A response that is not `cached` shows more than the
    project's state and is never a 304. Raises PreconditionFailed.
    """
    response.set_etag(f"{project.tag}{suffix}")
    if request.method not in ("GET", "HEAD"):
        return response
    preconditions = read_conditions(request)
    preconditions.check_if_match(project, suffix)
    if not (cached and preconditions.if_none_match_names(project, suffix)):
        return response
    response.close()
    kept = {name: response.headers[name] for name in ("ETag", "Vary") if name in response.headers}
    return Response(status=304, headers=kept)
