"""States with changes in the log behind them, as commits bace13f and 7aeea9c wrote them, read as they did then.

There is a project of each target, and one without changes; the changes are labels, skips and retractions of several
annotators. `facts.json` holds what these versions answered.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import Settings
from service.store import Store
from service.store.check import check_project

ARCHIVE = Path(__file__).with_name("old_logs.tar.xz")
NEW_LABELS = {"class": "b", "fresh": "b", "number": 4.5, "labels": ["a", "d"]}


@pytest.fixture(params=["bace13f", "7aeea9c"])
def root(request, tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it
        archive.extractall(tmp_path)  # noqa: S202 - the archive is our own
    return tmp_path / request.param


def test_old_changes_are_read_and_followed_by_new_ones(root):
    client = create_app(Settings(data_dir=root, log_level="error")).test_client()
    facts = json.loads((root / "facts.json").read_text())
    for name, label in NEW_LABELS.items():
        project = client.get(f"/projects/{name}").json
        assert {key: project[key] for key in facts[name]["project"]} == facts[name]["project"]
        assert client.get(f"/projects/{name}/labels").json["labels"] == facts[name]["labels"]
        assert client.get(f"/projects/{name}/events?limit=100").json["events"] == facts[name]["events"]
        labels = [{"index": 0, "label": label, "annotator": "eve"}, {"index": 5, "label": label, "annotator": "bob"}]
        reply = client.post("/label", json={"project_id": name, "labels": labels, "refit": "never"})
        assert reply.json["n_changed"] == 2 - (name == "class")
        assert check_project(root / "projects" / name) == []
        state = Store(root).read(name).project
        assert state.version == facts[name]["project"]["version"] + 1
        assert state.n_labeled == reply.json["n_labeled"]
