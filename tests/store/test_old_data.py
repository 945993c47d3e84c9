"""A data directory that commit 7395c2f wrote, before modules moved, reads as it did then.

It has a project for each estimator, one with sparse rows, and one with everything else: names, a held-out set, votes
of several annotators, a lease and a stored reply. `facts.json` holds what that version answered.
"""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import sklearn

from service.app import create_app
from service.learning.estimators import ESTIMATORS
from service.settings import Settings
from service.store import Part, Store
from service.store.check import check_project, project_directories
from service.store.old_paths import MOVED
from service.usecases.training import read_with_model

ARCHIVE = Path(__file__).with_name("old_data.tar.xz")
NEWER = {"auto", "ridge", "gaussian_process"}
CHANGED = {"auto"}  # strategies that choose other samples since
PROJECTS = (*(name for name in ESTIMATORS if name not in NEWER), "svc-of-few", "everything", "sparse")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("old") / "data"
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it
        archive.extractall(root)  # noqa: S202 - the archive is our own
    for reply in (root / "replies").iterdir():
        os.utime(reply)  # it is kept for a day
    return root


@pytest.fixture(scope="module")
def facts(root):
    return json.loads((root / "facts.json").read_text())


@pytest.fixture(scope="module")
def client(root):
    return create_app(Settings(data_dir=root, log_level="error")).test_client()


@pytest.mark.parametrize(("path", "name"), [(path, each.__name__) for path, moved in MOVED.items() for each in moved])
def test_an_old_path_leads_to_the_moved_class(path, name):
    found = pickle.loads(f"c{path}\n{name}\n.".encode())
    assert found.__name__ == name
    assert found.__module__.startswith("service.learning.")


def test_the_old_directory_is_in_order(root):
    for directory in project_directories(root):
        assert check_project(directory) == []


@pytest.mark.parametrize("name", PROJECTS)
def test_an_old_project_reads_as_it_did(client, facts, name):
    fact = facts["projects"][name]
    project = client.get(f"/projects/{name}").json
    assert {key: project[key] for key in fact["project"]} == fact["project"]
    assert client.get(f"/projects/{name}/labels").json["labels"] == fact["labels"]
    assert client.get(f"/projects/{name}/events?limit=100").json["events"] == fact["events"]


@pytest.mark.parametrize("name", PROJECTS)
def test_an_old_model_predicts_as_it_did(root, facts, name):
    # Another scikit-learn may not read the model; the service fits it again then.
    snapshot = read_with_model(Store(root), name, Part.POOL)
    probabilities = snapshot.model.predict_proba(snapshot.pool.take(np.arange(24)))
    if sklearn.__version__ == facts["sklearn"]:
        assert np.allclose(probabilities, facts["projects"][name]["probabilities"])


@pytest.mark.parametrize("name", PROJECTS)
def test_an_old_project_asks_as_it_did(client, facts, name):
    for strategy, fact in facts["projects"][name]["queries"].items():
        reply = client.post("/query", json={"project_id": name, "batch_size": 4, "strategy": strategy})
        assert reply.status_code == 200
        assert len(reply.json["indices"]) == len(fact["indices"])
        if sklearn.__version__ == facts["sklearn"] and strategy not in CHANGED:
            assert reply.json["indices"] == fact["indices"]
            assert reply.json["scores"] == pytest.approx(fact["scores"])


def test_an_old_lease_is_kept(root, facts):
    leases = [[lease.annotator, lease.index.tolist(), lease.query_id] for lease in Store(root).leases("everything").all]
    assert leases == facts["projects"]["everything"]["leases"] != []


def test_an_old_reply_is_replayed(client, facts):
    kept = facts["kept"]
    reply = client.post(kept["path"], json=kept["json"], headers={"Idempotency-Key": kept["key"]})
    assert reply.headers["Idempotent-Replayed"] == "true"
    assert reply.get_data(as_text=True) == kept["reply"]
