"""Idempotency-Key: a POST that is sent again gets the reply to the first.

A key belongs to its caller and to one request: its method, path, query, body and the headers below. Only replies of
success are stored. After a refusal or a failure the request is run again; `usecases.run_once` then finds in the events
of the project whether the first try changed it after all.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from hashlib import blake2b
from typing import Any

import orjson
from flask import Request, Response, g, make_response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import LengthRequired

from service.auth.keys import Caller
from service.domain.preconditions import Preconditions, RequestFingerprint
from service.errors import IdempotencyKeyReused, InvalidRequest, StoreFull
from service.http.body.stream import BODY_DIGEST_KEY, sent_chunks
from service.http.contract.operations import View
from service.http.middleware import auth, etags
from service.store.idempotency import Claim, Replies, StoredReply

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"

VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")

DIGESTED_HEADERS = ("Content-Type", "Content-Encoding", "Accept", "Prefer", *etags.CONDITIONS)
"""Headers that the reply depends on."""

DIGEST_BYTES = 16

log = logging.getLogger(__name__)


def answer_once(view: View, replies: Replies, max_body_bytes: int) -> View:
    """Return a view that runs once for each key, and always for requests without one."""

    @wraps(view)
    def run(**arguments: Any) -> ResponseReturnValue:
        if "HTTP_IDEMPOTENCY_KEY" not in request.environ:
            return view(**arguments)
        me = auth.caller()
        key = key_of(request, me)
        with replies.claim(key) as claim:
            digest = request.environ[BODY_DIGEST_KEY] = blake2b(digest_input(request, me), digest_size=DIGEST_BYTES)
            if claim.reply is not None:
                with suppress(LengthRequired):  # a request without a body
                    deque(sent_chunks(request, max_body_bytes), maxlen=0)
                return replay(claim.reply, digest.hexdigest())
            g.idempotency_key = key
            response = make_response(view(**arguments))
            if "Retry-After" not in response.headers:  # which asks for another request
                keep_reply(claim, response, digest.hexdigest())
            return response

    return run


def key_of(request: Request, me: Caller) -> str:
    """Return the digest of a caller's idempotency key, or raise InvalidRequest."""
    key = request.headers[HEADER]
    if not VISIBLE_ASCII.fullmatch(key):
        raise InvalidRequest.at(f"/headers/{HEADER}", "must be 1 to 255 visible ASCII characters without spaces")
    return blake2b(orjson.dumps([me.name, key]), digest_size=DIGEST_BYTES).hexdigest()


def digest_input(request: Request, me: Caller) -> bytes:
    """Return all of a request but its body, including the rights of its caller."""
    headers = [request.headers.get(name) for name in DIGESTED_HEADERS]
    caller = [me.role, me.projects, me.annotator]
    return orjson.dumps([request.method, request.path, request.query_string.hex(), headers, caller])


def replay(stored: StoredReply, content: str) -> Response:
    """Return the stored reply, or raise IdempotencyKeyReused if another request was sent with its key."""
    if stored.request != content:
        raise IdempotencyKeyReused
    return Response(stored.body, stored.status, [*stored.headers, (REPLAYED, "true")])


def keep_reply(claim: Claim, response: Response, content: str) -> None:
    """Store a reply. It is sent even if that fails: the change is made, and the events record it."""
    try:
        claim.store(StoredReply(content, response.status_code, tuple(response.headers), response.get_data()))
    except (OSError, StoreFull) as error:
        log.error("cannot store the reply to an Idempotency-Key: %s", error)


def read_preconditions(request: Request) -> Preconditions:
    """Return the conditions of a request, and its fingerprint if it has a key. Its body must have been read."""
    preconditions = etags.read_conditions(request)
    if "idempotency_key" not in g:
        return preconditions
    return replace(
        preconditions, fingerprint=RequestFingerprint(g.idempotency_key, request.environ[BODY_DIGEST_KEY].hexdigest())
    )
