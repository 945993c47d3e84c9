"""Leases: a sample leased to one annotator is not given to another, even by concurrent queries."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.domain import leases as values
from service.domain import project as project_module
from service.domain.leases import Lease, Leases
from service.domain.project import MICROSECONDS
from service.settings import Settings
from service.store import Store
from service.store.check import check_project
from service.store.leases import write_leases
from service.usecases import leases, query
from tests.store.test_store import DAMAGE, Faults, damage
from tests.support.calls import end_labels, get, line_pool, post

ADA, BOB, EVE = "ada", "bob", "eve"


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line; the first and the last have a label."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


def ask(client: FlaskClient, who: str | None = None, n: int = 3, seconds: int = 600, **options: Any) -> Any:
    by = {"annotator": who, "lease_seconds": seconds} if who else {}
    return post(client, "/query", project_id="p", batch_size=n, strategy="margin", **by, **options)


def label(client: FlaskClient, *indices: int, who: str | None = None) -> Any:
    by = {"annotator": who} if who else {}
    records = [{"index": index, "label": int(index > 9), **by} for index in indices]
    return post(client, "/label", project_id="p", labels=records, refit="never")


def held(client: FlaskClient) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for lease in get(client, "/projects/p/leases")["leases"]:
        found.setdefault(lease["annotator"], []).extend(sorted(lease["indices"]))
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that advances the clock of leases by some seconds."""
    passed = 0.0

    def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    real = leases.now
    for module in (leases, query, values, project_module):
        monkeypatch.setattr(module, "now", lambda: real() + int(passed * MICROSECONDS))
    return wait


# Leased samples.


def test_leased_samples_are_not_given_to_others(client: FlaskClient, project: str) -> None:
    ada, bob = ask(client, ADA), ask(client, BOB)
    nobody, eve = ask(client), post(client, "/query", project_id="p", batch_size=20, annotator=EVE)
    taken = {*ada["indices"], *bob["indices"]}
    assert len(taken) == 6
    assert not taken & {*nobody["indices"], *eve["indices"]}
    assert held(client) == {ADA: sorted(ada["indices"]), BOB: sorted(bob["indices"])}


def test_a_lease_says_when_it_ends(client: FlaskClient, project: str) -> None:
    reply = ask(client, ADA, seconds=600)
    [lease] = get(client, "/projects/p/leases")["leases"]
    assert (lease["query_id"], lease["expires_at"]) == (reply["query_id"], reply["lease_expires_at"])
    length = np.datetime64(lease["expires_at"][:-1]) - np.datetime64(lease["leased_at"][:-1])
    assert (length, lease["ids"]) == (np.timedelta64(600, "s"), None)


def test_a_query_without_a_lease_leases_nothing(client: FlaskClient, project: str) -> None:
    first = post(client, "/query", project_id="p", annotator=ADA)
    assert first["lease_expires_at"] is None
    assert held(client) == {}
    assert post(client, "/query", project_id="p", annotator=BOB)["indices"] == first["indices"]


def test_a_lease_does_not_change_the_version(client: FlaskClient, project: str) -> None:
    ask(client, ADA)
    assert get(client, "/projects/p")["version"] == 1


def test_leased_samples_come_first_for_their_annotator(client: FlaskClient, project: str) -> None:
    first = ask(client, ADA, 3)
    second = ask(client, ADA, 5)
    assert second["indices"][:3] == first["indices"]
    assert second["scores"][:3] == [None] * 3
    assert len(set(second["indices"])) == 5
    assert "the first 3 were already leased to this annotator" in second["reason"]
    [lease] = get(client, "/projects/p/leases")["leases"]
    assert (lease["query_id"], lease["indices"]) == (second["query_id"], second["indices"])


def test_samples_beyond_the_batch_stay_in_the_earlier_lease(client: FlaskClient, project: str) -> None:
    first, second = ask(client, ADA, 3), ask(client, ADA, 2)
    assert second["indices"] == first["indices"][:2]
    of = {lease["query_id"]: lease["indices"] for lease in get(client, "/projects/p/leases")["leases"]}
    assert of == {second["query_id"]: second["indices"], first["query_id"]: first["indices"][2:]}


def test_leased_samples_come_first_without_a_new_lease_too(client: FlaskClient, project: str) -> None:
    first = ask(client, ADA, 2)
    reply = post(client, "/query", project_id="p", annotator=ADA, batch_size=2)
    assert (reply["indices"], reply["lease_expires_at"]) == (first["indices"], None)


def test_excluded_samples_are_not_given_although_leased(client: FlaskClient, project: str) -> None:
    first = ask(client, ADA, 2)
    again = ask(client, ADA, 2, exclude=first["indices"][:1])["indices"]
    assert again[0] == first["indices"][1]
    assert first["indices"][0] not in again
    assert len(held(client)[ADA]) == 3


def test_leased_samples_are_explained_as_such(client: FlaskClient, project: str) -> None:
    ask(client, ADA, 1)
    reply = ask(client, ADA, 2, explain=True)
    assert [each["chosen_by"] for each in reply["explanations"]] == ["lease", "strategy"]


def test_retry_after_is_sent_if_others_lease_every_sample(client: FlaskClient, project: str, later: Any) -> None:
    ask(client, ADA, 10, seconds=600)
    ask(client, BOB, 8, seconds=60)
    later(20.5)
    body = {"project_id": "p", "annotator": EVE, "lease_seconds": 60}
    response = client.post("/query", json=body)
    assert (response.status_code, response.json["indices"], response.json["lease_expires_at"]) == (200, [], None)
    reason = "nothing is left to ask: 18 leased to others, 2 labelled; the first lease ends in 40 s at the latest"
    assert response.json["fallback_reason"] == reason
    assert response.headers["Retry-After"] == "40"
    assert held(client).keys() == {ADA, BOB}


def test_retry_after_is_not_sent_if_every_sample_is_labelled(client: FlaskClient, project: str) -> None:
    label(client, *range(1, 19))
    response = client.post("/query", json={"project_id": "p", "annotator": EVE, "lease_seconds": 60})
    assert response.json["indices"] == []
    assert "Retry-After" not in response.headers
    assert response.json["fallback_reason"] == "nothing is left to ask: 20 labelled"


def test_a_batch_cut_short_by_leases_says_so(client: FlaskClient, project: str) -> None:
    ask(client, ADA, 15)
    reply = ask(client, BOB, 5)
    assert len(reply["indices"]) == 3
    assert "15 more are leased to others" in reply["fallback_reason"]


@pytest.mark.parametrize("strategy", ["max_herding", "k_center", "typiclust", "prob_cover", "discriminative"])
def test_concurrent_annotators_get_different_parts_of_the_pool(client: FlaskClient, strategy: str) -> None:
    heaps = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 8, axis=0)
    X = heaps + np.random.default_rng(0).normal(size=heaps.shape) / 10
    post(client, "/fit", 201, project_id="p", X=X.tolist())
    body = {"project_id": "p", "strategy": strategy, "lease_seconds": 60}
    asked = [post(client, "/query", annotator=who, **body)["indices"][0] for who in (ADA, BOB, EVE)]
    assert {index // 8 for index in asked} == {0, 1, 2}


# The end of a lease.


def test_labels_end_a_lease(client: FlaskClient, project: str) -> None:
    first, second, third = ask(client, ADA, 3)["indices"]
    label(client, first, who=ADA)
    post(client, "/label", project_id="p", labels=[{"index": second, "skip": True, "annotator": ADA}])
    assert held(client) == {ADA: [third]}
    label(client, third)
    assert held(client) == {}


def test_a_retracted_sample_is_available_to_all(client: FlaskClient, project: str) -> None:
    index = ask(client, ADA, 1)["indices"][0]
    label(client, index, who=ADA)
    assert client.delete(f"/projects/p/labels/{index}").status_code == 204
    assert held(client) == {}
    assert ask(client, BOB, 20)["indices"].count(index) == 1


def test_a_lease_expires(client: FlaskClient, project: str, later: Any) -> None:
    first = ask(client, ADA, 3, seconds=60)["indices"]
    later(59)
    assert held(client) == {ADA: sorted(first)}
    later(1)
    assert held(client) == {}
    assert ask(client, BOB, 3)["indices"] == first


def test_a_released_sample_is_available_to_all(client: FlaskClient, project: str) -> None:
    first = ask(client, ADA, 3)
    path = f"/projects/p/leases/{first['query_id']}"
    assert client.delete(path).status_code == 204
    assert ask(client, BOB, 3)["indices"] == first["indices"]
    assert client.delete(path).status_code == 404


@pytest.mark.parametrize(("body", "seconds"), [({}, 60), ({"lease_seconds": 100}, 100), (None, 60)])
def test_a_lease_is_renewed(client: FlaskClient, project: str, later: Any, body: Any, seconds: int) -> None:
    first = ask(client, ADA, 3, seconds=60)
    later(50)
    reply = client.post(f"/projects/p/leases/{first['query_id']}/renew", json=body)
    assert (reply.status_code, reply.json["indices"]) == (200, first["indices"])
    later(seconds - 1)
    assert held(client).keys() == {ADA}
    later(1)
    assert held(client) == {}


def test_an_expired_lease_is_not_renewed(client: FlaskClient, project: str, later: Any) -> None:
    expired, answered = ask(client, ADA, 2, seconds=60), ask(client, BOB, 1)
    later(60)
    label(client, *answered["indices"], who=BOB)
    for query_id in (expired["query_id"], answered["query_id"], "never"):
        problem = post(client, f"/projects/p/leases/{query_id}/renew", 404)
        assert f"no lease {query_id!r}" in problem["detail"]


def test_replace_and_delete_leave_no_lease(client: FlaskClient, project: str) -> None:
    ask(client, ADA, 3)
    post(client, "/fit", project_id="p", X=line_pool(), y=end_labels(), replace=True)
    assert held(client) == {}
    ask(client, ADA, 3)
    assert client.delete("/projects/p").status_code == 204
    get(client, "/projects/p/leases", 404)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    assert held(client) == {}


def test_setting_the_clock_back_revives_no_lease(client: FlaskClient, project: str, later: Any) -> None:
    index = ask(client, ADA, 1)["indices"][0]
    later(-3600)
    label(client, index, who=ADA)
    assert held(client) == {}
    assert index not in ask(client, ADA, 20)["indices"]


def test_setting_the_clock_back_during_a_commit_blocks_no_sample(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vote is an hour later than its commit would be, and later commits must not take it for a new one."""
    clock = itertools.chain([project_module.now()], itertools.repeat(project_module.now() - 3600 * MICROSECONDS))
    monkeypatch.setattr(project_module, "now", lambda: next(clock))
    label(client, 10, who=ADA)
    [vote] = [record for record in get(client, "/projects/p/labels")["labels"] if record["index"] == 10]
    assert get(client, "/projects/p")["updated_at"] >= vote["labeled_at"]
    assert ask(client, BOB, 1, overlap=2, candidates=[10])["indices"] == [10]


# Samples that several people label.


def test_with_overlap_annotators_get_a_sample_one_after_another(client: FlaskClient, project: str) -> None:
    options = {"overlap": 2, "candidates": [10]}
    assert ask(client, ADA, 1, **options)["indices"] == [10]
    assert ask(client, BOB, 1, **options)["indices"] == []
    label(client, 10, who=ADA)
    assert ask(client, BOB, 1, **options)["indices"] == [10]
    reply = client.post("/query", json={"project_id": "p", "annotator": EVE, "lease_seconds": 9, **options})
    assert (reply.json["indices"], "Retry-After" in reply.headers) == ([], True)
    label(client, 10, who=BOB)
    assert ask(client, EVE, 1, **options)["indices"] == []


def test_retry_after_is_not_sent_for_samples_not_open_to_the_caller(client: FlaskClient, project: str) -> None:
    label(client, 10, who=ADA)
    ask(client, BOB, 1, overlap=2, candidates=[10])
    response = client.post("/query", json={"project_id": "p", "candidates": [10], "annotator": EVE})
    assert (response.json["indices"], "Retry-After" in response.headers) == ([], False)


# Concurrency and faults.


def test_annotators_at_two_workers_get_each_sample_once(tmp_path: Path, client: FlaskClient) -> None:
    n = 150
    post(client, "/fit", 201, project_id="p", X=line_pool(n), y=end_labels(n))
    workers = [create_app(Settings(data_dir=tmp_path / "data", log_level="error")) for _ in range(2)]

    def annotate(number: int) -> list[int]:
        mine, caller = [], workers[number % 2].test_client()
        while indices := ask(caller, f"annotator {number}", 1 + number % 3)["indices"]:
            label(caller, *indices, who=f"annotator {number}")
            mine += indices
        return mine

    with ThreadPoolExecutor(8) as threads:
        given = Counter(index for mine in threads.map(annotate, range(8)) for index in mine)
    assert given == Counter(range(1, n - 1))


def test_leases_survive_a_restart(tmp_path: Path, client: FlaskClient, project: str) -> None:
    first = ask(client, ADA, 3)
    restarted = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    assert held(restarted) == {ADA: sorted(first["indices"])}
    assert not set(first["indices"]) & set(ask(restarted, BOB, 20)["indices"])


def test_samples_labelled_during_the_selection_are_selected_again(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, wanted = leases.query_project, []

    def query_then_label(*arguments: Any) -> Any:
        answered = real(*arguments)
        if not wanted:
            wanted.extend(answered.indices)
            label(client, wanted[0])
        return answered

    monkeypatch.setattr(leases, "query_project", query_then_label)
    given = ask(client, ADA, 3)["indices"]
    assert wanted[0] not in given
    assert set(wanted[1:]) < set(given)


def test_a_pool_replaced_during_the_selection_is_queried(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = leases.query_project, []

    def query_then_replace(*arguments: Any) -> Any:
        answered = real(*arguments)
        times.append(answered)
        if len(times) == 1:
            post(client, "/fit", project_id="p", X=line_pool(4), y=end_labels(4), replace=True)
        return answered

    monkeypatch.setattr(leases, "query_project", query_then_replace)
    assert sorted(ask(client, ADA, 20)["indices"]) == [1, 2]


CHANGES = {
    "the first": lambda client, query_id: ask(client, BOB),
    "renew": lambda client, query_id: post(client, f"/projects/p/leases/{query_id}/renew", lease_seconds=1000),
    "release": lambda client, query_id: client.delete(f"/projects/p/leases/{query_id}"),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_at_any_file_operation_leaves_the_old_or_new_leases(
    tmp_path: Path, client: FlaskClient, project: str, name: str, number: int
) -> None:
    query_id = ask(client, ADA)["query_id"]
    beginning = tmp_path / "data"
    before = get(client, "/projects/p/leases")
    for nth in itertools.count(1):
        root = shutil.copytree(beginning, tmp_path / f"{nth}")
        caller = create_app(Settings(data_dir=root, log_level="critical")).test_client()
        with pytest.MonkeyPatch.context() as patches, suppress(AssertionError):
            faults = Faults(patches, number, nth, lasting=True)
            CHANGES[name](caller, query_id)
        revived = create_app(Settings(data_dir=root, log_level="error")).test_client()
        assert (get(revived, "/projects/p/leases") != before) == faults.committed
        assert not list(root.rglob("*.new"))
        assert check_project(root / "projects" / "p") == []
        if not faults.hit:
            assert faults.committed
            break
    assert nth > 3


@pytest.mark.parametrize("how", ["empty", "cut in the middle", "cut at the end", "zeros", "text"])
def test_damaged_leases_are_reported_and_affect_nothing_else(
    tmp_path: Path, client: FlaskClient, project: str, how: str
) -> None:
    post(client, "/fit", 201, project_id="other", X=line_pool(), y=end_labels())
    ask(client, ADA)
    path = tmp_path / "data" / "projects" / "p" / "leases.joblib"
    damage(path, DAMAGE[how])
    for reply in (client.get("/projects/p/leases"), client.post("/query", json={"project_id": "p"})):
        assert (reply.status_code, "project 'p': leases.joblib" in reply.json["detail"]) == (500, True)
    assert [finding.file for finding in check_project(path.parent)] == ["leases.joblib"]
    label(client, 5)
    assert post(client, "/query", project_id="other")["indices"]
    path.unlink()
    assert ask(client, BOB)["indices"]


def test_a_sample_leased_twice_is_damage(tmp_path: Path, client: FlaskClient, project: str) -> None:
    store = Store(tmp_path / "data")
    lease = Lease("q", ADA, np.array([3, 99]), 60, 0, 2**60, 2**60)
    for index in ([3, 3], [3, 99]):
        held_wrong = Leases(store.read("p").project.pool_id, (replace(lease, index=np.array(index)),))
        write_leases(store.directory("p"), held_wrong)
        [finding] = check_project(store.directory("p"))
        assert (finding.file, "a sample twice" in finding.problem) == ("leases.joblib", True)
