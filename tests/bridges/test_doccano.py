"""The bridge to doccano, between a real service and a small stand-in for doccano."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from service.bridges import doccano
from service.bridges.bridge import Bridge
from service.bridges.doccano import Doccano
from service.bridges.web import ToolError
from service.cli.main import main
from service.client import Client
from tests.bridges.stand_ins import FakeDoccano, serving

WORDS = ["prize", "meeting", "pills", "minutes", "holiday", "lunch", "lottery", "agenda"]


@pytest.fixture
def tool() -> FakeDoccano:
    tool = FakeDoccano()
    tool.add(*(f"{word} {number}" for number in range(3) for word in WORDS))
    return tool


@pytest.fixture
def url(tool: FakeDoccano) -> Iterator[str]:
    with serving(tool) as url:
        yield url


def bridge_of(aq: Client, url: str, password: str = "pass") -> Bridge:  # noqa: S107 - of the stand-in
    return Bridge(Doccano(url, "admin", password, 3), aq, "mails", 6)


def label_of(tool: FakeDoccano, number: int) -> int:
    return 2 if WORDS.index(tool.examples[number]["text"].split()[0]) % 2 == 0 else 1


def labels(aq: Client) -> dict[str, Any]:
    return {record["id"]: (record["annotator"], record["label"]) for record in aq.labels("mails")}


def test_a_batch_has_the_lowest_scores_in_its_order(aq: Client, url: str, tool: FakeDoccano) -> None:
    bridge = bridge_of(aq, url)
    bridge.step()
    assert [str(number) for number in tool.next_examples()] == aq.query("mails", 6).ids
    assert aq.project("mails")["classes"] == ["ham", "spam"]
    shown = tool.next_examples()
    for number in shown[:3]:
        tool.annotate(number, label_of(tool, number), user=4)
    bridge.step()
    assert len(tool.next_examples()) == 6
    assert sorted(each["score"] for each in tool.examples.values())[6:] == [100.0] * 18
    assert set(labels(aq)) == {str(number) for number in shown[:3]}
    assert {annotator for annotator, _ in labels(aq).values()} == {"doccano-4"}


def test_changes_skips_deletions_and_new_examples_arrive(
    aq: Client, url: str, tool: FakeDoccano, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doccano, "READINGS_BETWEEN", 1)
    bridge = bridge_of(aq, url)
    for number in (1, 2, 3, 4):
        tool.annotate(number, label_of(tool, number))
    bridge.step()
    assert len(labels(aq)) == 4
    tool.annotate(1, 1)
    del tool.categories[2]
    del tool.examples[3]
    tool.annotate(5, None)
    tool.add("late mail")
    bridge.step()
    assert labels(aq) == {"1": ("doccano-1", "ham"), "4": ("doccano-1", "ham"), "5": ("doccano-1", None)}
    assert aq.project("mails")["n_samples"] == 25
    tool.annotate(25, 2)
    again = bridge_of(aq, url)
    again.step()
    assert labels(aq)["25"] == ("doccano-1", "spam")


def test_a_login_that_has_ended_is_renewed(aq: Client, url: str, tool: FakeDoccano) -> None:
    bridge = bridge_of(aq, url)
    bridge.step()
    tool.bearers.append("another")
    bridge.step()
    assert len(tool.bearers) == 3
    with pytest.raises(ToolError, match="400"):
        bridge_of(aq, url, "wrong").step()


def test_the_command_runs_once(aq: Client, url: str, tool: FakeDoccano) -> None:
    there = ["--url", url, "--username", "admin", "--password", "pass", "--project", "3", "--batch-size", "4"]
    done = CliRunner().invoke(main, ["doccano", *there, "--aq", aq.url.geturl(), "--once"])
    assert (done.exit_code, len(tool.next_examples())) == (0, 4), done.output
    assert aq.project("doccano-3")["n_samples"] == 24
