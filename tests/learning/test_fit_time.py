"""The time of a fit, foreseen from its labels, and told where it is long."""

from __future__ import annotations

import pytest

from service.learning import fit_time
from service.learning.estimators import ESTIMATORS, resolve_estimator
from service.learning.fit_time import SECONDS, faster_estimator, fit_seconds, note_on_fit_time
from tests.support.calls import end_labels, line_pool, post


@pytest.mark.parametrize(
    ("name", "params", "n_labels", "seconds"),
    [
        ("extra_trees", {}, 10_000, 5.8),
        ("random_forest", {}, 10_000, 14.5),
        ("random_forest", {"max_features": "all"}, 10_000, 116),
        ("random_forest", {"max_features": "log2"}, 10_000, 11),
        ("hist_gradient_boosting", {}, 1_000, 3.4),
        ("hist_gradient_boosting", {}, 10_000, 15),
        ("svc", {}, 10_000, 19),
        ("mlp", {}, 10_000, 11),
        ("auto", {}, 10_000, 2.9),
        ("gaussian_process", {}, 1_000, 11),
        ("logistic_regression", {}, 50_000, 0),
        ("gaussian_nb", {}, 50_000, 0),
    ],
)
def test_it_is_about_as_long_as_measured(name, params, n_labels, seconds):
    assert fit_seconds(resolve_estimator(name, params), "class", n_labels, 64, 10) == pytest.approx(seconds, rel=0.05)


def test_every_estimator_named_is_one_and_takes_no_more_for_fewer_labels():
    assert set(SECONDS) <= set(ESTIMATORS)
    for name in SECONDS:
        spec = resolve_estimator(name, {})
        few, some, many = (fit_seconds(spec, "class", *size) for size in ((1, 1, 1), (500, 64, 10), (2000, 64, 10)))
        assert 0 < few < some < many


@pytest.mark.parametrize(
    ("name", "params", "times"),
    [("svc", {}, 10), ("extra_trees", {}, 1), ("extra_trees", {"class_weight": "balanced"}, 10)],
)
def test_an_estimator_of_one_class_takes_its_time_for_each_of_several_labels(name, params, times):
    spec = resolve_estimator(name, params)
    of_one = fit_seconds(spec, "class", 1000, 64, 10)
    assert fit_seconds(spec, "labels", 1000, 64, 10) == pytest.approx(times * of_one)


def test_the_estimators_that_do_in_time_are_named():
    size = resolve_estimator("svc", {}), "class", 10_000, 64, 10
    assert (
        faster_estimator(*size, 600)
        == "logistic_regression is quick, and extra_trees would take about 5.7 s of one core"
    )
    assert faster_estimator(*size, 5) == "logistic_regression is quick"


def test_a_long_fit_is_told_with_an_estimator_that_is_quick():
    note = note_on_fit_time(resolve_estimator("svc", {}), "class", 20_000, 64, 10)
    assert note.startswith("svc takes about 75 s of one core to learn from 20,000 labels")
    assert note.endswith("logistic_regression is quick")
    assert note_on_fit_time(resolve_estimator("random_forest", {}), "number", 20_000, 64, 0).endswith("ridge is quick")
    assert note_on_fit_time(resolve_estimator("svc", {}), "class", 1_000, 64, 10) is None


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "respond-async"}])
def test_the_reply_of_a_fit_tells_it_whether_it_waits_or_not(client, monkeypatch, prefer):
    monkeypatch.setattr(fit_time, "NOTED_SECONDS", 1e-9)
    body = {"project_id": "p", "X": line_pool(), "y": end_labels(), "estimator": "svc"}
    made = client.post("/fit", json=body, headers=prefer).json
    assert made["notes"][0].startswith("svc takes about")
    assert not any(
        "takes about" in note for note in post(client, "/fit", project_id="p", estimator="gaussian_nb")["notes"]
    )


def test_nothing_is_told_where_there_is_nothing_to_fit(client, monkeypatch):
    monkeypatch.setattr(fit_time, "NOTED_SECONDS", 0)
    assert post(client, "/fit", 201, project_id="p", X=line_pool(), estimator="svc")["notes"] == []
