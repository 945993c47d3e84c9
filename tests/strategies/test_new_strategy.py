"""A strategy is added by adding one file."""

import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

SERVICE = Path(__file__).parents[2] / "service"

STRATEGY = '''"""Strategies that take the first rows."""

import numpy as np

from service.strategies.engine.registry import set_strategy


@set_strategy("first_rows", summary="The first rows of the pool.", source="this test", needs=frozenset())
def first_rows(view, batch_size, rng):
    """Take the first candidates."""
    return np.arange(batch_size), None, None
'''

REQUESTS = """
from pathlib import Path
from service.app import create_app
from service.settings import Settings

client = create_app(Settings(data_dir=Path("data"))).test_client()
names = [strategy["name"] for strategy in client.get("/strategies").json["strategies"]]
assert names.index("first_rows") == names.index("expected_gradient_length") - 1, names
client.post("/fit", json={"project_id": "p", "X": [[0], [1], [2]], "y": [None, "a", "b"], "estimator": "gaussian_nb"})
reply = client.post("/query", json={"project_id": "p", "strategy": "first_rows", "batch_size": 1}).json
assert (reply["indices"], reply["strategy"]) == ([0], "first_rows"), reply
"""


def test_a_new_file_in_the_folder_is_listed_and_queried(tmp_path: Path) -> None:
    copytree(SERVICE, tmp_path / "service", ignore=ignore_patterns("__pycache__"))
    (tmp_path / "service/strategies/fancy.py").write_text(STRATEGY)
    run = subprocess.run(
        [sys.executable, "-c", REQUESTS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
