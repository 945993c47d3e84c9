"""The bridge and the ML backend with a real Label Studio, which `pytest -m label_studio` installs with pip."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from tests.bridges.real_label_studio import LEGACY_TOKEN, VERSION, Person, RealLabelStudio, install
from tests.support.serving import Service

pytestmark = [pytest.mark.label_studio, pytest.mark.timeout(3000)]

REFITS = 10
BATCH_SIZE = 4
KINDS = {
    "spam": ["prize", "pills", "lottery", "winner", "free", "money", "viagra", "casino", "offer", "click"],
    "ham": ["meeting", "agenda", "minutes", "lunch", "report", "review", "server", "patch", "kernel", "thread"],
}
FILLERS = ["the", "of", "and", "to", "in", "we", "you", "will", "this", "next", "week", "on", "with", "from", "about"]


def mail(kind: str, rng: random.Random) -> str:
    """Return a mail: words of its kind among others."""
    return " ".join(rng.sample(KINDS[kind], 3) + rng.sample(FILLERS, 5))


def mails(number: int, seed: int) -> tuple[list[str], list[str]]:
    """Return mails and their kinds."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    kinds = [rng.choice(list(KINDS)) for _ in range(number)]
    return [mail(kind, rng) for kind in kinds], kinds


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RealLabelStudio]:
    programs = install(request.config.cache.mkdir(f"label-studio-{VERSION}"), f"label-studio=={VERSION}")
    folder = tmp_path_factory.mktemp("label-studio")
    # The bridge needs neither setting; the ML backend, on this machine, needs both.
    allowed = {"SSRF_PROTECTION_ENABLED": "false", "ML_BLOCK_LOCAL_IP": "false"}
    server = RealLabelStudio(programs, folder / "data", folder / "log", **allowed).start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log").start()
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> Client:
    return Client(f"http://127.0.0.1:{service.port}", retries=8)


@pytest.fixture
def ada(label_studio: RealLabelStudio) -> Person:
    return Person(label_studio.url, LEGACY_TOKEN)


class RunningBridge:
    """The installed command, which can be killed and started again."""

    def __init__(self, label_studio: RealLabelStudio, service: Service, project: int, log: Path, token: str) -> None:
        there = ["--url", label_studio.url, "--token", token, "--project", str(project)]
        here = ["--aq", f"http://127.0.0.1:{service.port}", "--batch-size", str(BATCH_SIZE), "--prelabel"]
        self.command = [sys.executable, "-m", "service", "label-studio", *there, *here]
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env={**os.environ}, stderr=log)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


@pytest.fixture
def start_bridge(
    label_studio: RealLabelStudio, service: Service, tmp_path: Path
) -> Iterator[Callable[[int, str], RunningBridge]]:
    bridges: list[RunningBridge] = []

    def start(project: int, token: str) -> RunningBridge:
        bridges.append(RunningBridge(label_studio, service, project, tmp_path / "bridge.log", token))
        return bridges[-1]

    yield start
    for bridge in bridges:
        bridge.end()
        print(bridge.log.read_text()[-3000:])


def wait_for(holds: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.5)


def answers_in_service(client: Client, project: int) -> dict[tuple[str, str], str | None]:
    found = client.labels(f"label-studio-{project}")
    return {(record["id"], record["annotator"]): record["label"] for record in found}


def label_in_order(
    person: Person, project: int, kind_of: Callable[[int], str], n_versions: int
) -> tuple[list[str], dict[int, int], list[tuple[int, list[int]]]]:
    """Annotate next tasks until the project has shown so many versions.

    Return the versions, the annotation of each task, and each task that was not the next of its batch.
    """
    versions: list[str] = []
    annotations: dict[int, int] = {}
    misplaced: list[tuple[int, list[int]]] = []
    while len(versions) < n_versions:
        before, task, after = person.batch(project), person.next_task(project), person.batch(project)
        versions += [after[0]] if after[0] not in versions else []
        # A batch may be pushed while the next task is asked for.
        expected = [next((each for each in shown if each not in annotations), None) for _, shown in (before, after)]
        if task not in expected:
            misplaced.append((task, after[1]))
        annotations[task] = person.annotate(task, kind_of(task))
        # People are slower than a program: the next batch is there before the present one is used up.
        if all(each in annotations for each in after[1][: BATCH_SIZE // 2]):
            wait_for(lambda shown=after[0]: person.batch(project)[0] != shown)
    return versions, annotations, misplaced


def test_label_all_tasks_shows_what_the_service_chose(
    label_studio: RealLabelStudio,
    client: Client,
    ada: Person,
    start_bridge: Callable[[int, str], RunningBridge],
) -> None:
    texts, kinds = mails(120, seed=0)
    project, tasks = ada.create_project(texts)
    kind_of = dict(zip(tasks, kinds, strict=True))
    start_bridge(project, label_studio.personal_token())
    wait_for(lambda: ada.batch(project)[1])

    versions, annotations, misplaced = label_in_order(ada, project, kind_of.__getitem__, REFITS + 1)
    print(f"served = pushed {len(annotations) - len(misplaced)} of {len(annotations)} over {len(versions)} batches")
    assert not misplaced

    me = ada.number
    wanted: dict[tuple[str, str], str | None] = {(str(task), me): kind_of[task] for task in annotations}
    wait_for(lambda: answers_in_service(client, project) == wanted)
    first, second, third, *_ = annotations
    ada.change(annotations[first], "ham" if kind_of[first] == "spam" else "spam")
    wanted[str(first), me] = "ham" if kind_of[first] == "spam" else "spam"
    ada.send("DELETE", f"/api/annotations/{annotations[second]}/")
    del wanted[str(second), me]
    ada.send("DELETE", f"/api/tasks/{third}/")
    del wanted[str(third), me]
    skipped = ada.next_task(project)
    ada.annotate(skipped, None)
    wanted[str(skipped), me] = None
    late_texts, late_kinds = mails(10, seed=1)
    late = ada.import_texts(project, late_texts)
    bob = label_studio.invite("bob@example.org")
    bob.annotate(late[0], late_kinds[0])
    wanted[str(late[0]), bob.number] = late_kinds[0]
    wait_for(lambda: answers_in_service(client, project) == wanted)
    assert client.project(f"label-studio-{project}")["n_samples"] == 130

    kind_of |= dict(zip(late, late_kinds, strict=True))
    for _ in range(BATCH_SIZE):
        # With two annotators, Label Studio draws among the tasks of the batch.
        before, task, after = bob.batch(project), bob.next_task(project), bob.batch(project)
        assert task in {*before[1], *after[1]} - {third}
        bob.annotate(task, kind_of[task])
        wanted[str(task), bob.number] = kind_of[task]
        wait_for(lambda: answers_in_service(client, project) == wanted)


def test_nothing_is_lost_when_a_side_or_the_bridge_is_killed(
    label_studio: RealLabelStudio,
    service: Service,
    client: Client,
    ada: Person,
    start_bridge: Callable[[int, str], RunningBridge],
) -> None:
    texts, kinds = mails(60, seed=2)
    project, tasks = ada.create_project(texts)
    kind_of = dict(zip(tasks, kinds, strict=True))
    bridge = start_bridge(project, LEGACY_TOKEN)
    wait_for(lambda: ada.batch(project)[1])
    me, wanted = ada.number, {}

    def annotate(number: int) -> None:
        for _ in range(number):
            task = ada.next_task(project)
            ada.annotate(task, kind_of[task])
            wanted[str(task), me] = kind_of[task]

    annotate(2)
    bridge.end()
    annotate(2)
    bridge.start()
    annotate(1)
    service.kill()
    annotate(2)
    service.start()
    annotate(1)
    label_studio.end(signal.SIGKILL)
    label_studio.start()
    annotate(2)
    wait_for(lambda: answers_in_service(client, project) == wanted)
    version = ada.batch(project)[0]
    annotate(2)
    wait_for(lambda: ada.batch(project)[0] != version)
    wait_for(lambda: answers_in_service(client, project) == wanted)
    print(f"labels in step {len(answers_in_service(client, project))} of {len(wanted)}")


def test_the_service_is_an_ml_backend(
    label_studio: RealLabelStudio, service: Service, client: Client, ada: Person
) -> None:
    texts, kinds = mails(24, seed=3)
    project, tasks = ada.create_project(texts)
    kind_of = dict(zip(tasks, kinds, strict=True))
    name = f"backend-{project}"
    url = f"http://127.0.0.1:{service.port}/label-studio/{name}"
    backend = ada.send("POST", "/api/ml/", {"project": project, "url": url, "title": "Active Query"})["id"]

    def versions_after(asked: list[int]) -> set[str]:
        """Return the versions of the predictions of some tasks, after Label Studio has asked for them."""
        body = {"selectedItems": {"all": False, "included": asked}}
        ada.send("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", body)
        found = ada.send("GET", f"/api/predictions/?project={project}&task__project={project}")
        of_asked = [each for each in found if each["task"] in asked]
        assert all(0 <= each["score"] <= 1 for each in of_asked)
        return {each["model_version"] for each in of_asked}

    assert versions_after(tasks[:2]) == {"aq-0"}
    both = [next(task for task in tasks[2:] if kind_of[task] == kind) for kind in KINDS]
    annotations = {task: ada.annotate(task, kind_of[task]) for task in both}
    answers = {(str(task), ada.number): kind_of[task] for task in both}

    def known() -> dict[tuple[str, str], str | None]:
        return {(record["id"], record["annotator"]): record["label"] for record in client.labels(name)}

    wait_for(lambda: known() == answers and client.project(name)["model_version"])
    first = versions_after(tasks[-3:])
    assert first == {f"aq-{client.project(name)['model_version']}"} != {"aq-0"}
    predicted = ada.send("GET", f"/api/predictions/?project={project}&task__project={project}")
    assert any(each["result"] and each["result"][0]["from_name"] == "kind" for each in predicted)
    ada.change(annotations[both[0]], kind_of[both[1]])
    wait_for(lambda: len(set(known().values())) == 1)
    ada.change(annotations[both[0]], kind_of[both[0]])
    wait_for(lambda: known() == answers and not client.project(name)["n_labels_since_fit"])
    ada.send("POST", f"/api/ml/{backend}/train", {})
    wait_for(lambda: versions_after(tasks[-6:-3]) - first - {"aq-0"})
    assert client.project(name)["n_samples"] >= 7
