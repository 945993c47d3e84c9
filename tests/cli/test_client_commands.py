"""The commands that call a service, each against a real one."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from service.cli.annotate import kept_lease
from service.cli.main import main
from service.client import Client
from tests.support.blocks import BLOCK, commands, program_of
from tests.support.serving import Service, free_port, wait_until
from tests.support.tables import GUIDE

Run = Callable[..., Result]
PAGE = (GUIDE / "shell.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("shell")
    service = Service(folder / "data", folder / "log", AQ_WORKERS="1").start()
    yield f"http://127.0.0.1:{service.port}"
    service.stop()


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def call(line: str, expect: int = 0, **options: Any) -> Result:
        ended = CliRunner().invoke(main, line.split(), env={"ACTIVE_QUERY_URL": url}, **options)
        assert ended.exit_code == expect, (ended.output, ended.exception)
        return ended

    return call


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_guide_lead_from_a_file_to_predictions(run: Run, tmp_path: Path, url: str) -> None:
    shown = []
    blocks = list(BLOCK.finditer(PAGE))
    for command in (command for block in blocks if block["language"] == "bash" for command in commands(block["text"])):
        if program := program_of(command):
            subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
        else:
            shown.append(run(command.removeprefix(".venv/bin/active-query ").replace('"$AQ"', url)).stdout)
    assert len(shown) == 5
    (expected,) = (block["text"] for block in blocks if block["language"] == "text")
    assert shown[2] == expected
    with (tmp_path / "predictions.csv").open(newline="") as file:
        found = {row["id"]: row["label"] for row in csv.DictReader(file)}
    with (tmp_path / "mails.csv").open(newline="") as file:
        spam = {row["id"]: bool({"win", "prize", "free"} & set(row["text"].split())) for row in csv.DictReader(file)}
    assert len(found) == 400
    assert sum((found[name] == "spam") >= is_spam for name, is_spam in spam.items()) > 390
    assert all(label["query_id"] and label["annotator"] == "ada" for label in Client(url).labels("shell"))


def test_a_project_is_exported_and_imported(run: Run, tmp_path: Path, url: str) -> None:
    Client(url).fit("exported", [[0.0], [1.0]], ["a", None], estimator="gaussian_nb")
    run("export --project exported --out copy.zip")
    assert json.loads(run("import --file copy.zip --project copy --json").stdout)["n_labeled"] == 1
    found = json.loads(run("project --json").stdout)["projects"]
    assert {"exported", "copy"} <= {each["project_id"] for each in found}


ROWS = [
    {"name": f"n{at}", "a": at, "b": 1.5, "kind": "low" if at == 0 else "high" if at == 9 else None} for at in range(10)
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "pipe"])
def test_a_table_of_any_format_is_a_project(run: Run, tmp_path: Path, kind: str) -> None:
    file, options, more = tmp_path / f"pool.{kind}", "", {}
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif kind == "csv":
        write_csv(file, ROWS)
    else:
        lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
        file.write_text(lines)
        options, more = ("--format jsonl", {"input": lines}) if kind == "pipe" else ("", {})
    name = "-" if kind == "pipe" else file.name
    given = f"--project {kind} --file {name} {options}"
    made = run(f"fit {given} --id-column name --label-column kind --json", **more)
    facts = json.loads(made.stdout)
    assert (facts["n_samples"], facts["n_features"], facts["n_labeled"]) == (10, 2, 2)
    assert "0 added, 10 left out" in run(f"append {given} --if-known ignore", **more).stderr
    assert "ids/0: is in the pool already" in run(f"append {given}", expect=1, **more).stderr
    run(f"fit --project {kind} --estimator gaussian_nb")
    assert "estimator           gaussian_nb" in run(f"project --project {kind}").stdout


def test_arrays_have_labels_by_position(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", np.arange(20.0).reshape(10, 2))
    run("fit --project array --file pool.npy --estimator gaussian_nb")
    rows = [{"index": at, "label": at // 5} for at in (0, 1, 8, 9)] + [{"index": 4, "label": None}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    run("label --project array --file - --format jsonl", input=lines)
    batch = run("query --project array --batch-size 2 --strategy margin --out -").stdout
    assert [row["label"] for row in csv.DictReader(io.StringIO(batch))] == ["", ""]
    table = "index,label\n2,0\n"
    run("label --project array --file - --format csv --refit never", input=table)
    assert json.loads(run("query --project array --json").stdout)["n_labeled"] == 5
    assert len(run("predict --project array --unlabeled --json").stdout.splitlines()) == 5
    run("predict --project array --out found.jsonl")
    assert [json.loads(line)["index"] for line in (tmp_path / "found.jsonl").read_text().splitlines()] == [*range(10)]
    ended = run("simulate --project array --strategy margin --initial 2 --budget 1 --batch-size 1 --repeats 1")
    assert "random" in ended.stdout


WRONG = {
    "no such project": ("query --project none", "there is no project 'none'"),
    "no such file": ("fit --project p --file none.csv", "there is no file 'none.csv'"),
    "no format": ("fit --project p --file -", "--format is one of csv"),
    "a wrong field": (
        "fit --project x --estimator forest",
        "estimator: 'forest' is not an estimator: did you mean 'random_forest'?",
    ),
    "no such column": ("label --project array2 --file labels.csv --label-column kind", "there is no column 'kind'"),
    "a batch in another format": ("query --project p --out batch.parquet", "samples are written to .csv or .jsonl"),
    "a wrong column of texts": ("fit --project p --file labels.csv --text-column body", "'body' is not a column"),
    "a file that is no text": ("label --project array2 --file labels.npy --format csv", "is not UTF-8"),
    "no directory": ("predict --project array2 --out none/p.csv", "none/p.csv: No such file or directory"),
    "no labels": ("label --project array2 --file labels.csv", "has no label in its column 'label'"),
}


@pytest.mark.parametrize(("line", "problem"), WRONG.values(), ids=WRONG)
def test_errors_are_words_and_the_exit_status_is_1(run: Run, tmp_path: Path, url: str, line: str, problem: str) -> None:
    if "array2" in line:
        Client(url).fit("array2", [[1.0], [2.0]], estimator="gaussian_nb", replace=True)
    (tmp_path / "labels.csv").write_text("index,label\n0,\n")
    np.save(tmp_path / "labels.npy", np.zeros(3))
    ended = run(line, expect=1)
    assert problem in ended.stderr
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_service_that_does_not_run_is_one_line(run: Run) -> None:
    ended = run(f"project --url http://127.0.0.1:{free_port()}", expect=1)
    assert ended.stderr == "Error: nothing listens at the address: is the service running, and is --url right?\n"


@pytest.mark.parametrize(
    "name",
    ("project", "fit", "append", "query", "label", "predict", "report", "simulate", "export", "import", "annotate"),
)
def test_each_help_has_an_example(run: Run, name: str) -> None:
    assert f"active-query {name} --" in run(f"{name} --help").stdout


@pytest.fixture
def questions(url: str, request: pytest.FixtureRequest) -> str:
    """A project of ten texts without labels."""
    name = f"ask-{abs(hash(request.node.name))}"
    Client(url).fit(name, texts=[f"text {at}" for at in range(10)], estimator="logistic_regression")
    return name


def labels_of(url: str, project: str) -> list[Any]:
    return sorted((record["label"] or "skip") for record in Client(url).labels(project))


def annotate(run: Run, project: str, answers: str) -> str:
    """Answer from a pipe; a semicolon ends a line."""
    lines = "\n".join(answers.split(";")) + "\n"
    return run(f"annotate --project {project} --annotator ada --batch-size 4", input=lines).stdout


def test_annotating_from_a_pipe(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "+ham;+spam;1;2;s;/sp;/x;1;q")
    assert "text" in shown
    assert "[1] ham  [2] spam" in shown
    assert "0 classes begin so" in shown
    assert "7 answered by ada" in shown
    assert labels_of(url, questions) == ["ham", "ham", "ham", "skip", "spam", "spam", "spam"]
    assert {record["annotator"] for record in Client(url).labels(questions)} == {"ada"}
    assert Client(url).send("GET", f"/projects/{questions}/leases")["leases"] == []


def test_quitting_within_a_batch_stores_the_answers_and_asks_for_a_fit(run: Run, url: str, questions: str) -> None:
    annotate(run, questions, "+ham;+spam;q")
    wait_until(lambda: Client(url).project(questions)["model_version"])
    assert labels_of(url, questions) == ["ham", "spam"]
    annotate(run, questions, "1;u;q")
    wait_until(lambda: not Client(url).project(questions)["fit"]["due"])
    assert labels_of(url, questions) == ["ham", "spam"]


def test_undo_and_skip_cross_the_edge_of_a_batch(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "u;+a;+b;1;s;u;u;2;2;s;u;1;q")
    assert "nothing to undo" in shown
    assert labels_of(url, questions) == ["a", "a", "b", "b", "b"]
    assert Client(url).project(questions)["n_skipped"] == 0


def test_annotating_ends_when_nothing_is_left(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "+ham;" + "1;" * 9)
    assert "nothing is left to ask" in shown
    assert len(labels_of(url, questions)) == 10


def test_a_guess_needs_a_model(run: Run, url: str, questions: str) -> None:
    assert "no model" in annotate(run, questions, "g;q")
    Client(url).label(questions, {0: "ham", 1: "spam"})
    assert "%)" in annotate(run, questions, "g;q")


TARGETS = {
    "class": ("+low;1;q", ["low", "low"], "[1] low"),
    "number": ("low;nan;-1.5;2e1;q", [-1.5, 20.0], "'low' is not a number"),
    "labels": ("+hot;+big cat, +wet;1 3,1;-;;9;q", [[], ["big cat", "wet"], ["hot"], ["hot", "wet"]], "- is none"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_is_answered_in_its_own_way(run: Run, url: str, target: str) -> None:
    answers, expected, said = TARGETS[target]
    rows, fields = [[at, -0.25] for at in range(6)], {"target": target, "feature_names": ["age", "dose"]}
    Client(url).fit(f"target-{target}", rows, **fields, replace=True)
    shown = annotate(run, f"target-{target}", answers)
    assert said in shown
    assert "dose  -0.25" in shown
    found = [record["label"] for record in Client(url).labels(f"target-{target}")]
    assert sorted(sorted(label) if isinstance(label, list) else label for label in found) == expected


def test_a_sample_is_shown_by_its_address_and_the_features_that_are_not_0(run: Run, url: str) -> None:
    rows = np.eye(4, 40) * 2.5
    Client(url).fit("wide", rows, urls=[f"/{at}.png" for at in range(4)], estimator="gaussian_nb", replace=True)
    shown = annotate(run, "wide", "q").splitlines()
    at = next(at for at in range(4) if f"/{at}.png" in shown)
    assert [f"feature {at}  2.5", "and 39 more"] == shown[3:5]


def test_a_lease_is_renewed_while_the_annotator_thinks(url: str) -> None:
    client = Client(url)
    client.fit("thinking", [[0.0], [1.0]], estimator="gaussian_nb", replace=True)
    batch = client.query("thinking", 2, annotator="ada", lease_seconds=1)
    with kept_lease(client, "thinking", batch.query_id, 1):
        time.sleep(1.5)
        assert client.query("thinking", 2, annotator="bob").indices == []
    assert len(client.query("thinking", 2, annotator="bob").indices) == 2


LABEL_ROWS = {
    "number": [{"index": 0, "label": -1.5}, {"index": 2, "label": 3.0}, {"index": 3, "label": None}],
    "labels": [{"index": 0, "label": ["a", "b c"]}, {"index": 2, "label": []}, {"index": 3, "label": None}],
    "class": [{"index": 0, "label": 1}, {"index": 2, "label": 0}, {"index": 3, "label": None}],
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", LABEL_ROWS)
def test_labels_of_each_target_are_read_from_each_format(
    run: Run, url: str, tmp_path: Path, target: str, kind: str
) -> None:
    rows, file = LABEL_ROWS[target], tmp_path / f"labels.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        cells = [{**row, "label": json.dumps(row["label"]) if row["label"] is not None else ""} for row in rows]
        write_csv(file, cells)
    name = f"rows-{target}"
    more = {"classes": [0, 1]} if target == "class" else {}
    Client(url).fit(name, [[0.0], [1.0], [2.0], [3.0]], target=target, **more, replace=True)
    run(f"label --project {name} --file {file} --refit never")
    assert [record["label"] for record in Client(url).labels(name)] == [rows[0]["label"], rows[1]["label"]]


def test_a_bar_is_drawn_on_a_terminal_alone(run: Run, url: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "pool.csv", [{"a": at, "b": 0.123456789} for at in range(6_000)])
    command = f"fit --project bar --replace --estimator gaussian_nb --file pool.csv --url {url}"
    assert "Sending  [------" in on_terminal(command)
    assert "Sending" not in on_terminal(f"{command} --json")
    assert run(command).stderr == ""


def on_terminal(line: str) -> str:
    """Run a command on a terminal of its own, and return what it shows."""
    command = [sys.executable, "-m", "service", *line.split()]
    ours, terminal = pty.openpty()
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # which ends a terminal that nobody has open
            while piece := os.read(ours, 2**16):
                shown += piece
        os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()
