"""An import restores what was exported, and a foreign file becomes a complete project or none."""

from __future__ import annotations

import errno
import io
import itertools
import json
import tracemalloc
import zipfile
from contextlib import nullcontext, suppress
from functools import partial

import numpy as np
import pytest
from scipy import sparse

from service.app import create_app
from service.domain.events import replay
from service.errors import ProjectNotFound, StoreFull
from service.http.body.formats.archive import write_archive
from service.http.body.limits import Limits
from service.http.project_archive import archive_members, manifest, read_project
from service.settings import Settings
from service.store import Part, Store
from service.store.check import check_project
from service.store.events import line_of
from service.usecases.training import fit_if_due
from service.usecases.transfer import export_project, import_project
from tests.store.test_store import Faults, files_below, fit
from tests.support.calls import end_labels, get, line_pool, post, post_form

LIMITS = Limits(2**30, 2**25, 10**9)
IDS = [f"näme-{n}" for n in range(20)]


def label(client, *records):
    post(client, "/label", project_id="p", labels=list(records))


def make(client, low="low", high="high", *, ids=True, held_out=True, rows=None, estimator="gaussian_nb"):
    """Create a project of two segments, with votes of all kinds."""
    names = (lambda part: {"ids": part}) if ids else lambda part: {}
    test = {"X_test": rows or line_pool(4), "y_test": [low, low, high, high]} if held_out else {}
    body = {
        "project_id": "p",
        "X": line_pool(),
        "y": end_labels(low=low, high=high),
        "estimator": estimator,
        "random_state": 7,
    }
    post(client, "/fit", 201, **body, **names(IDS), **test)
    post(client, "/projects/p/pool", X=line_pool(3), y=[None, high, None], **names(["u", "v", "w"]))
    label(client, {"index": 5, "label": low, "annotator": "ada", "query_id": "q-1"}, {"index": 6, "skip": True})
    label(client, {"index": 5, "label": high, "annotator": "bob"}, {"index": 7, "label": low})


def export(client, name="p"):
    response = client.get(f"/projects/{name}/export")
    assert (response.status_code, response.mimetype) == (200, "application/zip")
    return response.data


def take_in(client, data, expect=201, name=None):
    query = {} if name is None else {"project_id": name}
    response = client.post("/projects/import", data=data, content_type="application/zip", query_string=query)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


STRATEGIES = ["auto", "random", "margin", "vote_entropy", "activelab"]


def everything(client, name):
    """The parts of a project that an export preserves, and the next query."""
    project = get(client, f"/projects/{name}")
    moved = ("project_id", "model_version", "updated_at")
    found = (post(client, "/query", project_id=name, strategy=strategy, batch_size=5) for strategy in STRATEGIES)
    return (
        {key: value for key, value in project.items() if key not in moved},
        get(client, f"/projects/{name}/labels"),
        [(result["indices"], result["ids"], result["scores"]) for result in found],
    )


def arrays(store, name):
    snapshot = store.read(name, Part.POOL, Part.HELD_OUT)
    pools = [*snapshot.pool.segments, *(snapshot.X_test.segments if snapshot.X_test else ())]
    return [(str(rows.dtype), np.asarray(rows).tolist()) for rows in pools]


@pytest.fixture
def other(tmp_path):
    """Another service."""
    return create_app(Settings(data_dir=tmp_path / "other", log_level="error"))


def store_of(app):
    return app.extensions["active-query"].store


@pytest.mark.parametrize(("low", "high"), [("low", "high"), (1, 0), (False, True)])
@pytest.mark.parametrize(("ids", "held_out"), [(True, True), (False, False)])
def test_a_project_that_moves_is_the_same(client, app, other, low, high, ids, held_out):
    make(client, low, high, ids=ids, held_out=held_out)
    before = everything(client, "p"), arrays(store_of(app), "p")
    there = other.test_client()
    take_in(there, export(client))
    assert (everything(there, "p"), arrays(store_of(other), "p")) == before
    assert check_project(store_of(other).directory("p")) == []


def test_a_member_whose_name_is_not_text_is_refused(client):
    make(client)
    data = export(client)
    at = data.rindex(b"events.log")  # in the list of members, at the end
    flags = data.rindex(b"PK\x01\x02", 0, at) + 8
    broken = data[: flags + 1] + b"\x08" + data[flags + 2 : at] + b"\xff" + data[at + 1 :]
    assert "not an archive" in take_in(client, broken, 422, "q")["detail"]


def test_a_project_without_labels_moves(client, other):
    post(client, "/fit", 201, project_id="p", X=line_pool())
    made = take_in(other.test_client(), export(client))
    assert (made["n_labeled"], made["model_version"], made["version"]) == (0, None, 1)


def test_a_sparse_project_moves(client, app, other):
    rows = sparse.random_array((30, 9), density=0.3, format="csr", rng=np.random.default_rng(1), dtype=np.float32)
    file = io.BytesIO()
    sparse.save_npz(file, rows)
    y = ["a", "b"] + [None] * 28
    parts = {"config": json.dumps({"project_id": "p", "estimator": "logistic_regression"}), "y": json.dumps(y)}
    data = {name: (io.BytesIO(text.encode()), name, "application/json") for name, text in parts.items()}
    file.seek(0)
    assert client.post("/fit", data=data | {"X": (file, "X.npz", "application/x-npz")}).status_code == 201
    take_in(other.test_client(), export(client))
    moved = store_of(other).read("p", Part.POOL).pool
    assert (moved.take(np.arange(30)) != rows).nnz == 0
    assert everything(other.test_client(), "p") == everything(client, "p")


@pytest.mark.parametrize("dtype", ["f2", "f4", "i1", "u8"])
def test_numbers_keep_their_type(client, other, dtype):
    post_form(client, config={"project_id": "p"}, X=np.arange(12).reshape(6, 2).astype(dtype))
    take_in(other.test_client(), export(client))
    assert arrays(store_of(other), "p") == [(str(np.dtype(dtype)), np.arange(12.0).reshape(6, 2).tolist())]


def test_the_events_move_and_go_on(client, other):
    make(client)
    before = get(client, "/projects/p/events")["events"]
    there = other.test_client()
    take_in(there, export(client))
    events = get(there, "/projects/p/events")["events"]
    assert events[: len(before)] == before
    assert [event["kind"] for event in events[len(before) :]] == ["import"]
    assert replay(events) == replay(before)


def test_a_copy_beside_the_project_is_another(client):
    make(client)
    data = export(client)
    assert "'p' exists" in take_in(client, data, 409)["detail"]
    assert "'p' exists" in take_in(client, b"", 409, name="p")["detail"]
    take_in(client, data, name="copy")
    label(client, {"index": 9, "label": "high"})
    before, labels, _ = everything(client, "copy")
    assert (before["n_labeled"], len(labels["labels"])) == (5, 7)
    assert everything(client, "p")[0]["n_labeled"] == 6


def test_a_project_whose_fit_fails_is_imported_with_the_reason(client, other):
    post(client, "/fit", 201, project_id="p", X=[[5.0, 5.0]] * 20, estimator="gaussian_nb")
    label(client, {"index": 0, "label": "a"}, {"index": 1, "label": "b"})
    made = take_in(other.test_client(), export(client))
    assert made["model_version"] is None
    assert made["fit"] == get(client, "/projects/p")["fit"]
    assert "gaussian_nb cannot learn from these numbers" in made["fit"]["last_error"]


def test_an_import_without_a_free_slot_is_fitted_later(client, tmp_path, store):
    make(client)
    path = tmp_path / "p.zip"
    path.write_bytes(export(client))
    with store.stage() as staging:
        request = read_project(path, "copy", LIMITS, staging)
        made = import_project(store, staging, request, lambda: nullcontext(False))
    assert (made.model, made.fit_is_wanted, made.version) == (None, True, get(client, "/projects/p")["version"])
    assert fit_if_due(store, "copy").model is not None


def test_an_imported_project_can_be_exported_again(client):
    make(client)
    take_in(client, export(client), name="copy")
    take_in(client, export(client, "copy"), name="again")
    assert everything(client, "again") == everything(client, "p")


def test_an_export_is_consistent_during_changes(store):
    fit(store)
    expected = b"".join(archive_of(store))
    pieces = archive_of(store)
    began = next(pieces)
    fit(store, X=np.zeros((4, 3)), y=None, names=None, held_out=False, replace=True)
    store.delete("p")
    assert began + b"".join(pieces) == expected


def archive_of(store, name="p"):
    snapshot = export_project(store, name)
    return write_archive(archive_members(snapshot), partial(manifest, snapshot))


def test_a_damaged_pool_is_not_exported(client, app):
    make(client)
    path = store_of(app).directory("p") / "pool/000001.joblib"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    reply = client.get("/projects/p/export")
    assert reply.status_code == 500
    assert "active-query check" in reply.get_json()["detail"]


def test_a_missing_project_cannot_be_exported(client):
    get(client, "/projects/p/export", 404)


def test_a_pool_is_never_in_memory(store, tmp_path):
    pool = np.zeros((200_000, 32), np.float32)
    fit(store, X=pool, y=("a", "b") + (None,) * 199_998, names=None, held_out=False)
    other = Store(tmp_path / "other")
    tracemalloc.start()
    with other.stage() as staging:
        path = staging.new_path()
        with path.open("wb") as file:
            file.writelines(archive_of(store))
        import_project(other, staging, read_project(path, None, LIMITS, staging))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 2**20 < pool.nbytes / 2
    assert other.read("p").project.n_samples == 200_000


# Foreign files.


def npy(values, dtype=None):
    file = io.BytesIO()
    np.save(file, np.array(values, dtype), allow_pickle=True)
    return file.getvalue()


def members_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, compression=zipfile.ZIP_STORED, extra=()):
    """Write an archive whose manifest matches its members, unless it is not JSON or given otherwise."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in (*members.items(), *extra):
            archive.writestr(name, data)
    return file.getvalue()


def with_sums(members):
    described = json.loads(members["manifest.json"])
    others = {name: data for name, data in members.items() if name != "manifest.json"}
    sums = {name: {"n_bytes": len(data), "crc32": zipfile.crc32(data)} for name, data in others.items()}
    return others | {"manifest.json": json.dumps(described | {"members": sums}).encode()}


def changed(**members):
    """Replace members; None removes one."""

    def change(old):
        new = old | {name.replace("__", "-"): data for name, data in members.items()}
        return packed(with_sums({name: data for name, data in new.items() if data is not None}))

    return change


def member(name, data):
    return changed(**{name: data})


def described(**values):
    """Change values of the manifest; dotted names are below `project`."""

    def change(old):
        document = json.loads(old["manifest.json"])
        for name, value in values.items():
            place = document["project"] if name in document["project"] else document
            place[name] = value
        return packed(with_sums(old | {"manifest.json": json.dumps(document).encode()}))

    return change


def events_but(**values):
    def change(old):
        first = json.loads(old["events.log"].split(b"\n")[0].split(b" ", 2)[2])
        return member("events.log", line_of(first | values))(old)

    return change


def manifest_but(data):
    return lambda old: packed(old | {"manifest.json": data})


NOT_NAN = [[0.0, 1.0]] * 20
NAN = [*NOT_NAN[:19], [0.0, float("nan")]]
WRONG = {
    "no archive": (lambda old: b"hello", ""),
    "cut": (lambda old: packed(old)[:-30], ""),
    "the middle is missing": (lambda old: packed(old)[:300] + packed(old)[500:], ""),
    "a bit flipped": (lambda old: packed(old)[:200] + b"\xff" + packed(old)[201:], ""),
    "compressed": (lambda old: packed(old, zipfile.ZIP_DEFLATED), "/pool-1.npy"),
    "no manifest": (lambda old: packed({n: d for n, d in old.items() if n != "manifest.json"}), "/manifest.json"),
    "a manifest that is no JSON": (manifest_but(b"{"), "/manifest.json"),
    "a manifest that is a list": (manifest_but(b"[]"), "/manifest.json"),
    "a manifest of nothing": (manifest_but(b"{}"), "/manifest.json/format"),
    "a deep manifest": (manifest_but(b"[" * 100_000), "/manifest.json"),
    "another format": (described(format="zip"), "/manifest.json/format"),
    "a later format": (described(format_version=2), "/manifest.json/format_version"),
    "an unknown field": (described(surplus=1), "/manifest.json/surplus"),
    "a member too many": (member("../../etc/passwd", b"x"), "/..~1..~1etc~1passwd"),
    "an absolute member": (member("/etc/passwd", b"x"), "/~1etc~1passwd"),
    "a member missing": (member("votes.at.npy", None), "/votes.at.npy"),
    "a sum that is another": (lambda old: packed(old | {"votes.at.npy": npy([1, 2])}), "/votes.at.npy"),
    "a name that is none": (described(project_id="../p"), "/manifest.json/project/project_id"),
    "no version": (described(version=0), "/manifest.json/project/version"),
    "a version beyond all": (described(version=2**60), "/manifest.json/project/version"),
    "an unknown estimator": (described(estimator="gpt"), "/manifest.json/project/estimator"),
    "parameters out of range": (
        described(estimator={"name": "gaussian_nb", "params": {"var_smoothing": -1}}),
        "/manifest.json/project/estimator/params/var_smoothing",
    ),
    "classes of two types": (described(classes=["low", 1]), "/manifest.json/project/classes/1"),
    "too few classes": (described(classes=["low"]), "/held_out.y.npy"),
    "annotators twice": (described(annotators=["ada", "ada"]), "/manifest.json/project/annotators/1"),
    "too few annotators": (described(annotators=["ada"]), "/votes"),
    "a time to come": (described(updated_at=253402300799999999), "/manifest.json/project/updated_at"),
    "an end before the beginning": (described(updated_at=1), "/manifest.json/project/created_at"),
    "a time beyond all": (described(created_at=2**60), "/manifest.json/project/created_at"),
    "no segments": (described(segments=[]), "/manifest.json/segments"),
    "more segments": (described(segments=[{"n_rows": 1, "sparse": False}] * 3), "/ids-3.starts.npy"),
    "a sparse segment": (
        described(segments=[{"n_rows": 20, "sparse": True}, {"n_rows": 3, "sparse": False}]),
        "/pool-1.data.npy",
    ),
    "more rows": (
        described(segments=[{"n_rows": 21, "sparse": False}, {"n_rows": 3, "sparse": False}]),
        "/pool-1",
    ),
    "another width": (described(n_features=3), "/pool-1"),
    "a pool of objects": (changed(**{"pool-1.npy": npy([[{}]], object)}), "/pool-1"),
    "a pool of text": (changed(**{"pool-1.npy": npy([["a", "b"]])}), "/pool-1"),
    "a pool of nothing": (changed(**{"pool-1.npy": npy(np.zeros((0, 2)))}), "/pool-1"),
    "a pool that is not finite": (changed(**{"pool-1.npy": npy(NAN)}), "/pool-1/19/1"),
    "a pool that is cut": (changed(**{"pool-1.npy": npy(NOT_NAN)[:-8]}), "/pool-1"),
    "a pool that is longer": (changed(**{"pool-1.npy": npy(NOT_NAN) + b"x"}), "/pool-1"),
    "a pool that is no npy": (changed(**{"pool-1.npy": b"hello"}), "/pool-1"),
    "a held-out set that is wider": (changed(**{"held_out.npy": npy([[1.0, 2, 3]] * 4)}), "/held_out"),
    "an unknown class": (changed(**{"held_out.y.npy": npy([0, 1, 2, 0])}), "/held_out.y.npy"),
    "too few held-out labels": (changed(**{"held_out.y.npy": npy([0, 1])}), "/held_out.y.npy"),
    "held-out labels as floats": (changed(**{"held_out.y.npy": npy([0.0] * 4)}), "/held_out.y.npy"),
    "names twice": (changed(**{"ids-2.text.npy": npy(list(b"uuw"), "u1")}), "/ids-2.text.npy"),
    "names of another segment": (
        changed(**{"ids-2.text.npy": npy(list("näme-0vw".encode()), "u1"), "ids-2.starts.npy": npy([0, 7, 8, 9])}),
        "/ids-2.text.npy",
    ),
    "names that are no text": (changed(**{"ids-2.text.npy": npy([255] * 3, "u1")}), "/ids-2.text.npy"),
    "names that go back": (changed(**{"ids-2.starts.npy": npy([0, 2, 1, 3])}), "/ids-2.starts.npy"),
    "names beyond the text": (changed(**{"ids-2.starts.npy": npy([0, 1, 2, 9])}), "/ids-2.starts.npy"),
    "empty names": (changed(**{"ids-2.starts.npy": npy([0, 0, 2, 3])}), "/ids-2.starts.npy"),
    "too few names": (changed(**{"ids-2.starts.npy": npy([0, 3])}), "/ids-2.starts.npy"),
    "votes beyond the pool": (changed(**{"votes.index.npy": npy([0, 5, 5, 6, 7, 19, 99])}), "/votes"),
    "votes out of order": (changed(**{"votes.index.npy": npy([5, 0, 5, 6, 7, 19, 21])}), "/votes"),
    "negative votes": (changed(**{"votes.index.npy": npy([-5, 0, 5, 6, 7, 19, 21])}), "/votes.index.npy"),
    "columns of two lengths": (changed(**{"votes.code.npy": npy([0])}), "/votes"),
    "votes for no class": (changed(**{"votes.code.npy": npy([9] * 7)}), "/votes"),
    "votes that overflow": (changed(**{"votes.code.npy": npy([2**32] * 7)}), "/votes.code.npy"),
    "votes before all time": (changed(**{"votes.at.npy": npy([-1] * 7)}), "/votes.at.npy"),
    "votes at no number": (changed(**{"votes.at.npy": npy([0.5] * 7)}), "/votes.at.npy"),
    "queries that are none": (changed(**{"votes.query.npy": npy([b"a b"] * 7)}), "/votes.query.npy"),
    "long queries": (changed(**{"votes.query.npy": npy([b"a" * 65] * 7)}), "/votes.query.npy"),
    "an array of votes in a matrix": (changed(**{"votes.at.npy": npy([[1]] * 7)}), "/votes.at.npy"),
    "too many votes": (changed(**{"votes.at.npy": npy([1] * 10_000)}), "/votes.at.npy"),
    "more held-out labels than rows": (changed(**{"held_out.y.npy": npy([0] * 99)}), "/held_out.y.npy"),
    "more text than names": (changed(**{"ids-2.text.npy": npy([97] * 99, "u1")}), "/ids-2.text.npy"),
    "events that are none": (member("events.log", b"hello\n"), "/events.log"),
    "events that are cut": (member("events.log", b"0"), "/events.log"),
    "events of the future": (events_but(version=99), "/events.log"),
    "events of no kind": (events_but(kind="theft"), "/events.log"),
    "events with more": (events_but(more=1), "/events.log"),
    "events with less": (events_but(details=None), "/events.log"),
    "events of nonsense": (events_but(details={"labels": {"index": 3}}), "/events.log"),
    "events of unequal columns": (events_but(details={"retracted": {"index": [1], "annotator": []}}), "/events.log"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The members of a valid archive."""
    client = create_app(Settings(data_dir=tmp_path_factory.mktemp("sound"), log_level="error")).test_client()
    make(client)
    return members_of(export(client))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A service for foreign files, from which no project is kept."""
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("stranger"), log_level="error"))


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_archive_is_refused_where_it_is_wrong_and_leaves_nothing(stranger, sound, what):
    change, pointer = WRONG[what]
    problem = take_in(stranger.test_client(), change(sound), 422)
    assert problem["errors"][0]["pointer"] == pointer, problem["detail"]
    assert files_below(store_of(stranger).root) <= {"lock", "staging/lock"}
    assert list(store_of(stranger).projects.iterdir()) == []


def test_an_archive_in_order_is_taken(client, sound):
    assert take_in(client, packed(sound))["n_samples"] == 23


def test_two_members_of_one_name_are_refused(client, sound):
    with pytest.warns(UserWarning, match="Duplicate"):
        data = packed(sound, extra=[("votes.at.npy", sound["votes.at.npy"])])
    assert take_in(client, data, 422)["errors"][0]["detail"] == "has two members of the same name"


def test_a_pool_of_more_cells_than_allowed_is_refused(tmp_path, sound):
    client = create_app(Settings(data_dir=tmp_path / "data", max_pool_cells=40)).test_client()
    assert take_in(client, packed(sound), 422)["errors"][0]["pointer"] == "/pool-2"


def test_a_longer_body_than_allowed_is_refused(tmp_path, sound):
    client = create_app(Settings(data_dir=tmp_path / "data", max_body_bytes=1_000)).test_client()
    take_in(client, packed(sound), 413)


def test_another_media_type_is_refused(client):
    assert client.post("/projects/import", data=b"x", content_type="text/plain").status_code == 415


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lasting"), [pytest.param(errno.EIO, False, id="EIO"), pytest.param(errno.ENOSPC, True, id="ENOSPC")]
)
def test_a_fault_at_any_operation_leaves_the_whole_project_or_nothing(tmp_path, monkeypatch, sound, number, lasting):
    path = tmp_path / "archive.zip"
    path.write_bytes(packed(sound))
    for nth in itertools.count(1):
        store = Store(tmp_path / str(nth))
        with monkeypatch.context() as patches:
            faults = Faults(patches, number, nth, lasting)
            with suppress(OSError, StoreFull), store.stage() as staging:
                import_project(store, staging, read_project(path, None, LIMITS, staging))
        revived = Store(store.root)
        revived.sweep()
        if faults.committed:
            assert revived.read("p", *Part).project.n_labeled == 5
            assert check_project(revived.directory("p")) == []
        else:
            with pytest.raises(ProjectNotFound):
                revived.read("p")
            assert list(revived.projects.iterdir()) == []
        assert files_below(revived.staging) <= {"lock"}
        if not faults.hit:
            break


def test_an_archive_can_be_sent_and_received_as_octets(client):
    client.post("/fit", json={"project_id": "p", "X": line_pool(), "y": end_labels()})
    archive = client.get("/projects/p/export")
    assert archive.mimetype == client.get("/projects/p/export", headers={"Accept": "*/*"}).mimetype == "application/zip"
    octets = client.get("/projects/p/export", headers={"Accept": "application/octet-stream"})
    assert (octets.mimetype, octets.data) == ("application/octet-stream", archive.data)
    assert octets.headers["ETag"] != archive.headers["ETag"]
    assert client.get("/projects/p/export", headers={"Accept": "text/csv"}).mimetype == "application/zip"
    sent = client.post("/projects/import?project_id=q", data=octets.data, content_type="application/octet-stream")
    assert sent.status_code == 201
