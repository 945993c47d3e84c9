"""The commands that call a service, each against a real one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from service.cli.main import main
from service.client import Client
from tests.support.serving import Service, free_port

Run = Callable[..., Result]
WORDS = {"spam": ["win", "prize", "free", "pills", "offer"], "ham": ["meeting", "minutes", "lunch", "agenda", "report"]}


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


def mails(n: int) -> list[dict[str, str]]:
    """Texts of two topics, with the topic of each."""
    rng = np.random.default_rng(0)
    topics = rng.choice(("spam", "ham"), n).tolist()
    texts = (" ".join([*rng.choice(WORDS[topic], 3), *rng.choice(list("abcdefgh"), 6)]) for topic in topics)
    return [
        {"id": f"m{at}", "text": text, "topic": topic}
        for at, (topic, text) in enumerate(zip(topics, texts, strict=True))
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_five_commands_lead_from_a_file_to_200_labels_and_predictions(run: Run, tmp_path: Path, url: str) -> None:
    pool = mails(300)
    topic_of = {mail["id"]: mail["topic"] for mail in pool}
    write_csv(tmp_path / "mails.csv", pool)
    run("fit --project inbox --file mails.csv --text-column text --id-column id --estimator logistic_regression")
    run("query --project inbox --batch-size 200 --out batch.csv")
    with (tmp_path / "batch.csv").open(newline="") as file:
        batch = [{**row, "label": topic_of[row["id"]]} for row in csv.DictReader(file)]
    write_csv(tmp_path / "batch.csv", batch)
    assert "n_labeled      200" in run("label --project inbox --file batch.csv --id-column id").stdout
    assert "ham" in run("report --project inbox").stdout
    run("predict --project inbox --out predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        found = {row["id"]: row["label"] for row in csv.DictReader(file)}
    assert len(found) == 300
    assert sum(found[name] == topic for name, topic in topic_of.items()) > 285
    labels = Client(url).labels("inbox")
    assert all(label["query_id"] for label in labels)
    run("export --project inbox --out mails.zip")
    assert "200" in run("import --file mails.zip --project copy").stdout
    found = json.loads(run("project --json").stdout)["projects"]
    assert {"inbox", "copy"} <= {each["project_id"] for each in found}


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
    "no labels": ("label --project array2 --file labels.csv", "has no label in its column 'label'"),
}


@pytest.mark.parametrize(("line", "problem"), WRONG.values(), ids=WRONG)
def test_errors_are_words_and_the_exit_status_is_1(run: Run, tmp_path: Path, url: str, line: str, problem: str) -> None:
    if "array2" in line:
        Client(url).fit("array2", [[1.0], [2.0]], estimator="gaussian_nb", replace=True)
    (tmp_path / "labels.csv").write_text("index,label\n0,\n")
    ended = run(line, expect=1)
    assert problem in ended.stderr
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr


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
    lines = "\n".join(answers.split()) + "\n"
    return run(f"annotate --project {project} --annotator ada --batch-size 4", input=lines).stdout


def test_annotating_from_a_pipe(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "+ham +spam 1 2 s /sp /x 1 q")
    assert "--- 0" in shown or "text 0" in shown or "text" in shown
    assert "[1] ham  [2] spam" in shown
    assert "0 classes begin so" in shown
    assert "7 answered by ada" in shown
    assert labels_of(url, questions) == ["ham", "ham", "ham", "skip", "spam", "spam", "spam"]
    assert {record["annotator"] for record in Client(url).labels(questions)} == {"ada"}
    assert Client(url).send("GET", f"/projects/{questions}/leases")["leases"] == []


def test_the_last_answer_is_taken_back(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "u +ham +spam u 1 q")
    assert "nothing to undo" in shown
    assert labels_of(url, questions) == ["ham", "ham"]


def test_annotating_ends_when_nothing_is_left(run: Run, url: str, questions: str) -> None:
    shown = annotate(run, questions, "+ham " + "1 " * 9)
    assert "nothing is left to ask" in shown
    assert len(labels_of(url, questions)) == 10


def test_a_guess_needs_a_model(run: Run, url: str, questions: str) -> None:
    assert "no model" in annotate(run, questions, "g q")
    Client(url).label(questions, {0: "ham", 1: "spam"})
    assert "%)" in annotate(run, questions, "g q")
