"""The short form of `python -m tests.torture`, of those trials that nothing else in the suite stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import TRIALS
from tests.torture.holdings import Grant, Holdings
from tests.torture.sizes import QUICK


@pytest.mark.parametrize("name", ["storm", "annotators", "machine", "crash_points", "fuzz"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    tally = TRIALS[name].run(QUICK, 0, tmp_path)
    assert tally.counts
    assert tally.lost == []


# The trials themselves: what they would not notice they could not find.


@pytest.mark.parametrize(
    ("grants", "n_found"),
    [
        ([("ada", 1, 2, 9), ("bob", 3, 4, 8)], 1),
        ([("ada", 1, 2, 9), ("bob", 3, 4, 4)], 1),  # who let it go at once was given it all the same
        ([("ada", 1, 4, 9), ("bob", 2, 3, 5)], 1),
        ([("ada", 1, 2, 3), ("bob", 3, 4, 8)], 0),
        ([("ada", 1, 2, 9), ("ada", 3, 4, 8)], 0),
        ([("ada", 1, 2, 9), ("bob", 8, 10, 20)], 0),  # it may have been given away after the end
    ],
)
def test_a_sample_that_two_hold_is_found(grants: list[tuple[str, float, float, float]], n_found: int) -> None:
    holdings = Holdings()
    for grant in grants:
        holdings.given(7, Grant(*grant))
    assert len(list(holdings.violations())) == n_found


def test_a_labelled_sample_that_is_given_away_is_found() -> None:
    holdings = Holdings()
    holdings.labelled(7, 5)
    for sent in (4, 6):
        holdings.given(7, Grant("ada", sent, sent + 0.5, 20))
    (found,) = holdings.violations()
    assert "labelled" in found
