"""The bridge with a real doccano, which `pytest -m label_studio` installs with pip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.client import Client
from tests.bridges.installed import Answers, RunningBridge, answers_in, install, kill_each_side, wait_for
from tests.bridges.mails import KINDS, mails
from tests.bridges.real_doccano import ADMIN, PACKAGES, PASSWORD, Person, RealDoccano
from tests.support.serving import Service

pytestmark = [pytest.mark.label_studio, pytest.mark.timeout(7200)]

REFITS = 10
BATCH_SIZE = 4


@pytest.fixture(scope="module")
def doccano(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RealDoccano]:
    programs = install(request.config.cache.mkdir(PACKAGES[0].replace("==", "-")), *PACKAGES)
    folder = tmp_path_factory.mktemp("doccano")
    server = RealDoccano(programs, folder / "data", folder / "log").start()
    yield server
    server.end()


@pytest.fixture
def ada(doccano: RealDoccano) -> Person:
    return Person(doccano.url, ADMIN)


@pytest.fixture
def start_bridge(doccano: RealDoccano, service: Service, tmp_path: Path) -> Iterator[Callable[[Person], RunningBridge]]:
    bridges: list[RunningBridge] = []

    def start(person: Person) -> RunningBridge:
        there = ["--url", doccano.url, "--username", person.name, "--project", str(person.project)]
        here = ["--aq", f"http://127.0.0.1:{service.port}", "--batch-size", str(BATCH_SIZE)]
        log = tmp_path / "bridge.log"
        bridges.append(RunningBridge(["doccano", *there, *here], log, DOCCANO_PASSWORD=PASSWORD))
        return bridges[-1]

    yield start
    for bridge in bridges:
        bridge.end()
        print(bridge.log.read_text()[-3000:])


def test_the_lowest_scores_are_what_the_service_chose(
    doccano: RealDoccano, client: Client, ada: Person, start_bridge: Callable[[Person], RunningBridge]
) -> None:
    texts, kinds = mails(80, seed=0)
    kind_of = dict(zip(ada.create_project(texts), kinds, strict=True))
    name = f"doccano-{ada.project}"
    start_bridge(ada)
    wait_for(ada.batch)

    batches: list[list[int]] = []
    categories: dict[int, int] = {}
    n_misplaced = 0
    while len(batches) < REFITS + 1:
        before, example, after = ada.batch(), ada.next_example(), ada.batch()
        batches += [after] if after not in batches else []
        # A batch may be pushed while the next example is asked for.
        expected = [next((each for each in shown if each not in categories), None) for shown in (before, after)]
        n_misplaced += example not in expected
        categories[example] = ada.annotate(example, kind_of[example])
        if sum(each in categories for each in after) >= BATCH_SIZE // 2:
            wait_for(lambda shown=after: ada.batch() != shown)
    print(f"served = pushed {len(categories) - n_misplaced} of {len(categories)} over {len(batches)} batches")
    assert n_misplaced == 0

    me = ada.annotator
    wanted: Answers = {(str(example), me): kind_of[example] for example in categories}
    wait_for(lambda: answers_in(client, name) == wanted)
    first, second, third, *_ = categories
    other = next(kind for kind in KINDS if kind != kind_of[first])
    ada.take_label_back(first, categories[first])
    ada.add_label(first, other)
    wanted[str(first), me] = other
    ada.take_label_back(second, categories[second])
    ada.toggle(second)
    del wanted[str(second), me]
    ada.send("DELETE", f"{ada.path}/examples/{third}")
    del wanted[str(third), me]
    skipped = ada.next_example()
    ada.annotate(skipped, None)
    wanted[str(skipped), me] = None
    late_texts, late_kinds = mails(5, seed=1)
    late = ada.add(late_texts)
    bob = ada.invite(doccano.url, "bob")
    bob.annotate(late[0], late_kinds[0])
    wanted[str(late[0]), bob.annotator] = late_kinds[0]
    wait_for(lambda: answers_in(client, name) == wanted)
    found = client.project(name)
    assert (found["n_samples"], found["n_removed"]) == (85, 1)


def test_nothing_is_lost_when_a_side_or_the_bridge_is_killed(
    doccano: RealDoccano,
    service: Service,
    client: Client,
    ada: Person,
    start_bridge: Callable[[Person], RunningBridge],
) -> None:
    texts, kinds = mails(40, seed=2)
    kind_of = dict(zip(ada.create_project(texts), kinds, strict=True))
    name, me = f"doccano-{ada.project}", ada.annotator
    bridge = start_bridge(ada)
    wait_for(ada.batch)
    wanted: Answers = {}

    def annotate(number: int) -> None:
        for _ in range(number):
            example = ada.next_example()
            ada.annotate(example, kind_of[example])
            wanted[str(example), me] = kind_of[example]

    kill_each_side(annotate, bridge, service, doccano)
    wait_for(lambda: answers_in(client, name) == wanted)
    shown = ada.batch()
    annotate(3)
    wait_for(lambda: ada.batch() != shown)
    wait_for(lambda: answers_in(client, name) == wanted)
    print(f"labels in step {len(answers_in(client, name))} of {len(wanted)}")
