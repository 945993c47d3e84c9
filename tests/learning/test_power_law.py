"""The power law of a learning curve, and what it expects of more labels."""

from __future__ import annotations

import numpy as np
import pytest

from service.learning.power_law import expected_gains

SIZES = np.array([30.0, 50.0, 80.0, 120.0, 200.0])


@pytest.mark.parametrize(("limit", "scale", "exponent"), [(0.9, 1.5, 0.5), (0.95, 3.0, 0.8), (1.0, 0.8, 0.3)])
def test_the_gain_on_an_exact_curve_is_exact(limit, scale, exponent):
    curve = limit - scale * SIZES**-exponent
    gains = expected_gains(SIZES, curve[np.newaxis], 200.0, np.array([220.0, 400.0]))
    expected = scale * (200.0**-exponent - np.array([220.0, 400.0]) ** -exponent)
    assert gains[0] == pytest.approx(expected, abs=1e-3)


def test_no_curve_is_expected_to_fall_or_to_exceed_one():
    falling, steep = 0.9 - 0.0005 * SIZES, 0.5 + 0.0025 * SIZES
    gains = expected_gains(SIZES, np.array([falling, steep]), 200.0, np.array([400.0, 1e9]))
    assert gains[0] == pytest.approx([0.0, 0.0])
    assert (gains >= 0).all() and gains[1, 1] <= 0.5
