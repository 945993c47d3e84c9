"""The learning curve: a point for each model, and fewer for the oldest beyond a thousand."""

from __future__ import annotations

import numpy as np

from service.domain.learning_curve import MAX_POINTS, POINT, FitMeasures, LearningCurve


def curve_of(n_points: int) -> LearningCurve:
    """Points with one new label each, asked by two strategies in turn."""
    curve = LearningCurve()
    for n in range(1, n_points + 1):
        asked = {"margin" if n % 2 else "entropy": 1}
        measures = FitMeasures(seen_until=n, n_labeled=n, n_new=1, n_right=n % 2, questions=asked)
        curve = curve.with_point(measures, model_version=n, fitted_at=n, test_score=None)
    return curve


def test_a_curve_keeps_its_newest_points_and_all_counts():
    curve = curve_of(MAX_POINTS + 600)
    assert MAX_POINTS // 2 < len(curve) <= MAX_POINTS
    versions = curve.points["model_version"]
    assert versions[-400:].tolist() == list(range(MAX_POINTS + 201, MAX_POINTS + 601))
    assert (np.diff(versions) > 0).all()
    assert curve.points["n_new"].sum() == MAX_POINTS + 600
    assert dict(zip(curve.strategies, curve.questions.sum(axis=0).tolist(), strict=True)) == {
        "entropy": MAX_POINTS // 2 + 300,
        "margin": MAX_POINTS // 2 + 300,
    }


def test_a_merged_point_keeps_the_estimate_of_either():
    estimate = (0.5, 0.4, 0.6)
    curve = LearningCurve().with_point(FitMeasures(1, 1, estimate=estimate), 1, 1, None)
    for n in range(2, MAX_POINTS + 2):
        curve = curve.with_point(FitMeasures(n, n), n, n, None)
    assert curve.points["model_version"][0] == 2
    assert tuple(curve.points["estimate"][0]) == estimate


def test_plain_points_make_the_same_curve():
    curve = curve_of(5).with_point(FitMeasures(6, 6, (0.5, 0.25, 0.75), kappa=0.5), 6, 6, (1.0, 1.0, 1.0, 0.0))
    again = LearningCurve.from_plain(curve.to_plain())
    for name in POINT.names:
        np.testing.assert_array_equal(again.points[name], curve.points[name])
    np.testing.assert_array_equal(again.questions, curve.questions)
    assert again.strategies == curve.strategies
    assert len(LearningCurve.from_plain([])) == 0
