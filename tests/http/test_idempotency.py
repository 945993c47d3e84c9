"""Idempotency-Key: a repeated request gets the same reply and runs once, whatever happened in between."""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from service.domain.project import now
from service.errors import IdempotencyKeyInUse
from service.http.middleware.idempotency import HEADER, REPLAYED
from service.settings import Settings
from service.store.check import check_project
from service.store.idempotency import RETENTION_SECONDS, Replies, StoredReply, lock
from tests.support.calls import end_labels, get, line_pool, post

PROBLEM = "application/problem+json"
APPENDED = {"X": [[50, 1], [51, 1]], "y": [1, None]}


@pytest.fixture
def made(client: FlaskClient) -> FlaskClient:
    """A client of an application with project p, whose model was fitted to two labels."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return client


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    """The directory of stored replies."""
    return tmp_path / "data/replies"


def send(client: FlaskClient, path: str, body: Any, key: str | None = "k", **headers: str) -> TestResponse:
    given = headers | ({HEADER: key} if key is not None else {})
    if isinstance(body, bytes):
        return client.post(path, data=body, headers=given)
    return client.post(path, json=body, headers=given)


def append(client: FlaskClient, key: str | None = "k", body: Any = APPENDED, **headers: str) -> TestResponse:
    return send(client, "/projects/p/pool", body, key, **headers)


def n_samples(client: FlaskClient) -> int:
    return int(get(client, "/projects/p")["n_samples"])


LINES = {"Content-Type": "application/x-ndjson"}
ZIP = {"Content-Type": "application/zip"}
NEW = {"project_id": "q", "estimator": "logistic_regression", "X": line_pool(), "y": end_labels()}

Request = Callable[[FlaskClient, bytes], TestResponse]
"""POST requests of a client with an archive of project p."""

REQUESTS: dict[str, Request] = {
    "create": lambda client, _: send(client, "/fit", NEW),
    "fit": lambda client, _: send(client, "/fit", {"project_id": "p", "random_state": 3}),
    "replace": lambda client, _: send(client, "/fit", {"project_id": "p", "X": line_pool(4), "replace": True}),
    "create, fit later": lambda client, _: send(client, "/fit", NEW, Prefer="respond-async"),
    "label": lambda client, _: send(client, "/label", {"project_id": "p", "labels": [{"index": 5, "label": 0}]}),
    "append": lambda client, _: append(client),
    "append lines": lambda client, _: append(client, body=b'{"x": [50, 1]}\n', **LINES),
    "import": lambda client, archive: send(client, "/projects/import?project_id=q", archive, **ZIP),
}
STATUS = {"create": 201, "create, fit later": 202, "import": 201}


def shown(response: TestResponse) -> tuple[Any, ...]:
    """A reply without the request id."""
    told = {name: value for name, value in response.headers.items() if name not in (REPLAYED, "X-Request-ID")}
    return response.status_code, told, response.data


def changes(client: FlaskClient) -> list[Any]:
    """The events of the projects, except background fits."""
    events = [event for name in "pq" for event in client.get(f"/projects/{name}/events").json.get("events", ())]
    return [event for event in events if event["kind"] != "fit" or "request" in event["details"]]


def restarted(tmp_path: Path) -> FlaskClient:
    """A client of another process over the same directory."""
    return create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()


@pytest.mark.parametrize("name", [*REQUESTS, "query"])
def test_a_repeated_request_gets_the_same_reply_and_runs_once(made: FlaskClient, tmp_path: Path, name: str) -> None:
    archive = made.get("/projects/p/export").data
    ask = REQUESTS.get(name, lambda client, _: send(client, "/query", {"project_id": "p", "batch_size": 3}))
    first = ask(made, archive)
    assert (first.status_code, REPLAYED in first.headers) == (STATUS.get(name, 200), False)
    done = changes(made)
    for client in (made, restarted(tmp_path)):
        again = ask(client, archive)
        assert shown(again) == shown(first)
        assert again.headers[REPLAYED] == "true"
    assert changes(made) == done


def test_a_repeated_request_does_not_undo_later_changes(made: FlaskClient) -> None:
    first = REQUESTS["label"](made, b"")
    post(made, "/label", project_id="p", labels=[{"index": 5, "label": 1}])
    assert shown(REQUESTS["label"](made, b"")) == shown(first)
    (record,) = [record for record in get(made, "/projects/p/labels")["labels"] if record["index"] == 5]
    assert record["label"] == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda client: append(client, body=APPENDED | {"y": [0, None]}),
        lambda client: append(
            client, body=b'{"X": [[50, 1], [51, 1]], "y": [1, null] }', **{"Content-Type": "application/json"}
        ),
        lambda client: append(client, body=b""),
        lambda client: append(client, Accept="text/csv"),
        lambda client: append(client, Prefer="respond-async"),
        lambda client: append(client, **{"If-Match": "*"}),
        lambda client: send(client, "/query", APPENDED),
        lambda client: send(client, "/projects/p/pool?a=1", APPENDED),
        lambda client: send(client, "/projects/q/pool", APPENDED),
    ],
    ids=["label", "space", "nothing", "Accept", "Prefer", "If-Match", "path", "query", "project"],
)
def test_another_request_under_the_same_key_is_refused(
    made: FlaskClient, other: Callable[[FlaskClient], TestResponse]
) -> None:
    append(made)
    problem = other(made)
    assert (problem.status_code, problem.mimetype) == (422, PROBLEM)
    assert problem.json["errors"][0]["pointer"] in (f"/headers/{HEADER}", "/query/a")
    assert n_samples(made) == 22


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "é", "x" * 256, "\x7f"])
def test_an_invalid_key_is_refused(made: FlaskClient, key: str) -> None:
    problem = append(made, key)
    assert (problem.status_code, problem.json["errors"][0]["pointer"]) == (422, f"/headers/{HEADER}")
    assert n_samples(made) == 20


@pytest.mark.parametrize("key", ["~", "x" * 255, "../../state", '"quoted"', "a,b"])
def test_any_visible_ascii_key_is_accepted(made: FlaskClient, replies: Path, key: str) -> None:
    assert [REPLAYED in append(made, key).headers for _ in range(2)] == [False, True]
    assert len(list(replies.iterdir())) == 1
    assert n_samples(made) == 22


def test_without_a_key_nothing_is_kept(made: FlaskClient, replies: Path) -> None:
    for _ in range(2):
        assert append(made, None).status_code == 200
    assert (list(replies.iterdir()), n_samples(made)) == ([], 24)


def test_a_refusal_is_not_kept(client: FlaskClient) -> None:
    """The same request succeeds as soon as it can."""
    assert append(client).status_code == 404
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    assert append(client, body={"X": [[1]]}).status_code == 422
    assert append(client, body=b"{", **{"Content-Type": "application/json"}).status_code == 400
    assert append(client, **{"If-Match": '"x"'}).status_code == 412
    response = append(client)
    assert (response.status_code, REPLAYED in response.headers, n_samples(client)) == (200, False, 22)


def test_a_key_of_a_running_request_is_refused(made: FlaskClient, replies: Path) -> None:
    append(made)
    (path,) = replies.iterdir()
    path.write_bytes(b"")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        problem = append(made)
    assert (problem.status_code, problem.mimetype, problem.headers["Retry-After"]) == (409, PROBLEM, "1")
    assert append(made).status_code == 200


def test_keys_belong_to_their_callers(tmp_path: Path) -> None:
    tokens = {"ada": new_token(), "bob": new_token()}
    for name, token in tokens.items():
        change_keys(tmp_path / "keys", lambda keys: keys.with_key(new_key(token, name, "admin", ["*"], None)))  # noqa: B023
    client = create_app(
        Settings(data_dir=tmp_path / "data", api_keys_file=tmp_path / "keys", log_level="error")
    ).test_client()
    as_ = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    assert client.post("/fit", json={"project_id": "p", "X": line_pool()}, headers=as_["ada"]).status_code == 201
    replayed = [REPLAYED in append(client, **as_[name]).headers for name in ("ada", "bob", "ada", "bob")]
    assert replayed == [False, False, True, True]
    assert append(client).status_code == 401
    change_keys(tmp_path / "keys", lambda keys: keys.without_key("bob"))
    assert append(client, **as_["bob"]).status_code == 401
    # After a change of role the stored reply is not sent.
    change_keys(tmp_path / "keys", lambda keys: keys.with_key(new_key(tokens["bob"], "bob", "admin", ["p"], None)))
    assert append(client, **as_["bob"]).status_code == 422


# Lost replies.


class Gone(BaseException):
    """The process is."""


def lose_reply(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let a process die after its commit and before the reply is stored."""

    def die(*_: object) -> None:
        raise Gone

    with monkeypatch.context() as patches, pytest.raises(Gone):
        patches.setattr("service.http.middleware.idempotency.keep_reply", die)
        act()


@pytest.mark.parametrize("tail", [2**16, 0], ids=["in the state", "in the log"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_runs_once_although_its_reply_was_lost(
    made: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, tail: int
) -> None:
    monkeypatch.setattr("service.store.events.TAIL_BYTES", tail)
    archive = made.get("/projects/p/export").data
    lose_reply(monkeypatch, lambda: REQUESTS[name](made, archive))
    done = changes(made)
    assert ["request" in event["details"] for event in done].count(True) == 1
    first, second = (REQUESTS[name](restarted(tmp_path), archive) for _ in range(2))
    # The fit that was to follow may be done by now.
    assert first.status_code in (STATUS.get(name, 200), 201 if name == "create, fit later" else None), first.data
    assert shown(second) == shown(first)
    assert second.headers[REPLAYED] == "true"
    assert changes(made) == done


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_runs_once_although_its_reply_was_removed(made: FlaskClient, replies: Path, name: str) -> None:
    archive = made.get("/projects/p/export").data
    REQUESTS[name](made, archive)
    done = changes(made)
    for path in replies.iterdir():
        path.unlink()
    assert REQUESTS[name](made, archive).status_code in (STATUS.get(name, 200), 201 if "create" in name else None)
    assert changes(made) == done


def test_a_repeated_label_does_not_replace_a_later_one(made: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_reply(monkeypatch, lambda: REQUESTS["label"](made, b""))
    post(made, "/label", project_id="p", labels=[{"index": 5, "label": 1}, {"index": 6, "label": 1}])
    reply = REQUESTS["label"](made, b"").json
    assert (reply["n_accepted"], reply["n_changed"], reply["n_labeled"]) == (1, 1, 4)
    assert [record["label"] for record in get(made, "/projects/p/labels")["labels"]] == [0, 1, 1, 1]


def test_a_repeated_request_does_not_fail_its_own_precondition(
    made: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = {"If-Match": made.get("/projects/p").headers["ETag"]}
    lose_reply(monkeypatch, lambda: append(made, **condition))
    assert [append(made, **condition).status_code, append(made, "other", **condition).status_code] == [200, 412]
    assert n_samples(made) == 22


def test_another_request_is_refused_although_the_first_reply_was_lost(
    made: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_reply(monkeypatch, lambda: append(made))
    problem = append(made, body={"X": [[1, 1]]})
    assert (problem.status_code, problem.json["errors"][0]["pointer"]) == (422, f"/headers/{HEADER}")
    assert (append(made).status_code, n_samples(made)) == (200, 22)


def test_an_annotator_name_cannot_forge_a_fingerprint(made: FlaskClient, replies: Path) -> None:
    """Knowing a fingerprint, from the events of another project, does not help to forge one."""
    append(made)
    (path,) = replies.iterdir()
    path.write_bytes(b"")
    forged = f'","request":"{changes(made)[-1]["details"]["request"]}'
    made.delete("/projects/p")
    post(made, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(made, "/label", project_id="p", labels=[{"index": 3, "label": 0, "annotator": forged}])
    assert (append(made).status_code, n_samples(made)) == (200, 22)


# Faults and crashes at each file operation.


class Faults:
    """Makes the nth file operation fail, or that one and all that follow."""

    OPERATIONS = (
        (os, "open"),
        (os, "fsync"),
        (os, "utime"),
        (os, "mkdir"),
        (os, "rename"),
        (os, "unlink"),
        (io, "open"),
    )

    def __init__(self, patches: pytest.MonkeyPatch, fault: BaseException, nth: int, *, lasting: bool) -> None:
        self.fault, self.nth, self.lasting, self.count = fault, nth, lasting, 0
        for module, name in self.OPERATIONS:
            patches.setattr(module, name, self.failing(getattr(module, name)))

    def failing(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def fail_or_do(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.nth or (self.lasting and self.count > self.nth):
                raise self.fault
            return operation(*arguments, **options)

        return fail_or_do


@pytest.mark.parametrize(
    ("fault", "lasting"),
    [
        pytest.param(OSError(errno.EIO, "EIO"), False, id="EIO once"),
        pytest.param(OSError(errno.ENOSPC, "ENOSPC"), True, id="ENOSPC from then on"),
        pytest.param(Gone(), True, id="dead from then on"),
    ],
)
def test_a_fault_at_any_file_operation_repeats_nothing(
    made: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: BaseException, lasting: bool
) -> None:
    n_first = 0
    for nth in itertools.count(1):
        with monkeypatch.context() as patches:
            faults = Faults(patches, fault, nth, lasting=lasting)
            with suppress(Gone):
                n_first += append(made, f"key-{nth}").status_code == 200
        first, second = (append(made, f"key-{nth}") for _ in range(2))
        assert (first.status_code, shown(second)) == (200, shown(first))
        assert (second.headers[REPLAYED], n_samples(made)) == ("true", 20 + 2 * nth)
        if faults.count < nth:
            break
    assert nth > 15
    assert n_first >= 1  # when no operation failed
    assert check_project(tmp_path / "data/projects/p") == []


def test_a_request_succeeds_although_its_reply_cannot_be_stored(
    made: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patches:
        patches.setattr("service.store.idempotency.fsync_file", fail)
        first = append(made)
    second = append(made)
    assert (first.status_code, shown(second)) == (200, shown(first))
    assert (second.headers[REPLAYED], n_samples(made)) == ("true", 22)


@pytest.mark.parametrize("cut", [0, 1, 100, -1, None])
def test_a_damaged_reply_is_not_replayed(made: FlaskClient, replies: Path, cut: int | None) -> None:
    first = append(made)
    (path,) = replies.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"200", b"201", 1) if cut is None else whole[:cut])
    again = append(made)
    assert (shown(again), REPLAYED in again.headers, n_samples(made)) == (shown(first), False, 22)
    assert path.read_bytes() == whole


# Which replies are stored, and for how long.


REPLY = StoredReply("request", 200, (("Content-Type", "text/plain"),), b"body")


def kept(replies: Replies, key: str, reply: StoredReply = REPLY) -> bool:
    """Store a reply unless there is one, and return whether there was."""
    with replies.claim(key) as claim:
        if claim.reply is None:
            claim.store(reply)
        return claim.reply is not None


@pytest.fixture
def keeper(tmp_path: Path) -> Replies:
    """A store of four replies at most."""
    (tmp_path / "replies").mkdir()
    return Replies(tmp_path / "replies", 4 * 4096)


def grow_old(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_reply_is_kept_for_a_day(keeper: Replies) -> None:
    for age, is_kept in ((RETENTION_SECONDS - 60, True), (RETENTION_SECONDS + 60, False)):
        kept(keeper, "k")
        grow_old(keeper.root / "k", age)
        assert kept(keeper, "k") is is_kept
    for age, n_files in ((RETENTION_SECONDS - 60, 1), (RETENTION_SECONDS + 60, 0)):
        grow_old(keeper.root / "k", age)
        keeper.sweep()
        assert len(list(keeper.root.iterdir())) == n_files


def test_an_expired_reply_stays_expired(keeper: Replies) -> None:
    roomy = Replies(keeper.root, 2**20)
    kept(roomy, "k")
    grow_old(roomy.root / "k", RETENTION_SECONDS + 60)
    for _ in range(2):
        with roomy.claim("k") as claim:
            assert claim.reply is None


def test_an_expired_key_may_be_used_for_another_request(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patches:
        for module in ("domain.project", "usecases.fit"):
            patches.setattr(f"service.{module}.now", lambda: now() - (RETENTION_SECONDS + 60) * 10**6)
        post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
        append(client)
    (path,) = (tmp_path / "data/replies").iterdir()
    grow_old(path, RETENTION_SECONDS + 60)
    # The key now belongs to another request, which is sent twice.
    assert append(client, body={"X": [[1]]}).status_code == 422
    assert (append(client, body={"X": [[1, 1]]}).status_code, n_samples(client)) == (200, 23)


def test_an_expired_key_that_is_in_use_is_refused(keeper: Replies) -> None:
    roomy = Replies(keeper.root, 2**20)
    kept(roomy, "k")
    grow_old(roomy.root / "k", RETENTION_SECONDS + 60)
    with roomy.claim("k"), pytest.raises(IdempotencyKeyInUse), roomy.claim("k"):
        pytest.fail("it is in use")


def test_the_oldest_replies_are_removed_first(keeper: Replies) -> None:
    for n in range(6):
        kept(keeper, str(n))
        grow_old(keeper.root / str(n), 60 - n)
    keeper.sweep()
    assert sorted(path.name for path in keeper.root.iterdir()) == ["2", "3", "4", "5"]
    kept(keeper, "large", replace(REPLY, body=bytes(3 * 4096)))
    keeper.sweep()
    assert sorted(path.name for path in keeper.root.iterdir()) == ["large"]


def test_replies_are_swept_between_requests(keeper: Replies) -> None:
    for n in range(40):
        kept(keeper, str(n))
    assert len(list(keeper.root.iterdir())) <= 5


def test_replies_are_swept_between_refused_requests(keeper: Replies) -> None:
    for n in range(40):
        with suppress(ValueError), keeper.claim(str(n)):
            raise ValueError
    assert len(list(keeper.root.iterdir())) <= 5


def test_a_key_in_use_is_neither_swept_nor_claimed_again(keeper: Replies) -> None:
    with keeper.claim("k"):
        grow_old(keeper.root / "k", RETENTION_SECONDS + 60)
        keeper.sweep()
        with pytest.raises(IdempotencyKeyInUse), keeper.claim("k"):
            pytest.fail("it is in use")
    assert kept(keeper, "k") is False


def test_a_key_swept_while_it_is_opened_is_created_again(keeper: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    first = iter([True])

    def swept_first(file: BinaryIO) -> bool:
        if next(first, False):
            (keeper.root / "k").unlink()
        return lock(file)

    monkeypatch.setattr("service.store.idempotency.lock", swept_first)
    kept(keeper, "k")
    assert kept(keeper, "k") is True


def test_replies_are_readable_only_by_the_owner(made: FlaskClient, replies: Path) -> None:
    append(made)
    (path,) = replies.iterdir()
    assert [oct(each.stat().st_mode & 0o777) for each in (replies, path)] == ["0o700", "0o600"]


# Leases and archives.


def test_a_repeated_query_makes_one_lease(made: FlaskClient) -> None:
    question = {"project_id": "p", "annotator": "ada", "lease_seconds": 60, "batch_size": 2}
    first, again = (send(made, "/query", question) for _ in range(2))
    assert shown(again) == shown(first)
    assert [lease["query_id"] for lease in get(made, "/projects/p/leases")["leases"]] == [first.json["query_id"]]
    renew = f"/projects/p/leases/{first.json['query_id']}/renew"
    renewed, replayed = (send(made, renew, {}, "renew") for _ in range(2))
    assert shown(replayed) == shown(renewed)


def test_a_reply_with_retry_after_is_not_stored(made: FlaskClient) -> None:
    post(made, "/query", project_id="p", annotator="ada", lease_seconds=60, batch_size=18)
    question = {"project_id": "p", "annotator": "bob", "lease_seconds": 60}
    nothing = send(made, "/query", question)
    assert (nothing.json["indices"], "Retry-After" in nothing.headers) == ([], True)
    (lease,) = get(made, "/projects/p/leases")["leases"]
    made.delete(f"/projects/p/leases/{lease['query_id']}")
    assert len(send(made, "/query", question).json["indices"]) == 1


def test_fingerprints_are_exported_with_their_events(made: FlaskClient) -> None:
    append(made)
    done = changes(made)[-1]["details"]["request"]
    archive = made.get("/projects/p/export").data
    assert send(made, "/projects/import?project_id=q", archive, "import", **ZIP).status_code == 201
    marks = [event["details"].get("request") for event in get(made, "/projects/q/events")["events"]]
    assert marks[1] == done
    assert marks[2] not in (None, done)
