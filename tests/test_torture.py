"""The short form of `python -m tests.torture`, of those trials that nothing else in the suite stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import TRIALS
from tests.torture.sizes import QUICK


@pytest.mark.parametrize("name", ["storm", "annotators", "machine", "crash_points", "fuzz"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    tally = TRIALS[name](QUICK, 0, tmp_path)
    assert tally.counts
    assert tally.lost == []
