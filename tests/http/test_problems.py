"""Every error is a problem document from one builder, wherever it was raised."""

import logging
import re

import pytest
from flask import Flask, abort
from marshmallow import Schema, ValidationError, fields
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestedRangeNotSatisfiable,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    default_exceptions,
)

from service import errors
from service.errors import MAX_ERRORS
from service.http import problems, routes
from service.http.middleware import request_log

KEYS = {"type", "title", "status", "detail", "request_id"}
MESSAGE = "the tiger sleeps at midnight"

CALLERS_IDS = ["a", "A-b_c.9", "0" * 128]
EVIL_IDS = ["", " ", "a b", "a" * 129, "a" * 10_000, 'a"b', "a;b", "ä", "<script>", "../x", "a,b"]


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """Let caplog capture the service's log, which another test's application may have redirected."""
    monkeypatch.setattr(logging.getLogger("service"), "propagate", True)


def raiser(error):
    """A client of an application whose only view raises an error."""
    app = Flask(__name__)
    request_log.register(app)
    problems.register(app, routes.OPERATIONS, routes.problem_page)

    @app.get("/")
    def view():
        raise error

    return app.test_client()


def asked(error, **options):
    """Raise an error in a view, check the form of the reply, and return it."""
    reply = raiser(error).get("/", **options)
    assert_problem(reply)
    return reply


def assert_problem(reply):
    assert reply.mimetype == "application/problem+json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    body = reply.json
    assert body.keys() - {"errors"} == KEYS
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    assert body["status"] == reply.status_code
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert int(reply.headers["Content-Length"]) == len(reply.data)


def leaves(kind=errors.ServiceError):
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


MADE = {
    errors.InvalidRequest: lambda: errors.InvalidRequest.at("/X", "must be a list"),
    errors.IdempotencyKeyReused: errors.IdempotencyKeyReused,
    errors.IdempotencyKeyInUse: errors.IdempotencyKeyInUse,
    errors.TooManyProjects: lambda: errors.TooManyProjects(3),
    errors.FitTooSlow: lambda: errors.FitTooSlow("svc", 600, "logistic_regression is quick"),
    errors.LabeledByOthers: lambda: errors.LabeledByOthers(3, "ada"),
    errors.PreconditionFailed: lambda: errors.PreconditionFailed("If-Match", None),
}
LEAF_STATUS = {
    "IdempotencyKeyReused": 422,
    "FitTooSlow": 422,
    "LabeledByOthers": 403,
    "PreconditionFailed": 412,
    "ProjectNotFound": 404,
    "LabelNotFound": 404,
    "LeaseNotFound": 404,
    "SimulationNotFound": 404,
    "NoModel": 409,
    "ProjectExists": 409,
    "ImportTargetExists": 409,
    "ModelDamaged": 500,
    "ProjectReplaced": 409,
    "TooManyProjects": 409,
    "IdempotencyKeyInUse": 409,
    "OutOfTime": 504,
    "TooBusy": 503,
    "TooManySimulations": 503,
    "StoreBusy": 503,
    "StoreReadOnly": 503,
    "StoreFull": 507,
    "UnknownSchema": 500,
}


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_domain_has_a_status(kind):
    reply = asked(MADE.get(kind, lambda: kind("mouse"))())
    assert reply.status_code == LEAF_STATUS[kind.__name__]
    assert ("errors" in reply.json) == issubclass(kind, errors.InvalidRequest)


@pytest.mark.parametrize(
    "kind", [errors.NotFound, errors.Conflict, errors.StoreDamaged], ids=lambda kind: kind.__name__
)
def test_a_base_class_of_errors_has_a_status(kind):
    assert asked(kind("mouse")).json["detail"] == "mouse"


def test_a_new_kind_of_error_takes_the_status_of_its_parent():
    class Vanished(errors.ProjectNotFound):
        pass

    assert problems.status_for(Vanished) == 404


@pytest.mark.parametrize("code", default_exceptions)
def test_every_http_exception_is_a_problem(code):
    reply = asked(default_exceptions[code]())
    assert reply.status_code == code
    assert reply.json.keys() == KEYS


@pytest.mark.parametrize("code", sorted(default_exceptions.keys() - {404}))
def test_the_text_of_an_exception_is_the_detail(code):
    reply = asked(default_exceptions[code](description="mind the gap"))
    assert reply.json["detail"] == "mind the gap"


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (MethodNotAllowed(["POST", "PUT"]), "Allow", "POST, PUT"),
        (TooManyRequests(retry_after=7), "Retry-After", "7"),
        (ServiceUnavailable(retry_after=7), "Retry-After", "7"),
        (TooManyRequests(), "Retry-After", "1"),
        (ServiceUnavailable(), "Retry-After", "1"),
        (errors.StoreBusy("cats"), "Retry-After", "1"),
        (Unauthorized(www_authenticate=WWWAuthenticate("bearer")), "WWW-Authenticate", "Bearer"),
        (RequestedRangeNotSatisfiable(9), "Content-Range", "bytes */9"),
    ],
)
def test_headers_that_belong_to_an_error_stay(error, name, value):
    assert asked(error).headers.getlist(name) == [value]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_a_405_lists_the_allowed_methods(method):
    reply = raiser(ZeroDivisionError()).open("/", method=method)
    assert_problem(reply)
    assert reply.status_code == 405
    assert set(reply.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert reply.json["detail"] == f"{method} is not allowed here; use GET, HEAD, OPTIONS"


def test_a_wrong_address_is_named_and_cut():
    reply = raiser(ZeroDivisionError()).get("/" + "a" * 10_000)
    assert_problem(reply)
    assert len(reply.data) < 500


def test_the_reply_to_head_has_no_body():
    reply = raiser(NotFound()).head("/")
    assert (reply.status_code, reply.data) == (404, b"")


def test_a_redirect_is_left_alone():
    app = Flask(__name__)
    request_log.register(app)
    problems.register(app, routes.OPERATIONS, routes.problem_page)
    app.add_url_rule("/a/", view_func=lambda: "a")
    app.add_url_rule("/b", endpoint="b", view_func=lambda: abort(app.make_response(("mine", 299))))
    client = app.test_client()
    assert client.get("/a").status_code == 308
    assert (client.get("/b").status_code, client.get("/b").text) == (299, "mine")


# Bugs.


@pytest.mark.parametrize(
    "bug",
    [
        ZeroDivisionError(MESSAGE),
        KeyError(MESSAGE),
        OSError(5, MESSAGE, MESSAGE),
        MemoryError(MESSAGE),
        Exception(MESSAGE),
    ],
    ids=lambda bug: type(bug).__name__,
)
@pytest.mark.parametrize("testing", [False, True])
def test_a_bug_keeps_its_message_to_the_log(bug, testing, caplog):
    client = raiser(bug)
    client.application.testing = testing
    reply = client.get("/", headers={"X-Request-ID": "mine"})
    assert_problem(reply)
    assert reply.status_code == 500
    assert MESSAGE not in reply.text
    assert MESSAGE not in str(reply.headers)
    assert reply.json["request_id"] == "mine"
    (record,) = [record for record in caplog.records if record.name == "service.http.problems"]
    assert MESSAGE in str(record.exc_info[1])
    assert "mine" in record.getMessage()


def test_a_damaged_file_is_a_fault_of_the_service_and_logged(caplog):
    assert asked(errors.StoreDamaged("a file cannot be read")).status_code == 500
    assert "a file cannot be read" in caplog.text


@pytest.mark.parametrize("status", [404, 409, 422])
def test_a_callers_mistake_is_not_logged_as_an_error(status, caplog):
    kind = {404: errors.NotFound, 409: errors.Conflict, 422: errors.FitFailed}[status]
    assert asked(kind("mouse")).status_code == status
    assert "mouse" not in caplog.text


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.TooBusy(2), "WARNING"),
        (errors.StoreBusy("cats"), "WARNING"),
        (errors.StoreReadOnly("mouse"), "ERROR"),
        (errors.StoreFull("mouse"), "ERROR"),
    ],
)
def test_overload_is_logged_as_a_warning(error, level, caplog):
    caplog.set_level(logging.INFO, "service")
    assert asked(error).status_code in (503, 507)
    assert [record.levelname for record in caplog.records if record.name == "service.http.problems"] == [level]


# Wrong fields.


def wrong_fields(number):
    return [errors.FieldError(f"/X/{position}", "must be a number") for position in range(number)]


@pytest.mark.parametrize("number", [1, MAX_ERRORS - 1, MAX_ERRORS])
def test_a_few_wrong_fields_are_all_listed(number):
    body = asked(errors.InvalidRequest(wrong_fields(number))).json
    assert [error["pointer"] for error in body["errors"]] == [f"/X/{position}" for position in range(number)]
    assert body["detail"] == "/X/0: must be a number"


@pytest.mark.parametrize("more", [1, 480, 10**5])
def test_of_many_wrong_fields_the_first_are_listed_and_the_others_counted(more):
    reply = asked(errors.InvalidRequest(wrong_fields(MAX_ERRORS + more)))
    assert len(reply.json["errors"]) == MAX_ERRORS
    assert reply.json["detail"].endswith(f"(and at least {more} more wrong fields)")
    assert len(reply.data) < 10_000


def test_the_document_itself_can_be_wrong():
    body = asked(errors.InvalidRequest.at("", "must be an object")).json
    assert body["detail"] == "the request: must be an object"
    assert body["errors"] == [{"pointer": "", "detail": "must be an object"}]


@pytest.mark.parametrize(
    ("messages", "pointers"),
    [
        ({"X": ["bad"]}, ["/X"]),
        ({"X": ["bad", "worse"]}, ["/X", "/X"]),
        ({"X": {0: {1: ["bad"]}, 10: ["bad"], 2: ["bad"]}}, ["/X/0/1", "/X/2", "/X/10"]),
        ({"b": ["bad"], "a": ["bad"]}, ["/a", "/b"]),
        ({"a/b": ["bad"], "~": {"": ["bad"]}}, ["/a~1b", "/~0/"]),
        ({"_schema": ["bad"]}, ["/_schema"]),
        ({"a" * 10_000: ["bad"]}, ["/" + "a" * 64]),
        (["bad"], [""]),
    ],
)
def test_errors_of_marshmallow_become_pointers(messages, pointers):
    assert [error.pointer for error in problems.flatten(messages)] == pointers
    body = asked(ValidationError(messages)).json
    assert body["status"] == 422
    assert [error["pointer"] for error in body["errors"]] == pointers


def test_the_order_of_unknown_fields_is_always_the_same():
    class Empty(Schema):
        a = fields.Integer()

    with pytest.raises(ValidationError) as caught:
        Empty().load(dict.fromkeys("zyxwvutsrq", 1))
    assert [error.pointer for error in problems.flatten(caught.value.messages)] == [f"/{name}" for name in "qrstuvwxyz"]


# Request ids.


@pytest.mark.parametrize("name", CALLERS_IDS)
def test_the_callers_request_id_is_kept(name):
    assert asked(NotFound(), headers={"X-Request-ID": name}).json["request_id"] == name


@pytest.mark.parametrize("name", EVIL_IDS, ids=lambda name: repr(name[:9]))
def test_an_evil_request_id_is_replaced(name):
    environ = {"HTTP_X_REQUEST_ID": name.encode().decode("latin-1")}
    assert re.fullmatch("[0-9a-f]{32}", asked(NotFound(), environ_overrides=environ).json["request_id"])


@pytest.mark.parametrize("name", ["a\n", "a\nX-Evil: 1", "a\r\nX-Evil: 1", "\0", "a\x1b[31m"], ids=repr)
def test_a_request_id_cannot_break_a_line(name):
    reply = asked(NotFound(), environ_overrides={"HTTP_X_REQUEST_ID": name})
    assert re.fullmatch("[0-9a-f]{32}", reply.json["request_id"])
    assert "X-Evil" not in reply.headers


def test_request_ids_differ():
    client = raiser(NotFound())
    assert client.get("/").json["request_id"] != client.get("/").json["request_id"]


def test_outside_of_a_request_there_is_no_id():
    assert request_log.current_request_id() == "-"


def test_every_http_exception_is_known():
    """werkzeug's table is complete: the tests above would miss an exception that is not in it."""
    own = {kind.code for kind in HTTPException.__subclasses__() if kind.__module__ == "werkzeug.exceptions"}
    assert {code for code in own if code} <= default_exceptions.keys()
