"""Idempotency-Key: a POST that is sent again is answered as the first was, and not done again.

The key belongs to its caller, and to one request: its method, path, query, body, and the headers below. What is kept
are the replies of requests that were followed. A refusal or a failure is not: nothing was changed, or whatever was
stands in the events of the project, so that another try is judged by the state as it is then.
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
"""The headers that an answer follows from."""

DIGEST_BYTES = 16

log = logging.getLogger(__name__)


def answer_once(view: View, replies: Replies, max_body_bytes: int) -> View:
    """Return a view that answers each key once, and all else as before."""

    @wraps(view)
    def answer(**arguments: Any) -> ResponseReturnValue:
        if "HTTP_IDEMPOTENCY_KEY" not in request.environ:
            return view(**arguments)
        me = auth.caller()
        key = key_of(request, me)
        with replies.claim(key) as claim:
            digest = request.environ[BODY_DIGEST_KEY] = blake2b(digest_input(request, me), digest_size=DIGEST_BYTES)
            if claim.reply is not None:
                with suppress(LengthRequired):  # there is none
                    deque(sent_chunks(request, max_body_bytes), maxlen=0)
                return replay(claim.reply, digest.hexdigest())
            g.idempotency_key = key
            response = make_response(view(**arguments))
            if "Retry-After" not in response.headers:  # that asks for another try
                keep_reply(claim, response, digest.hexdigest())
            return response

    return answer


def key_of(request: Request, me: Caller) -> str:
    """Return the digest of a caller's key, or raise InvalidRequest."""
    key = request.headers[HEADER]
    if not VISIBLE_ASCII.fullmatch(key):
        raise InvalidRequest.at(f"/headers/{HEADER}", "must be 1 to 255 visible characters of ASCII, and no space")
    return blake2b(orjson.dumps([me.name, key]), digest_size=DIGEST_BYTES).hexdigest()


def digest_input(request: Request, me: Caller) -> bytes:
    """Return what a request says but for its body. What its caller may do is part of it."""
    headers = [request.headers.get(name) for name in DIGESTED_HEADERS]
    caller = [me.role, me.projects, me.annotator]
    return orjson.dumps([request.method, request.path, request.query_string.hex(), headers, caller])


def replay(kept: StoredReply, content: str) -> Response:
    """Return the reply that was kept, or raise IdempotencyKeyReused if another request was sent with its key."""
    if kept.request != content:
        raise IdempotencyKeyReused
    return Response(kept.body, kept.status, [*kept.headers, (REPLAYED, "true")])


def keep_reply(claim: Claim, response: Response, content: str) -> None:
    """Keep a reply. It goes out in any case: what it tells of was done, and the events know of it."""
    try:
        claim.store(StoredReply(content, response.status_code, tuple(response.headers), response.get_data()))
    except (OSError, StoreFull) as error:
        log.error("a reply could not be kept for its Idempotency-Key: %s", error)


def read_preconditions(request: Request) -> Preconditions:
    """Return the conditions of a request, and its mark where it came with a key. Its body must have been read."""
    preconditions = etags.read_conditions(request)
    if "idempotency_key" not in g:
        return preconditions
    return replace(
        preconditions, fingerprint=RequestFingerprint(g.idempotency_key, request.environ[BODY_DIGEST_KEY].hexdigest())
    )
