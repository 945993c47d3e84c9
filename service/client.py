"""A client of the service, for programs and tools. Needs only the standard library and numpy.

client = Client("http://127.0.0.1:8000")
client.fit("digits", X, y)
for batch in client.batches("digits", 20):
    client.label("digits", {index: ask(index) for index in batch.indices}, query_id=batch.query_id)
"""

from __future__ import annotations

import http.client
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np

Label = str | int | bool
JsonObject = dict[str, Any]
Piece = bytes | Path
"""Bytes of a body, or a file that holds them."""

Sent = Callable[[int], None]
"""A function that is called with the number of bytes of a body that were sent so far."""

JSON = "application/json"
MEDIA_TYPES = {
    ".arrow": "application/vnd.apache.arrow.file",
    ".arrows": "application/vnd.apache.arrow.stream",
    ".csv": "text/csv",
    ".json": JSON,
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".parquet": "application/vnd.apache.parquet",
}
"""Media types of the files that can be sent, by the ends of their names."""

PARTS = (
    "X",
    "texts",
    "y",
    "ids",
    "urls",
    "X_test",
    "y_test",
    "probabilities",
    "member_probabilities",
    "member_predictions",
)
"""The fields that a form has a part for; the others are in its part `config`."""

BUSY = (429, 502, 503, 504)
"""Statuses after which the same request may succeed."""

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
PIECE_BYTES = 2**20

WHOLE_BODIES = (".csv", ".jsonl", ".ndjson")
"""Ends of the names of tables that are sent as they are, with the other fields in the query string."""


class ServiceError(Exception):
    """The service refused a request or does not answer.

    `status` is that of the reply, None without one; `errors` are the wrong fields, each with `pointer` and `detail`.
    """

    def __init__(self, message: str, status: int | None = None, errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.status, self.errors = status, tuple(errors)


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples to label next: their positions in the pool, most useful first, and their ids if the pool has any.

    `reply` is the whole reply to `POST /query`.
    """

    query_id: str
    indices: list[int]
    ids: list[str | int] | None
    reply: JsonObject


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and the file to which the body of its reply is written, None to keep it in memory."""

    method: str
    path: str
    body: list[Piece]
    headers: Mapping[str, str]
    to: IO[bytes] | None

    def may_repeat(self, error: Exception) -> bool:
        """Return whether the request may be sent again after an error.

        A DELETE may only if it did not arrive. What was written of a reply, perhaps to a pipe, cannot be taken back.
        """
        has_begun = self.to is not None and (not self.to.seekable() or self.to.tell() > 0)
        return not has_begun and (self.method != "DELETE" or isinstance(error, ConnectionRefusedError))


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its status, its headers and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """The seconds after which the service asks for another request; None if it does not ask."""
        value = self.headers.get("Retry-After", "")
        return float(value) if value.isdigit() else None


class Client:
    """A service at a URL. Thread-safe; `key` is the token of an API key, if the service requires one.

    A request is sent again, up to `retries` times, if the service is busy or does not answer. A POST that changes
    something has an `Idempotency-Key`, so it is done once. Every method raises ServiceError.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 60.0, retries: int = 4) -> None:
        self.url = urlsplit(url.rstrip("/"))
        self.timeout, self.retries = timeout, retries
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if self.url.scheme not in ("http", "https"):
            raise ServiceError(f"{url!r} is not a URL: it must start with http:// or https://")

    def watch(self, n_bytes: int) -> AbstractContextManager[Sent]:
        """Return a context for waiting: for the reply to a request with a body of `n_bytes`, or until the next try.

        It yields a function that is called with the number of bytes that were sent so far. A subclass may override this
        to show progress.
        """
        return nullcontext(lambda _: None)

    def fit(self, project_id: str, X: Any = None, y: Any = None, **fields: Any) -> JsonObject:
        """Create a project, or train it again, and return it.

        `X` and the other arrays of `POST /fit` are numpy arrays, lists, or paths of files such as `pool.parquet`. An
        array and a file are sent in their own format, a list as JSON. `fields` are the other fields, such as
        `estimator`.
        """
        given = {"X": X, "y": y, **fields}
        values = {name: value for name, value in given.items() if value is not None}
        return self._send_arrays("/fit", {"project_id": project_id, **values})

    def fit_table(
        self, project_id: str, table: Path, columns: Mapping[str, Any] | None = None, **fields: Any
    ) -> JsonObject:
        """Create a project of a file with a sample in each row: CSV, JSON lines, Arrow or Parquet. Return the project.

        `columns` says what the columns are, as in `POST /fit`: `id`, `label`, `text`, `url`, `features`. The file is
        sent as it is read, and never held in memory.
        """
        return self._send_table("/fit", table, {"project_id": project_id, **with_columns(columns), **fields})

    def append_table(
        self, project_id: str, table: Path, columns: Mapping[str, Any] | None = None, **fields: Any
    ) -> JsonObject:
        """Append the samples of a file to a pool, given as for `fit_table`, and return the project."""
        return self._send_table(f"{path_of(project_id)}/pool", table, {**with_columns(columns), **fields})

    def append(self, project_id: str, X: Any = None, **fields: Any) -> JsonObject:
        """Append samples to the pool of a project, and return the project. Arrays are given as for `fit`."""
        return self._send_arrays(f"{path_of(project_id)}/pool", fields if X is None else {"X": X, **fields})

    def query(self, project_id: str | None = None, batch_size: int = 1, **fields: Any) -> Batch:
        """Return the samples to label next. `fields` are those of `POST /query`; arrays are given as for `fit`."""
        return self._query(project_id, batch_size, fields)[0]

    def batches(self, project_id: str, batch_size: int = 1, **fields: Any) -> Iterator[Batch]:
        """Yield one batch after the other until nothing is left to ask.

        The samples of a batch must be labelled or skipped before the next one. While the rest is leased to other
        annotators, this waits for it.
        """
        while True:
            batch, reply = self._query(project_id, batch_size, fields)
            if batch.indices:
                yield batch
            elif reply.retry_after is None:
                return
            else:
                time.sleep(min(reply.retry_after, LONGEST_PAUSE_SECONDS))

    def label(
        self,
        project_id: str,
        labels: Mapping[Any, Label | None] | Sequence[Mapping[str, Any]],
        *,
        by: str = "index",
        annotator: str | None = None,
        query_id: str | None = None,
        refit: str = "wait",
    ) -> JsonObject:
        """Send labels, and return how many samples of the project are labelled and what its model scores.

        `labels` maps indices, or with `by="id"` ids, to labels, None = cannot be labelled; or it lists records of
        `POST /label`.
        """
        if isinstance(labels, Mapping):
            who = {} if annotator is None else {"annotator": annotator}
            records = [{by: sample, **answer(label), **who} for sample, label in labels.items()]
        else:
            records = [dict(record) for record in labels]
        body = {"project_id": project_id, "labels": records, "refit": refit}
        named = {} if query_id is None else {"query_id": query_id}
        reply: JsonObject = self.send("POST", "/label", {**body, **named})
        return reply

    def project(self, project_id: str) -> JsonObject:
        """Return a project."""
        project: JsonObject = self.send("GET", path_of(project_id))
        return project

    def projects(self) -> Iterator[JsonObject]:
        """Yield all projects that the key may access, in order of their names."""
        return self._pages("/projects", "projects", {})

    def samples(self, project_id: str, status: str | None = None, limit: int = 1_000) -> Iterator[JsonObject]:
        """Yield the samples of a project, or those of a status, such as `unlabeled`; `limit` is the size of a page."""
        chosen = {} if status is None else {"status": status}
        return self._pages(f"{path_of(project_id)}/samples", "samples", {"limit": limit, **chosen})

    def remove(self, project_id: str, indices: Sequence[int] = (), ids: Sequence[str | int] = ()) -> JsonObject:
        """Remove samples, so that they are not asked about or trained on, and return the new counts."""
        body = {"indices": list(indices), "ids": list(ids)}
        reply: JsonObject = self.send("DELETE", f"{path_of(project_id)}/samples", body)
        return reply

    def restore(self, project_id: str, indices: Sequence[int] = (), ids: Sequence[str | int] = ()) -> JsonObject:
        """Put removed samples back, with their labels, and return the new counts."""
        body = {"indices": list(indices), "ids": list(ids)}
        reply: JsonObject = self.send("POST", f"{path_of(project_id)}/samples/restore", body)
        return reply

    def retract(
        self,
        project_id: str,
        samples: Sequence[Any],
        *,
        by: str = "index",
        annotator: str | None = None,
        refit: str = "wait",
    ) -> JsonObject:
        """Take back an annotator's labels and skips of some samples, and return the new counts."""
        who = {} if annotator is None else {"annotator": annotator}
        records = [{by: sample, "label": None, **who} for sample in samples]
        return self.label(project_id, records, refit=refit)

    def events(self, project_id: str, after: int = 0) -> Iterator[JsonObject]:
        """Yield the events of a project after a version."""
        return self._pages(f"{path_of(project_id)}/events", "events", {"after": after})

    def report(self, project_id: str) -> JsonObject:
        """Return whether to go on labelling, why, and which labels are probably wrong."""
        report: JsonObject = self.send("GET", f"{path_of(project_id)}/report")
        return report

    def simulate(self, project_id: str | None = None, X: Any = None, y: Any = None, **fields: Any) -> JsonObject:
        """Start a simulation on the labels of a project, or on given ones, and return it; see `simulation`.

        `fields` are those of `POST /simulate`; arrays are given as for `fit`.
        """
        given = {"project_id": project_id, "X": X, "y": y, **fields}
        return self._send_arrays("/simulate", {name: value for name, value in given.items() if value is not None})

    def simulation(self, simulation_id: str) -> JsonObject:
        """Return a simulation: its status, its progress, and its result once it is done."""
        found: JsonObject = self.send("GET", f"/simulations/{quote(simulation_id, safe='')}")
        return found

    def release(self, project_id: str, query_id: str) -> None:
        """Release a lease. Samples of it that were labelled stay labelled."""
        self.send("DELETE", f"{path_of(project_id)}/leases/{quote(query_id, safe='')}")

    def renew(self, project_id: str, query_id: str) -> None:
        """Let a lease start again now."""
        self.send("POST", f"{path_of(project_id)}/leases/{quote(query_id, safe='')}/renew", {})

    def labels(self, project_id: str) -> list[JsonObject]:
        """Return all labels and skips of a project."""
        labels: list[JsonObject] = self.send("GET", f"{path_of(project_id)}/labels")["labels"]
        return labels

    def predictions(self, project_id: str, **parameters: Any) -> Iterator[JsonObject]:
        """Yield the predictions of a project's model; `parameters` are those of the page's address."""
        return self._pages(f"{path_of(project_id)}/predictions", "predictions", parameters)

    def download_predictions(
        self, project_id: str, file: IO[bytes], media_type: str = "text/csv", **parameters: Any
    ) -> None:
        """Write all predictions to a file as CSV, as Parquet, or as an `.npy` array of probabilities."""
        path = f"{path_of(project_id)}/predictions{query_string(parameters)}"
        self._request("GET", path, [], {"Accept": media_type}, to=file)

    def download(self, project_id: str, file: IO[bytes]) -> None:
        """Write an archive of a whole project to a file."""
        self._request("GET", f"{path_of(project_id)}/export", [], {}, to=file)

    def export(self, project_id: str) -> bytes:
        """Return an archive of a whole project."""
        return self._request("GET", f"{path_of(project_id)}/export", [], {}).body

    def import_archive(self, archive: Piece, project_id: str | None = None) -> JsonObject:
        """Import an archive, given as bytes or as the path of a file, and return the project."""
        name = {} if project_id is None else {"project_id": project_id}
        headers = {"Content-Type": "application/zip"}
        project: JsonObject = parsed(self._request("POST", f"/projects/import{query_string(name)}", [archive], headers))
        return project

    def delete(self, project_id: str) -> None:
        """Delete a project."""
        self.send("DELETE", path_of(project_id))

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a JSON document, or no body, and return the parsed reply, None if it has no body."""
        if body is None:
            return parsed(self._request(method, path, [], {}))
        return parsed(self._request(method, path, [json_bytes(body)], {"Content-Type": JSON}))

    def _query(self, project_id: str | None, batch_size: int, fields: Mapping[str, Any]) -> tuple[Batch, Reply]:
        named = {} if project_id is None else {"project_id": project_id}
        body, headers = body_of({**named, "batch_size": batch_size, **fields})
        reply = self._request("POST", "/query", body, headers, with_key="lease_seconds" in fields)
        found = parsed(reply)
        return Batch(found["query_id"], found["indices"], found["ids"], found), reply

    def _pages(self, path: str, name: str, parameters: JsonObject) -> Iterator[JsonObject]:
        """Yield the entries of all pages of a list."""
        while True:
            page = self.send("GET", f"{path}{query_string(parameters)}")
            yield from page[name]
            if page["next"] is None:
                return
            parameters = {**parameters, "after": page["next"]}

    def _send_table(self, path: str, table: Path, fields: JsonObject) -> JsonObject:
        if table.suffix not in WHOLE_BODIES:
            return self._send_arrays(path, {"X": table, **fields})
        address = f"{path}{query_string({'config': json.dumps(fields)})}"
        reply = self._request("POST", address, [table], {"Content-Type": MEDIA_TYPES[table.suffix]})
        project: JsonObject = parsed(reply)
        return project

    def _send_arrays(self, path: str, values: Mapping[str, Any]) -> JsonObject:
        project: JsonObject = parsed(self._request("POST", path, *body_of(values)))
        return project

    def _request(
        self,
        method: str,
        path: str,
        body: list[Piece],
        headers: Mapping[str, str],
        *,
        with_key: bool = True,
        to: IO[bytes] | None = None,
    ) -> Reply:
        """Send a request until it is answered, and return the reply; write its body to a file if one is given.

        Raises ServiceError.
        """
        headers = {**self._headers, **headers}
        if method == "POST" and with_key:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        if body:
            headers["Content-Length"] = str(length_of(body))
        request = Request(method, path, body, headers, to)
        pause = FIRST_PAUSE_SECONDS
        for n_left in range(self.retries, -1, -1):
            try:
                reply = self._send_once(request)
            except (OSError, http.client.HTTPException) as error:
                if not n_left or not request.may_repeat(error):
                    why = getattr(error, "strerror", None) or str(error) or repr(error)
                    raise ServiceError(f"{self.url.geturl()} does not answer: {why}") from error
                wait = None
            else:
                if reply.status < 400:
                    return reply
                # A 409 with Retry-After says that the first try is still running.
                if not n_left or not (reply.status in BUSY or (reply.status == 409 and reply.retry_after is not None)):
                    raise service_error(request, reply)
                wait = reply.retry_after
            with self.watch(0):
                time.sleep(min(pause if wait is None else wait, LONGEST_PAUSE_SECONDS))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _send_once(self, request: Request) -> Reply:
        secure = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        with closing(connect(self.url.netloc, timeout=self.timeout)) as connection:
            with self.watch(int(request.headers.get("Content-Length", 0))) as sent:
                body = chunks_of(request.body, sent) if request.body else None
                connection.request(request.method, self.url.path + request.path, body, request.headers)
                response = connection.getresponse()
            if request.to is None or response.status >= 400:
                return Reply(response.status, dict(response.headers), response.read())
            while piece := response.read(PIECE_BYTES):
                request.to.write(piece)
            return Reply(response.status, dict(response.headers), b"")


def answer(label: Label | None) -> JsonObject:
    """Return the label of a record, or its skip."""
    return {"skip": True} if label is None else {"label": label}


def with_columns(columns: Mapping[str, Any] | None) -> JsonObject:
    """Return the field `columns` of a request, if there are any."""
    return {"columns": dict(columns)} if columns else {}


def path_of(project_id: str) -> str:
    """Return the path of a project."""
    return f"/projects/{quote(project_id, safe='')}"


def query_string(parameters: Mapping[str, Any]) -> str:
    """Return parameters as the end of an address."""
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
    return f"?{urlencode(texts)}" if texts else ""


def body_of(values: Mapping[str, Any]) -> tuple[list[Piece], dict[str, str]]:
    """Return the body of a request and its headers: a form if a value is an array or a file, else JSON."""
    if not any(isinstance(value, np.ndarray | Path) for value in values.values()):
        return [json_bytes(dict(values))], {"Content-Type": JSON}
    boundary = uuid.uuid4().hex
    config = {name: value for name, value in values.items() if name not in PARTS}
    pieces: list[Piece] = [part_head(boundary, "config", JSON), json_bytes(config)]
    for name, value in values.items():
        if name in PARTS:
            media_type, content = part_of(value)
            pieces += [part_head(boundary, name, media_type), *content]
    return [*pieces, f"\r\n--{boundary}--\r\n".encode()], {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def part_of(value: Any) -> tuple[str, list[Piece]]:
    """Return the media type and the bytes of a part: a file, an array as .npy, or anything else as JSON."""
    if isinstance(value, Path):
        if value.suffix not in MEDIA_TYPES:
            raise ServiceError(f"{value} cannot be sent: its name must end in {', '.join(MEDIA_TYPES)}")
        return MEDIA_TYPES[value.suffix], [value]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        array, head = np.ascontiguousarray(value), io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
        return MEDIA_TYPES[".npy"], [head.getvalue(), array.tobytes()]
    return JSON, [json_bytes(value)]


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON; it may hold arrays and numbers of numpy."""
    return json.dumps(value, default=lambda array: array.tolist()).encode()


def part_head(boundary: str, name: str, media_type: str) -> bytes:
    """Return the beginning of a part of a form."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}"'
    return f"\r\n--{boundary}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode()


def length_of(body: list[Piece]) -> int:
    """Return the number of bytes of a body. Raises ServiceError for a file that cannot be read."""
    n_bytes = 0
    for piece in body:
        if isinstance(piece, bytes):
            n_bytes += len(piece)
            continue
        try:
            with piece.open("rb") as file:
                n_bytes += file.seek(0, io.SEEK_END)
        except OSError as error:
            raise ServiceError(f"{piece} cannot be read: {error.strerror}") from error
    return n_bytes


def chunks_of(body: list[Piece], sent: Sent) -> Iterator[bytes]:
    """Yield the bytes of a body, and call `sent` with the number of those that were sent."""
    n_sent = 0
    for piece in body:
        with io.BytesIO(piece) if isinstance(piece, bytes) else piece.open("rb") as file:
            while chunk := file.read(PIECE_BYTES):
                yield chunk
                n_sent += len(chunk)
                sent(n_sent)


def parsed(reply: Reply) -> Any:
    """Return the JSON of a reply, None if it has no body."""
    return json.loads(reply.body) if reply.body else None


def service_error(request: Request, reply: Reply) -> ServiceError:
    """Return the error for a reply, with the detail of its problem document."""
    reason = http.client.responses.get(reply.status, "")
    try:
        problem = json.loads(reply.body)
        detail, errors = str(problem["detail"]), problem.get("errors", ())
    except (ValueError, KeyError, TypeError):
        detail, errors = reply.body[:200].decode(errors="replace"), ()
    path = request.path.partition("?")[0]
    return ServiceError(f"{request.method} {path}: {reply.status} {reason}: {detail}", reply.status, errors)
