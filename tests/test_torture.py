"""The short form of `python -m tests.torture`: every trial, a few seconds each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import TRIALS
from tests.torture.sizes import QUICK


@pytest.mark.parametrize("name", TRIALS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    tally = TRIALS[name](QUICK, 0, tmp_path)
    assert tally.lost == []
    assert tally.skipped or tally.counts
