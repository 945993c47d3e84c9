"""The bridge and the ML backend with a real Label Studio, which `pytest -m label_studio` installs with pip."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from tests.bridges.installed import Answers, RunningBridge, answers_in, install, kill_each_side, wait_for
from tests.bridges.mails import KINDS, mails
from tests.bridges.real_label_studio import LEGACY_TOKEN, VERSION, Person, RealLabelStudio
from tests.bridges.stand_ins import CONFIG
from tests.support.serving import Service

pytestmark = [pytest.mark.label_studio, pytest.mark.timeout(7200)]

REFITS = 10
BATCH_SIZE = 4
SUBJECTS = CONFIG.replace("$body", "$subject")
"""A config that shows another field than that with the text."""


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RealLabelStudio]:
    programs = install(request.config.cache.mkdir(f"label-studio-{VERSION}"), f"label-studio=={VERSION}")
    folder = tmp_path_factory.mktemp("label-studio")
    # The bridge needs neither setting; the ML backend, on this machine, needs both.
    allowed = {"SSRF_PROTECTION_ENABLED": "false", "ML_BLOCK_LOCAL_IP": "false"}
    patient = dict.fromkeys(("ML_CONNECTION_TIMEOUT", "ML_TIMEOUT_HEALTH", "ML_TIMEOUT_SETUP"), "60")
    server = RealLabelStudio(programs, folder / "data", folder / "log", **allowed, **patient).start()
    yield server
    server.end()


@pytest.fixture
def ada(label_studio: RealLabelStudio) -> Person:
    return Person(label_studio.url, LEGACY_TOKEN)


@pytest.fixture
def start_bridge(
    label_studio: RealLabelStudio, service: Service, tmp_path: Path
) -> Iterator[Callable[..., RunningBridge]]:
    bridges: list[RunningBridge] = []

    def start(project: int, token: str, *options: str) -> RunningBridge:
        there = ["--url", label_studio.url, "--token", token, "--project", str(project)]
        here = ["--aq", f"http://127.0.0.1:{service.port}", "--batch-size", str(BATCH_SIZE)]
        bridges.append(RunningBridge(["label-studio", *there, *here, *options], tmp_path / "bridge.log"))
        return bridges[-1]

    yield start
    for bridge in bridges:
        bridge.end()
        print(bridge.log.read_text()[-3000:])


def label_in_order(
    person: Person, project: int, kind_of: Callable[[int], str], n_versions: int
) -> tuple[list[str], dict[int, int], list[tuple[int, list[int]]]]:
    """Annotate next tasks until the project has shown that many versions.

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


def change_much(
    label_studio: RealLabelStudio, ada: Person, project: int, kind_of: dict[int, str], annotations: dict[int, int]
) -> tuple[Answers, Person]:
    """Change an annotation, delete one, delete a task, skip one, import tasks, and let Bob annotate one of them.

    Return the answers that the service should have then, and Bob.
    """
    me = ada.number
    wanted: Answers = {(str(task), me): kind_of[task] for task in annotations}
    first, second, third, *_ = annotations
    other = next(kind for kind in KINDS if kind != kind_of[first])
    ada.change(annotations[first], other)
    wanted[str(first), me] = other
    ada.send("DELETE", f"/api/annotations/{annotations[second]}/")
    del wanted[str(second), me]
    ada.send("DELETE", f"/api/tasks/{third}/")
    del wanted[str(third), me]
    skipped = ada.next_task(project)
    ada.annotate(skipped, None)
    wanted[str(skipped), me] = None
    late_texts, late_kinds = mails(10, seed=1)
    late = ada.import_texts(project, late_texts)
    kind_of |= dict(zip(late, late_kinds, strict=True))
    bob = label_studio.invite(f"bob-{project}@example.org")
    bob.annotate(late[0], late_kinds[0])
    wanted[str(late[0]), bob.number] = late_kinds[0]
    return wanted, bob


def test_label_all_tasks_shows_what_the_service_chose(
    label_studio: RealLabelStudio,
    client: Client,
    ada: Person,
    start_bridge: Callable[..., RunningBridge],
) -> None:
    texts, kinds = mails(120, seed=0)
    project, tasks = ada.create_project(texts)
    kind_of = dict(zip(tasks, kinds, strict=True))
    start_bridge(project, label_studio.personal_token(), "--prelabel")
    wait_for(lambda: ada.batch(project)[1])

    versions, annotations, misplaced = label_in_order(ada, project, kind_of.__getitem__, REFITS + 1)
    print(f"served = pushed {len(annotations) - len(misplaced)} of {len(annotations)} over {len(versions)} batches")
    assert not misplaced

    name, me = f"label-studio-{project}", ada.number
    wait_for(lambda: answers_in(client, name) == {(str(task), me): kind_of[task] for task in annotations})
    wanted, bob = change_much(label_studio, ada, project, kind_of, annotations)
    wait_for(lambda: answers_in(client, name) == wanted)
    found = client.project(name)
    assert (found["n_samples"], found["n_removed"]) == (130, 1)

    deleted = [*annotations][2]
    for _ in range(BATCH_SIZE):
        # With two annotators, Label Studio draws among the tasks of the batch.
        before, task, after = bob.batch(project), bob.next_task(project), bob.batch(project)
        assert task in {*before[1], *after[1]} - {deleted}
        bob.annotate(task, kind_of[task])
        wanted[str(task), bob.number] = kind_of[task]
        wait_for(lambda: answers_in(client, name) == wanted)


def test_nothing_is_lost_when_a_side_or_the_bridge_is_killed(
    label_studio: RealLabelStudio,
    service: Service,
    client: Client,
    ada: Person,
    start_bridge: Callable[..., RunningBridge],
) -> None:
    texts, kinds = mails(60, seed=2)
    project, tasks = ada.create_project(texts)
    kind_of = dict(zip(tasks, kinds, strict=True))
    bridge = start_bridge(project, LEGACY_TOKEN)
    wait_for(lambda: ada.batch(project)[1])
    name, me = f"label-studio-{project}", ada.number
    wanted: Answers = {}

    def annotate(number: int) -> None:
        for _ in range(number):
            task = ada.next_task(project)
            ada.annotate(task, kind_of[task])
            wanted[str(task), me] = kind_of[task]

    kill_each_side(annotate, bridge, service, label_studio)
    wait_for(lambda: answers_in(client, name) == wanted)
    version = ada.batch(project)[0]
    annotate(2)
    wait_for(lambda: ada.batch(project)[0] != version)
    wait_for(lambda: answers_in(client, name) == wanted)
    print(f"labels in step {len(answers_in(client, name))} of {len(wanted)}")


class Backend:
    """The service as the ML backend of a project, whose texts are not the field that the config shows."""

    def __init__(self, ada: Person, service: Service, client: Client, project: int) -> None:
        self.ada, self.client, self.project, self.name = ada, client, project, f"backend-{project}"
        url = f"http://127.0.0.1:{service.port}/label-studio/{self.name}/text_field=body"
        created = ada.send("POST", "/api/ml/", {"project": project, "url": url, "title": "Active Query"})
        self.number: int = created["id"]

    @property
    def version(self) -> str:
        """The version of the model."""
        (version,) = self.client.send("GET", f"/label-studio/{self.name}/versions")["versions"]
        return str(version)

    @property
    def answers(self) -> Answers:
        return answers_in(self.client, self.name)

    def wait_for_fit(self) -> None:
        """Wait until the model has seen all labels."""
        wait_for(lambda: not self.client.project(self.name)["n_labels_since_fit"])

    def predict(self) -> dict[int, dict[str, Any]]:
        """Let Label Studio ask for predictions of all tasks by the present model, and return them by task."""
        version = self.version
        body = {"selectedItems": {"all": True, "excluded": []}}
        self.ada.send("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}", body)
        found = self.ada.predictions(self.project)
        return {each["task"]: each for each in found if each["model_version"] == version}

    def show_unsure_first(self) -> dict[int, float]:
        """Order the tasks by the confidence of the present model, and return it by task."""
        self.wait_for_fit()
        predicted = self.predict()
        change = {"sampling": "Uncertainty sampling", "model_version": self.version}
        self.ada.send("PATCH", f"/api/projects/{self.project}/", change)
        return {task: each["score"] for task, each in predicted.items()}


def test_the_service_is_an_ml_backend(
    label_studio: RealLabelStudio,
    service: Service,
    client: Client,
    ada: Person,
    start_bridge: Callable[..., RunningBridge],
) -> None:
    texts, kinds = mails(30, seed=3)
    project, tasks = ada.create_project(texts, SUBJECTS)
    kind_of = dict(zip(tasks, kinds, strict=True))
    backend = Backend(ada, service, client, project)
    assert {(each["model_version"], each["score"]) for each in backend.predict().values()} == {("aq-0", 0.0)}
    assert sorted(client.query(backend.name, 30, include=["text"]).reply["texts"]) == sorted(texts)

    both = [next(task for task in tasks if kind_of[task] == kind) for kind in KINDS]
    annotations = {task: ada.annotate(task, kind_of[task]) for task in both}
    versions = []
    for _ in range(REFITS):
        wait_for(lambda: len(backend.answers) == len(annotations))
        confidence = backend.show_unsure_first()
        versions.append(backend.version)
        task = ada.next_task(project)
        assert confidence[task] == min(confidence[each] for each in tasks if each not in annotations)
        annotations[task] = ada.annotate(task, kind_of[task])
    print(f"model versions of the ML backend: {', '.join(versions)}")
    assert len({*versions, "aq-0"}) == REFITS + 1
    assert all(each["result"][0]["from_name"] == "kind" for each in backend.predict().values())

    wanted, _ = change_much(label_studio, ada, project, kind_of, annotations)
    wait_for(lambda: backend.answers == wanted)
    found = client.project(backend.name)
    assert (found["n_samples"], found["n_removed"]) == (40, 1)
    backend.wait_for_fit()
    unseen = next(task for task in tasks if task not in annotations)
    wanted[str(unseen), "carol"] = kind_of[unseen]
    client.label(backend.name, {str(unseen): kind_of[unseen]}, by="id", annotator="carol", refit="never")
    ada.send("POST", f"/api/ml/{backend.number}/train", {})
    backend.wait_for_fit()

    # A webhook is sent once: what is annotated while the service is away comes with the bridge.
    left = [task for task in kind_of if (str(task), ada.number) not in wanted and task not in annotations]
    service.kill()
    ada.annotate(left[0], kind_of[left[0]])
    service.start()
    label_studio.end(signal.SIGKILL)
    label_studio.start()
    for task in left[:2]:
        wanted[str(task), ada.number] = kind_of[task]
    ada.annotate(left[1], kind_of[left[1]])
    wait_for(lambda: (str(left[1]), ada.number) in backend.answers)
    start_bridge(project, LEGACY_TOKEN, "--aq-project", backend.name, "--text-field", "body", "--once")
    wait_for(lambda: backend.answers == wanted)
