"""Sizes of the trials: QUICK takes seconds and runs in the test suite, LONG is run by hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Each size can be set by name: `--size kills=50`."""

    kills: int = 200
    kills_per_round: int = 20
    leasing: int = 5  # clients of the storm, by kind
    labelling: int = 4
    appending: int = 2
    remaking: int = 2
    fitting: int = 1
    reading: int = 2
    leased_samples: int = 3_000
    owned_samples: int = 960
    annotators: int = 16
    annotated_samples: int = 5_000
    annotator_kills: int = 20
    crash_points: int = 10_000  # at most, for each operation
    damages: int = 10_000  # at most, for each file
    bit_flips: int = 5
    disk_steps: int = 40
    dripping: int = 300
    drip_seconds: int = 40
    examples: int = 150  # of the state machine
    steps: int = 60  # in each example
    contract_examples: int = 1_000
    remaking_requests: int = 200_000
    fuzz_inputs: int = 20_000  # for each reader
    fuzz_seconds: int = 120  # for each reader, with atheris


LONG = Sizes()
QUICK = Sizes(
    kills=2,
    kills_per_round=2,
    leasing=2,
    labelling=1,
    appending=1,
    remaking=1,
    reading=1,
    leased_samples=200,
    owned_samples=60,
    annotators=5,
    annotated_samples=80,
    annotator_kills=0,
    crash_points=1,
    damages=1,
    bit_flips=1,
    disk_steps=3,
    dripping=60,
    drip_seconds=4,
    examples=2,
    steps=25,
    contract_examples=3,
    remaking_requests=300,
    fuzz_inputs=40,
    fuzz_seconds=0,
)
