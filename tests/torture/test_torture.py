"""The trials of `python -m tests.torture` at small sizes, where no other test covers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.serving import Service
from tests.torture import annotators, crash_points, fuzz, machine, storm
from tests.torture.lease_history import Grant, LeaseHistory
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # starting processes takes long on a busy machine


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that two trials share: to start one takes longer than a trial."""
    root = tmp_path_factory.mktemp("torture")
    with running(root / "data", root / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="warning") as service:
        yield service


@pytest.mark.parametrize("attack", [annotators.attack, storm.attack])
def test_acknowledged_writes_survive(attack: Callable[..., None], service: Service) -> None:
    tally = Tally()
    attack(service, QUICK, 0, tally)
    assert tally.counts
    assert tally.failures == []


@pytest.mark.parametrize("run", [machine.run, crash_points.run, fuzz.run])
def test_a_trial_finds_no_failure(run: Callable[..., Tally], tmp_path: Path) -> None:
    tally = run(QUICK, 0, tmp_path)
    assert tally.counts
    assert tally.failures == []


# The detection of violations.


@pytest.mark.parametrize(
    ("grants", "n_found"),
    [
        ([("ada", 1, 2, 9), ("bob", 3, 4, 8)], 1),
        ([("ada", 1, 2, 9), ("bob", 3, 4, 4)], 1),  # a lease released at once still counts
        ([("ada", 1, 4, 9), ("bob", 2, 3, 5)], 1),
        ([("ada", 1, 2, 3), ("bob", 3, 4, 8)], 0),
        ([("ada", 1, 2, 9), ("ada", 3, 4, 8)], 0),
        ([("ada", 1, 2, 9), ("bob", 8, 10, 20)], 0),  # it may have been leased after the end of the first
    ],
)
def test_a_sample_leased_twice_at_once_is_found(grants: list[tuple[str, float, float, float]], n_found: int) -> None:
    history = LeaseHistory()
    for grant in grants:
        history.add_grant(7, Grant(*grant))
    assert len(list(history.violations())) == n_found


def test_a_labelled_sample_that_is_leased_is_found() -> None:
    history = LeaseHistory()
    history.add_label(7, 5)
    for sent in (4, 6):
        history.add_grant(7, Grant("ada", sent, sent + 0.5, 20))
    (found,) = history.violations()
    assert "labelled" in found
