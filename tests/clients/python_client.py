"""Use the client that openapi-python-client generates: python python_client.py URL KEY.

It runs where only that client is installed, which mypy cannot know; the test checks its types there.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from active_query_client import AuthenticatedClient
from active_query_client.api.fit import fit_project
from active_query_client.api.label import label_project, list_project_labels
from active_query_client.api.query import query_project
from active_query_client.api.transfer import export_project, import_project
from active_query_client.models import (
    EstimatorName,
    FitConfig,
    FitForm,
    FitRequest,
    LabelList,
    LabelReply,
    LabelRequest,
    NotedProject,
    Problem,
    Project,
    QueryReply,
    QueryRequest,
    SampleRecord,
    StrategyName,
    SubmittedLabel,
)
from active_query_client.types import File

URL, KEY = sys.argv[1:]
CLIENT = AuthenticatedClient(URL, KEY)
POOL = np.linspace(-1, 1, 24).reshape(12, 2)


def fit_with_json() -> None:
    rows: list[list[bool | float | None] | SampleRecord] = [[*row] for row in POOL.tolist()]
    request = FitRequest(
        project_id="json", x=rows, y=["low", *[None] * 10, "high"], estimator=EstimatorName.GAUSSIAN_NB
    )
    project = fit_project.sync(client=CLIENT, body=request)
    assert isinstance(project, NotedProject)
    assert project.classes == ["high", "low"]


def fit_with_a_form() -> None:
    pool = io.BytesIO()
    np.save(pool, POOL.astype(np.float32))
    pool.seek(0)
    form = FitForm(
        config=FitConfig(project_id="form", estimator=EstimatorName.GAUSSIAN_NB),
        x=File(pool, "pool.npy", "application/x-npy"),
        y=File(io.BytesIO(b"[1, null, null, null, null, null, null, null, null, null, null, 2]")),
    )
    project = fit_project.sync(client=CLIENT, body=form)
    assert isinstance(project, NotedProject)
    assert (project.n_samples, project.n_features, project.classes) == (12, 2, [1, 2])


def query_and_label() -> None:
    query = query_project.sync(
        client=CLIENT, body=QueryRequest(project_id="json", batch_size=3, strategy=StrategyName.MARGIN)
    )
    assert isinstance(query, QueryReply)
    first, *rest = query.indices
    records = [
        SubmittedLabel(index=first, skip=True),
        *(SubmittedLabel(index=index, label="high" if index > 5 else "low") for index in rest),
    ]
    labeled = label_project.sync(
        client=CLIENT, body=LabelRequest(project_id="json", labels=records, query_id=query.query_id)
    )
    assert isinstance(labeled, LabelReply)
    assert (labeled.n_changed, labeled.n_skipped, labeled.model_version) == (3, 1, 2)


def export_and_import() -> None:
    archive = export_project.sync("json", client=CLIENT)
    assert isinstance(archive, File)
    copy = import_project.sync(client=CLIENT, body=archive, project_id="copy")
    assert isinstance(copy, Project)
    lists = [list_project_labels.sync(name, client=CLIENT) for name in ("json", "copy")]
    assert all(isinstance(labels, LabelList) and len(labels.labels) == 5 for labels in lists)
    assert lists[0] == lists[1]


def read_a_problem() -> None:
    problem = query_project.sync(client=CLIENT, body=QueryRequest(project_id="nothing"))
    assert isinstance(problem, Problem)
    assert (problem.status, problem.title) == (404, "Not Found")


fit_with_json()
fit_with_a_form()
query_and_label()
export_and_import()
read_a_problem()
print("done")
