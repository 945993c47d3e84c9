"""One selection for several annotators: those who ask next are given the samples that follow."""

from __future__ import annotations

import http.client
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import joblib
import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.domain.leases import Leases, Reserve
from service.domain.project import now
from service.domain.votes import Votes
from service.errors import StoreFull
from service.settings import Settings
from service.store import Store
from service.store.check import check_project
from service.store.files import replace_small
from service.store.leases import read_leases
from service.strategies import STRATEGIES
from service.usecases import leases, query_batch, reserves, select_ahead
from service.usecases.query import query_project
from service.usecases.query_request import QueryRequest
from tests.support.calls import get, post
from tests.support.serving import Service, wait_until

PEOPLE = ("ada", "bob", "eve")
QUERY = {"project_id": "p", "batch_size": 2, "strategy": "uherding"}
N = 60


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Sixty rows around three centres; two of each have a label, and there is a model."""
    X = np.repeat([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], N // 3, axis=0)
    X += np.random.default_rng(0).normal(size=X.shape)
    y = [row // (N // 3) if row % (N // 3) < 2 else None for row in range(N)]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=y, estimator="gaussian_nb")
    return "p"


@pytest.fixture
def selected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the selections that are made for leases."""
    sizes: list[int] = []
    real = reserves.select

    def select(*arguments: Any, **options: Any) -> Any:
        selection = real(*arguments, **options)
        sizes.append(len(selection.indices))
        return selection

    monkeypatch.setattr(reserves, "select", select)
    return sizes


def ask(client: FlaskClient, who: str, n: int = 2, **options: Any) -> Any:
    body = {"project_id": "p", "annotator": who, "lease_seconds": 600, "batch_size": n, "strategy": "uherding"}
    return post(client, "/query", **body | options)


def label(client: FlaskClient, indices: list[int], refit: str = "never", **options: Any) -> Any:
    records = [{"index": index, "label": index // (N // 3)} | options for index in indices]
    return post(client, "/label", project_id="p", labels=records, refit=refit)


def all_ask(client: FlaskClient, n: int = 2, **options: Any) -> list[int]:
    return [index for who in PEOPLE for index in ask(client, who, n, **options)["indices"]]


def test_one_annotator_has_selections_of_their_own(client: FlaskClient, project: str, selected: list[int]) -> None:
    for _ in range(3):
        label(client, ask(client, "ada")["indices"])
    assert selected == [2, 2, 2]
    assert get(client, "/projects/p")["n_labeled"] == 12


def test_three_annotators_share_a_selection(client: FlaskClient, project: str, selected: list[int]) -> None:
    given = all_ask(client)
    assert selected == [2, 4]
    label(client, given)
    del selected[:]
    again = all_ask(client)
    assert selected == [6]
    assert len({*given, *again}) == 12


def test_the_first_sample_for_all_is_that_for_one(client: FlaskClient, project: str) -> None:
    label(client, all_ask(client))
    alone = post(client, "/query", project_id="p", batch_size=2, strategy="uherding", annotator="ada")
    reply = ask(client, "ada")
    assert (reply["indices"], reply["reason"]) == (alone["indices"], alone["reason"])
    assert reply["strategy"] == "uherding"


def test_labels_keep_a_selection_and_a_model_ends_it(client: FlaskClient, project: str, selected: list[int]) -> None:
    label(client, all_ask(client))
    label(client, ask(client, "ada")["indices"], refit="never")
    del selected[:]
    bob = ask(client, "bob")
    assert (selected, bob["model_version"]) == ([], 1)
    label(client, bob["indices"], refit="wait")
    eve = ask(client, "eve")
    assert (selected, eve["model_version"]) == ([6], 2)


@pytest.mark.parametrize(
    ("options", "n_selections"),
    [
        ({}, 0),
        ({"explain": True}, 0),
        ({"annotator": "dan"}, 0),
        ({"n": 3}, 1),
        ({"strategy": "max_herding"}, 1),
        ({"params": {"sharpness": 1.0}}, 1),
        ({"candidates": list(range(N))}, 1),
        ({"exclude": [59]}, 1),
        ({"random_state": 7}, 1),
        ({"explore": 0.5}, 1),
        ({"overlap": 2}, 1),
    ],
)
def test_only_equal_requests_share_a_selection(
    client: FlaskClient, project: str, selected: list[int], options: dict[str, Any], n_selections: int
) -> None:
    label(client, all_ask(client))
    ask(client, "ada")
    del selected[:]
    ask(client, **{"who": "bob"} | options)
    assert len(selected) == n_selections


def test_who_leases_nothing_is_shown_the_samples_that_are_free(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(client, all_ask(client))
    ask(client, "ada")
    with monkeypatch.context() as patches:
        patches.setattr(query_batch, "select", None)
        shown = post(client, "/query", **QUERY)
    bob = ask(client, "bob")
    assert (shown["indices"], shown["reason"], shown["model_version"]) == (bob["indices"], bob["reason"], 1)
    label(client, [*bob["indices"], *ask(client, "eve")["indices"]])
    rest = post(client, "/query", **QUERY)["indices"]  # the reserve is used up
    assert (len(rest), set(rest) & set(bob["indices"])) == (2, set())


def test_who_leases_nothing_shares_a_selection_with_those_who_do(
    client: FlaskClient, project: str, selected: list[int]
) -> None:
    label(client, all_ask(client))
    del selected[:]
    shown = post(client, "/query", **QUERY)["indices"]
    assert post(client, "/query", **QUERY)["indices"] == shown
    given = all_ask(client)
    assert (selected, given[:2], len(set(given))) == ([8], shown, 6)


@pytest.mark.parametrize("name", ["lease_turn", "transaction"])
def test_a_query_without_a_lease_is_answered_although_nothing_can_be_written(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    label(client, all_ask(client))

    def fail(*_: object) -> None:
        raise StoreFull("no space is left")

    with monkeypatch.context() as patches:
        patches.setattr(Store, name, fail)
        assert len(post(client, "/query", **QUERY)["indices"]) == 2


def label_in_background(client: FlaskClient, indices: list[int]) -> Any:
    """Label samples, and return the project when the fit in the background is over."""
    label(client, indices, refit="background")
    services = client.application.extensions["active-query"]
    wait_until(lambda: get(client, "/projects/p")["n_labels_since_fit"] == 0)
    wait_until(lambda: services.store.fitting_since("p") is None)
    return get(client, "/projects/p")


def test_a_background_fit_selects_for_the_people_at_work(
    tmp_path: Path, client: FlaskClient, project: str, selected: list[int]
) -> None:
    label(client, all_ask(client))
    given = all_ask(client)
    del selected[:]
    assert label_in_background(client, given)["model_version"] == 2
    assert selected == [16]
    shown = post(client, "/query", **QUERY)
    another = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    assert [post(each, "/query", **QUERY)["indices"] for each in (client, another)] == [shown["indices"]] * 2
    first = ask(another, "bob")
    assert (first["indices"], first["model_version"]) == (shown["indices"], 2)
    assert not {*all_ask(client), *first["indices"]} & set(given)
    assert selected == [16]


def test_a_background_fit_selects_only_what_was_asked_with_the_model_before(
    client: FlaskClient, project: str, selected: list[int]
) -> None:
    label(client, all_ask(client))
    label_in_background(client, all_ask(client))
    del selected[:]
    label_in_background(client, [59])
    assert selected == []


def test_a_query_that_ranks_by_scores_of_a_background_fit_waits_for_no_place(client: FlaskClient) -> None:
    X = np.random.default_rng(0).normal(size=(10_000, 2))
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=[0, 1, *[None] * 9_998], estimator="gaussian_nb")
    store = client.application.extensions["active-query"].store
    request = QueryRequest("p", STRATEGIES["margin"], {}, 2)

    class Entered(Exception):
        """A query waited for a place."""

    def enter() -> Any:
        raise Entered

    def query() -> Any:
        return query_project(store, request, enter=enter)

    with pytest.raises(Entered):
        query()
    first = query_project(store, request)
    label(client, [2, 3])
    assert query().model_version == 1
    label_in_background(client, first.indices)
    assert query().model_version == 2
    assert query().indices == query_project(Store(store.root), request).indices
    label_in_background(client, [7])
    label_in_background(client, [8])
    with pytest.raises(Entered):  # nobody asked with the model before
        query()


def test_a_fit_does_not_fail_with_a_selection(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(client, all_ask(client))
    given = all_ask(client)
    logged: list[str] = []
    monkeypatch.setattr(select_ahead.log, "exception", lambda text, *_: logged.append(text))
    monkeypatch.setattr(reserves, "select", None)
    assert label_in_background(client, given)["model_version"] == 2
    assert len(logged) == 1


def test_a_selection_is_kept_although_its_first_samples_are_labelled_meanwhile(
    client: FlaskClient, project: str, selected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    label(client, all_ask(client))
    real = leases.create_lease

    def label_first(transaction: Any, request: Any, answered: Any, reserve: Any) -> Any:
        monkeypatch.setattr(leases, "create_lease", real)
        project = transaction.read().project
        late = project.votes.merge(Votes.anonymous(reserve.index[:1], np.zeros(1, np.int32), now()))
        transaction.commit(project.with_votes(late).next_version())
        return real(transaction, request, answered, reserve)

    monkeypatch.setattr(leases, "create_lease", label_first)
    del selected[:]
    given = [*ask(client, "ada")["indices"], *ask(client, "bob")["indices"]]
    assert (selected, len(set(given))) == ([6], 4)


@pytest.mark.parametrize("strategy", ["margin", "power", "random", "badge"])
def test_strategies_that_do_not_spread_share_nothing(
    client: FlaskClient, project: str, selected: list[int], strategy: str
) -> None:
    label(client, all_ask(client, strategy=strategy))
    all_ask(client, strategy=strategy)
    assert selected == [2] * 6


def test_samples_that_are_not_open_any_more_are_passed_over(
    client: FlaskClient, project: str, tmp_path: Path, selected: list[int]
) -> None:
    label(client, all_ask(client))
    given = ask(client, "ada")["indices"]
    [*_, reserve] = read_leases(tmp_path / "data/projects/p/leases.joblib").reserves
    assert reserve.index[:2].tolist() == given
    labelled, skipped, removed, _ = reserve.index[2:].tolist()
    label(client, [labelled])
    post(client, "/label", project_id="p", labels=[{"index": skipped, "skip": True}], refit="never")
    assert client.delete("/projects/p/samples", json={"indices": [removed]}).status_code == 200
    del selected[:]
    bob = ask(client, "bob", 2)["indices"]
    assert not {labelled, skipped, removed, *given} & set(bob)
    assert selected == [6]  # the one that is free was too few


def test_appended_samples_are_selected_at_once(client: FlaskClient, project: str, selected: list[int]) -> None:
    label(client, all_ask(client))
    ask(client, "ada")
    del selected[:]
    post(client, "/projects/p/pool", X=[[9.0, 9.0]])
    ask(client, "bob")
    assert selected == [6]


def test_those_whose_lease_has_ended_do_not_count(
    client: FlaskClient, project: str, selected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = leases.now
    label(client, all_ask(client))
    for module in ("service.usecases.query", "service.usecases.leases"):
        monkeypatch.setattr(f"{module}.now", lambda: real() + 600 * 10**6)
    del selected[:]
    ask(client, "ada")
    assert selected == [2]


def test_each_sample_is_given_once_by_two_workers(tmp_path: Path, client: FlaskClient, project: str) -> None:
    workers = [create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client() for _ in range(2)]
    given: list[int] = []
    for turn in range(N // 2 - 3):
        indices = ask(workers[turn % 2], PEOPLE[turn % 3])["indices"]
        given += indices
        label(workers[(turn + 1) % 2], indices)
    assert sorted(given) == [row for row in range(N) if row % (N // 3) >= 2]


def test_another_worker_goes_on_with_the_selection(
    tmp_path: Path, client: FlaskClient, project: str, selected: list[int]
) -> None:
    label(client, all_ask(client))
    ada = ask(client, "ada")["indices"]
    del selected[:]
    restarted = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    bob = ask(restarted, "bob")["indices"]
    assert selected == []
    assert not set(ada) & set(bob)


def test_who_waited_for_a_selection_shares_it_although_a_model_came(
    client: FlaskClient, project: str, selected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    label(client, all_ask(client))
    real = leases.query_project

    def query_after_others(*arguments: Any) -> Any:
        monkeypatch.setattr(leases, "query_project", real)
        post(client, "/label", project_id="p", labels=[{"index": 59, "label": 2}], refit="never")
        ask(client, "ada")
        post(client, "/fit", project_id="p")
        return real(*arguments)

    monkeypatch.setattr(leases, "query_project", query_after_others)
    del selected[:]
    bob = ask(client, "bob")
    assert (selected, bob["model_version"]) == ([6], 1)
    assert ask(client, "eve")["model_version"] == get(client, "/projects/p")["model_version"] == 2


def test_a_selection_is_shared_before_there_is_a_model(client: FlaskClient, selected: list[int]) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2)).tolist()
    post(client, "/fit", 201, project_id="p", X=X)
    all_ask(client)
    label(client, all_ask(client, 4, strategy="auto"))
    del selected[:]
    replies = [ask(client, who, strategy="auto") for who in PEOPLE]
    assert selected == [6]
    assert len({reply["reason"] for reply in replies}) == 1


def test_leases_of_an_earlier_version_are_read(tmp_path: Path, client: FlaskClient, project: str) -> None:
    given = all_ask(client)
    path = tmp_path / "data/projects/p/leases.joblib"
    record = joblib.load(path)
    old = {name: record[name] for name in ("schema_version", "incarnation", "changed_at", "leases")}
    replace_small(path.parent, path.name, old, record["changed_at"] + 1)
    assert (read_leases(path).reserves, read_leases(path).at_work) == ((), {})
    assert not set(given) & set(ask(client, "dan")["indices"])
    assert check_project(path.parent) == []


def reserve(key: str, version: int) -> Reserve:
    return Reserve(key, version, np.array([1, 2]), None, "uherding", None, None)


@pytest.mark.parametrize(
    ("oldest", "newest", "found"), [(1, 1, False), (1, 2, True), (2, 2, True), (2, 3, True), (3, 3, False)]
)
def test_a_reserve_is_used_if_its_model_is_not_too_old(oldest: int, newest: int, found: bool) -> None:
    all_leases = Leases("pool").with_reserve(reserve("a", 2))
    assert (all_leases.find_reserve("a", oldest, newest) is not None) == found
    assert all_leases.find_reserve("b", oldest, newest) is None


def test_few_reserves_are_kept() -> None:
    all_leases = Leases("pool")
    for number in range(9):
        all_leases = all_leases.with_reserve(reserve(f"{number % 5}", 1))
    assert [each.key for each in all_leases.reserves] == ["0", "1", "2", "3"]
    assert [each.key for each in all_leases.with_reserve(reserve("4", 2)).reserves] == ["4"]


@pytest.mark.slow
@pytest.mark.timeout(300)  # starting processes takes long on a busy machine
@pytest.mark.parametrize("n_kills", [0, 3])
def test_two_processes_and_three_people_share_each_sample_once(tmp_path: Path, n_kills: int) -> None:
    """Workers are killed meanwhile: a sample that was selected, but not leased, is given to another person."""
    service = Service(tmp_path / "data", tmp_path / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="error")
    given: list[tuple[str, list[int]]] = []
    n_samples, lock = 150, Lock()
    X = np.random.default_rng(0).normal(size=(n_samples, 4)).tolist()
    y = [0, 1, *[None] * (n_samples - 2)]

    def annotate(who: str) -> None:
        while True:
            body = {"project_id": "p", "annotator": who, "lease_seconds": 600, "batch_size": 3}
            with suppress(OSError, http.client.HTTPException, ValueError):  # the worker was killed
                reply = service.call("POST", "/query", body)
                if reply.status == 200 and not reply.json["indices"]:
                    return
                indices = reply.json["indices"]
                labels = [{"index": index, "label": index % 2, "annotator": who} for index in indices]
                while service.call("POST", "/label", {"project_id": "p", "labels": labels}).status != 200:
                    time.sleep(0.05)
                with lock:
                    given.append((who, indices))

    try:
        service.start()
        service.post("/fit", {"project_id": "p", "X": X, "y": y, "estimator": "gaussian_nb"}, expect=201)
        with ThreadPoolExecutor(3) as threads:
            people = [threads.submit(annotate, who) for who in PEOPLE]
            for nth in range(1, n_kills + 1):
                wait_until(lambda nth=nth: len(given) >= 8 * nth)
                os.kill(service.workers()[nth % 2], signal.SIGKILL)
                wait_until(lambda: len(service.workers()) == 2)
            for person in people:
                person.result()
        records = service.call("GET", "/projects/p/labels").json["labels"]
    finally:
        service.kill()
    assert sorted(record["index"] for record in records) == list(range(n_samples))
    if n_kills == 0:
        assert sorted(index for _, indices in given for index in indices) == list(range(2, n_samples))
        assert len({who for who, _ in given}) == 3
