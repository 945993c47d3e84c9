"""Random requests that schemathesis derives from openapi.yaml, single and in sequences."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from tests.contract.run import run_schemathesis
from tests.support.serving import Service
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Run schemathesis against a service, and look for tracebacks in its log."""
    tally = Tally()
    with ExitStack() as started:

        def serve(**settings: str) -> Service:
            return started.enter_context(running(scratch / "data", scratch / "log", **settings))

        found = run_schemathesis(serve, scratch, sizes.contract_examples, seed)
    for what, times in re.findall(r"(?m)^\s*(?:✅|❌|🚫|⏭)?\s*(\w[\w ]+?):?\s+(\d[\d,]*)\b.*$", found.stdout[-1500:]):
        tally.figures[what.strip()] = times
    tally.check(found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2000:])
    bugs = (scratch / "log").read_text().count("Traceback (most recent call last)")
    tally.check(bugs == 0, f"{bugs} tracebacks in the log of the service: {(scratch / 'log').read_text()[-3000:]}")
    return tally
