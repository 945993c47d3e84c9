"""A field of Label Studio's tasks in the path of an ML backend: Label Studio drops the query of a backend's URL."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

PATH = re.compile(r"(/label-studio/[^/]+)/((?:text|vector)_field)=([^/]+)(/[a-z]+)")


def with_field_in_query(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the WSGI environment of `/label-studio/mails/predict?text_field=body` for one of
    `/label-studio/mails/text_field=body/predict`, and any other unchanged.
    """
    found = PATH.fullmatch(environ["PATH_INFO"])
    if found is None:
        return environ
    project, name, value, operation = found.groups()
    query = f"{name}={quote(value, safe='', encoding='latin-1')}"  # WSGI has the bytes of a path as latin-1
    given = environ.get("QUERY_STRING", "")
    return {**environ, "PATH_INFO": project + operation, "QUERY_STRING": f"{given}&{query}" if given else query}
