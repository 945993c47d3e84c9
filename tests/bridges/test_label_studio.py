"""The bridge to Label Studio, between a real service and a small stand-in for Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from service.bridges.bridge import Batch, Bridge, Task, label_records
from service.bridges.label_studio import LabelStudio
from service.bridges.labeling_config import ConfigError, TaskFields, read_config
from service.bridges.web import ToolError
from service.cli.main import main
from service.client import Client, ServiceError
from tests.bridges.stand_ins import CONFIG, PERSONAL_TOKEN, TOKEN, FakeLabelStudio, serving

WORDS = ["prize", "meeting", "pills", "minutes", "holiday", "lunch", "lottery", "agenda"]
VECTORS = CONFIG.replace('<Text name="text" value="$body"/>', '<Image name="text" value="$image"/>')


@pytest.fixture
def client(aq: Client) -> Client:
    return aq


@pytest.fixture
def tool() -> FakeLabelStudio:
    tool = FakeLabelStudio()
    tool.add(*({"body": f"{word} {number}"} for number in range(3) for word in WORDS))
    return tool


@pytest.fixture
def url(tool: FakeLabelStudio) -> Iterator[str]:
    with serving(tool) as url:
        yield url


def bridge_of(client: Client, there: str, token: str = TOKEN, *, prelabel: bool = False, **fields: str) -> Bridge:
    return Bridge(LabelStudio(there, token, 7, TaskFields(**fields)), client, "mails", 6, prelabel=prelabel)


@pytest.fixture
def bridge(client: Client, url: str) -> Bridge:
    return bridge_of(client, url)


def kind(tool: FakeLabelStudio, task: int) -> str:
    return "spam" if WORDS.index(tool.tasks[task]["data"]["body"].split()[0]) % 2 == 0 else "ham"


def labels(client: Client) -> dict[str, Any]:
    records = client.labels("mails")
    return {record["id"]: "skip" if record["skip"] else record["label"] for record in records}


ASKED = Batch("aq-1-77", ["3"])
RECORD_CASES: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = [
    ({"1": "spam"}, {}, [{"annotator": "1", "label": "spam", "new_class": True, "query_id": "77"}]),
    ({"1": "spam"}, {"1": "spam"}, []),
    ({"1": "spam"}, {"1": "ham"}, [{"annotator": "1", "label": "spam", "new_class": True, "query_id": "77"}]),
    ({"1": None}, {"1": "ham"}, [{"annotator": "1", "skip": True, "query_id": "77"}]),
    ({"1": None}, {"1": None}, []),
    ({}, {"1": None, "2": "ham"}, [{"annotator": "1", "label": None}, {"annotator": "2", "label": None}]),
    ({"2": "ham"}, {"1": "ham", "2": "ham"}, [{"annotator": "1", "label": None}]),
]


@pytest.mark.parametrize(("answers", "present", "records"), RECORD_CASES)
def test_records_are_the_difference_of_both_sides(
    answers: dict[str, Any], present: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    task = Task("3", "text", answers, is_done=False)
    found = list(label_records([task], {"3": present}, ASKED))
    assert found == [{"id": "3", **record} for record in records]


def test_the_tasks_become_the_pool_and_a_batch_is_shown_in_order(
    bridge: Bridge, client: Client, tool: FakeLabelStudio
) -> None:
    bridge.step()
    project = client.project("mails")
    assert (project["n_samples"], project["classes"]) == (24, ["ham", "spam"])
    asked = client.query("mails", 6)
    assert [str(task) for task in tool.next_tasks()] == asked.ids
    assert tool.project["model_version"] == f"aq-0-{asked.query_id}"
    assert all(0 <= each["score"] <= 1 for each in tool.predictions)


def test_the_batch_is_refilled_at_half_and_the_old_one_removed(
    bridge: Bridge, client: Client, tool: FakeLabelStudio
) -> None:
    bridge.step()
    versions = []
    for _ in range(4):
        version, shown = tool.project["model_version"], tool.next_tasks()
        for task in shown[:2]:
            tool.annotate(task, kind(tool, task))
        bridge.step()
        assert tool.project["model_version"] == version
        tool.annotate(shown[2], kind(tool, shown[2]))
        bridge.step()
        assert tool.project["model_version"] != version
        versions.append(tool.project["model_version"])
    assert {each["model_version"] for each in tool.predictions} == {versions[-1]}
    assert len(labels(client)) == 12
    assert client.project("mails")["n_labels_since_fit"] == 0
    assert len(set(versions)) == 4


def test_changes_skips_deletions_and_new_tasks_arrive(bridge: Bridge, client: Client, tool: FakeLabelStudio) -> None:
    for task in (1, 2, 3, 4):
        tool.annotate(task, kind(tool, task))
    bridge.step()
    tool.annotate(1, "ham")
    tool.annotate(2, None)
    tool.retract(3)
    del tool.tasks[4]
    (late,) = tool.add({"body": "late mail"})
    bridge.step()
    assert labels(client) == {"1": "ham", "2": "skip"}
    assert client.project("mails")["n_samples"] == 25
    assert [sample["id"] for sample in client.send("GET", "/projects/mails/samples?status=removed")["samples"]] == ["4"]
    tool.annotate(late, "spam", user=2)
    bridge.step()
    assert {record["id"]: record["annotator"] for record in client.labels("mails")} == {"1": "1", "2": "1", "25": "2"}


def test_a_deleted_task_is_not_shown_again(bridge: Bridge, tool: FakeLabelStudio) -> None:
    bridge.step()
    gone = tool.next_tasks()[:4]
    for task in gone:
        del tool.tasks[task]
    bridge.step()
    assert len(tool.next_tasks()) == 6
    assert not {*gone} & {each["task"] for each in tool.predictions}


def test_a_task_deleted_during_a_push_is_left_out(bridge: Bridge, tool: FakeLabelStudio) -> None:
    tool.deleted_in_import = 5
    bridge.client.fit("mails", texts=["a", "b"], ids=["5", "6"], classes=["ham", "spam"])
    bridge.batch_size = 24
    bridge.step()
    assert sorted(tool.next_tasks()) == [task for task in range(1, 25) if task != 5]


def test_a_bridge_that_starts_again_goes_on(client: Client, url: str, tool: FakeLabelStudio) -> None:
    bridge_of(client, url).step()
    version, shown = tool.project["model_version"], tool.next_tasks()
    tool.annotate(shown[0], "spam")
    again = bridge_of(client, url)
    again.step()
    assert tool.project["model_version"] == version
    tool.annotate(shown[1], "ham")
    tool.retract(shown[0])
    del tool.tasks[shown[2]]
    bridge_of(client, url).step()
    assert labels(client) == {str(shown[1]): "ham"}
    assert client.labels("mails")[0]["query_id"] == version.rpartition("-")[2]


@pytest.mark.parametrize("starts_again", [False, True])
def test_an_edited_task_replaces_its_sample(
    client: Client, url: str, tool: FakeLabelStudio, *, starts_again: bool
) -> None:
    bridge = bridge_of(client, url)
    bridge.step()
    tool.tasks[1]["data"] = {"body": "an edited mail"}
    tool.clock = datetime.now(UTC)
    tool.touch(tool.tasks[1])
    if starts_again:
        bridge = bridge_of(client, url)
    bridge.step()
    asked = client.query("mails", 24, include=["text"])
    assert asked.reply["texts"][(asked.ids or []).index("1")] == "an edited mail"


def test_after_an_error_both_sides_are_read_again(bridge: Bridge, client: Client, tool: FakeLabelStudio) -> None:
    bridge.step()
    tool.annotate(1, "ham")
    tool.is_away = True
    with pytest.raises(ToolError, match="503"):
        bridge.step()
    tool.is_away = False
    client.label("mails", {"1": "spam"}, by="id", annotator="1")
    bridge.step()
    assert labels(client) == {"1": "ham"}


def test_labels_of_others_in_the_project_stay(bridge: Bridge, client: Client) -> None:
    bridge.step()
    client.label("mails", {"1": "ham"}, by="id", annotator="ada")
    bridge.known = None
    bridge.step()
    assert labels(client) == {"1": "ham"}


def test_an_order_that_somebody_changed_is_set_again(bridge: Bridge, tool: FakeLabelStudio) -> None:
    bridge.step()
    shown = tool.next_tasks()
    tool.project |= {"model_version": "theirs", "sampling": "Sequential sampling"}
    tool.predictions.append({"task": 1, "score": 0, "model_version": "theirs"})
    bridge.step()
    assert tool.next_tasks() == shown
    assert any(each["model_version"] == "theirs" for each in tool.predictions)


def test_predictions_come_with_their_confidence_if_asked(client: Client, url: str, tool: FakeLabelStudio) -> None:
    for task in (1, 2, 3, 4):
        tool.annotate(task, kind(tool, task))
    bridge_of(client, url, prelabel=True).step()
    results = [each["result"][0] for each in tool.predictions]
    assert len(results) == 6
    assert all(r["value"]["choices"][0] in ("ham", "spam") and 0 <= r["score"] <= 1 for r in results)
    assert {r["from_name"] for r in results} == {"kind"}


@pytest.mark.parametrize("status", [0, 400])
def test_predictions_that_are_not_taken_are_pushed_without_results(
    client: Client, url: str, tool: FakeLabelStudio, status: int
) -> None:
    tool.result_status = status
    tool.annotate(1, "spam")
    tool.annotate(2, "ham")
    bridge_of(client, url, prelabel=True).step()
    assert len(tool.next_tasks()) == 6
    assert {each["model_version"] for each in tool.predictions} == {tool.project["model_version"]}


def test_a_class_that_looks_like_another_is_taken(client: Client, url: str, tool: FakeLabelStudio) -> None:
    texts = [task["data"]["body"] for task in tool.tasks.values()]
    client.fit("mails", texts=texts, ids=[str(task) for task in tool.tasks], estimator="logistic_regression")
    for task, choice in ((1, "spam"), (2, "ham"), (3, "Ham"), (4, "None")):
        tool.annotate(task, choice)
    bridge_of(client, url).step()
    assert labels(client) == {"1": "spam", "2": "ham", "3": "Ham", "4": "None"}


def test_a_personal_token_buys_a_new_bearer(client: Client, url: str, tool: FakeLabelStudio) -> None:
    bridge = bridge_of(client, url, PERSONAL_TOKEN)
    bridge.step()
    assert len(tool.bearers) == 1
    tool.bearers.append("another")  # the first has expired
    bridge.step()
    assert len(tool.bearers) == 3
    with pytest.raises(ToolError, match="401"):
        bridge_of(client, url, "a.wrong.token").step()
    with pytest.raises(ToolError, match="401"):
        bridge_of(client, url, "wrong").step()


def test_vectors_with_addresses(client: Client) -> None:
    tool = FakeLabelStudio(VECTORS)
    tool.add(*({"v": [n, 1.5], "image": f"/{n}.png"} for n in range(9)), {"v": "no vector", "image": "/9.png"})
    tool.annotate(10, None)
    with serving(tool) as url:
        bridge_of(client, url, vector="v", url="image").step()
        asked = client.query("mails", 2, include=["url"])
        assert asked.reply["urls"] == [f"/{int(sample) - 1}.png" for sample in asked.ids or ()]
        assert client.project("mails")["n_samples"] == 9


def test_several_annotations_of_a_task_are_warned_about(client: Client, url: str, tool: FakeLabelStudio) -> None:
    tool.project["maximum_annotations"] = 2
    label_studio = LabelStudio(url, TOKEN, 7, TaskFields())
    Bridge(label_studio, client, "mails", 6).step()
    assert [text[:29] for text in label_studio.warned] == ["each task gets 2 annotations:"]
    assert len(tool.next_tasks()) == 6
    for task in tool.tasks:
        tool.annotate(task, kind(tool, task))
    again = bridge_of(client, url)
    again.step()
    assert again.known is not None
    assert (len(again.known.batch.ids), again.known.done) == (6, set())


def test_a_project_of_other_samples_is_refused(bridge: Bridge, client: Client) -> None:
    client.fit("mails", texts=["a", "b"], ids=["a", "b"])
    with pytest.raises(ServiceError, match="has none of the tasks"):
        bridge.step()


def test_the_command_runs_once(client: Client, url: str, tool: FakeLabelStudio) -> None:
    there = ["--url", url, "--token", TOKEN, "--project", "7", "--aq", client.url.geturl(), "--once"]
    done = CliRunner().invoke(main, ["label-studio", *there, "--aq-project", "mails", "--batch-size", "3"])
    assert (done.exit_code, len(tool.next_tasks())) == (0, 3), done.output
    there[there.index(TOKEN)] = "wrong"
    for options in (there, there[:-1]):
        done = CliRunner().invoke(main, ["label-studio", *options])
        assert (done.exit_code, "401" in done.output) == (1, True)


WRONG_CONFIGS = {"<View": "not XML", "<View/>": "no <Choices>", "<!DOCTYPE a><View/>": "entities"}


@pytest.mark.parametrize("config", WRONG_CONFIGS)
def test_a_config_without_choices_is_refused(config: str) -> None:
    with pytest.raises(ConfigError, match=WRONG_CONFIGS[config]):
        read_config(config)


def test_a_config_names_its_choices_by_their_aliases() -> None:
    config = read_config(
        CONFIG.replace('value="ham"', 'value="ham" alias="h"').replace("<Choices ", '<Choices choice="multiple" ')
    )
    assert (config.classes, config.field, config.has_several) == (("h", "spam"), "body", True)
    region = {"from_name": "kind", "type": "choices", "value": {"choices": ["spam", "h"]}}
    assert config.answer_in([region]) == ["h", "spam"]


def test_choices_with_several_answers_are_several_labels(client: Client) -> None:
    tool = FakeLabelStudio(CONFIG.replace("<Choices ", '<Choices choice="multiple" '))
    tool.add(*({"body": f"{word} {number}"} for number in range(3) for word in WORDS))
    answers = {1: ["spam"], 2: ["ham"], 3: ["spam", "ham"], 4: ["ham"], 5: ["spam"], 6: None}
    for task, answer in answers.items():
        tool.annotate(task, answer)
    with serving(tool) as url:
        bridge = bridge_of(client, url, prelabel=True)
        bridge.step()
        assert client.project("mails")["target"] == "labels"
        found = {record["id"]: sorted(record["label"] or ()) for record in client.labels("mails")}
        assert found == {str(task): sorted(answer or ()) for task, answer in answers.items()}
        version = client.project("mails")["version"]
        bridge_of(client, url).step()
        assert client.project("mails")["version"] == version
        tool.annotate(1, ["ham", "new"])
        bridge.step()
        assert {r["id"]: r["label"] for r in client.labels("mails")}["1"] == ["ham", "new"]
