"""The pages in a real headless Chromium, under gunicorn: `pytest -m browser`. It needs `chromium` on the path.

With `AXE` set to the path of axe-core's `axe.min.js`, the pages are also checked for accessibility.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import Service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
X = np.random.default_rng(0).normal(size=(60, 4))
LABELS = ["cat" if row[0] > 0 else "dog" for row in X]


def browse(folder: Path, address: str, *options: str) -> str:
    """Open a page, and return what Chromium prints."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    command = [
        CHROMIUM,
        *OPTIONS,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=4000",
        *options,
        address,
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not re.search("Refused to|Content Security Policy", found.stderr), found.stderr
    return found.stdout


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    service = serve(AQ_WORKERS="1")
    service.post("/fit", {"project_id": "p", "X": X.tolist(), "y": LABELS[:40] + [None] * 20}, 201)
    service.post("/fit", {"project_id": "n" * 60, "X": X.tolist()}, 201)
    return service


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", ["/", "/projects/p/page", f"/projects/{'n' * 60}/page"])
def test_a_page_fits_its_window_and_breaks_no_rule(service: Service, tmp_path: Path, width: int, path: str) -> None:
    address = f"http://127.0.0.1:{service.port}{path}"
    page = browse(tmp_path, address, "--dump-dom", "--enable-logging=stderr", "--v=0", f"--window-size={width},900")
    assert "</html>" in page
    picture = tmp_path / "page.png"
    browse(tmp_path, address, f"--screenshot={picture}", f"--window-size={width},900")
    assert picture.stat().st_size > 5_000


@pytest.mark.parametrize("path", ["/", "/projects/p/page"])
def test_axe_finds_nothing_serious(service: Service, tmp_path: Path, path: str) -> None:
    if "AXE" not in os.environ:
        pytest.skip("AXE is not set")
    page = browse(tmp_path, f"http://127.0.0.1:{service.port}{path}", "--dump-dom")
    script = Path(os.environ["AXE"]).read_text(encoding="utf-8")
    run = "axe.run().then(found => { document.title = JSON.stringify(found.violations.map(v => [v.impact, v.id])); })"
    copy = tmp_path / "copy.html"
    copy.write_text(
        page.replace("</body>", f"<script>{script}</script><script>{run}</script></body>"), encoding="utf-8"
    )
    title = re.search("<title>(.*?)</title>", browse(tmp_path, f"file://{copy}", "--dump-dom"), re.DOTALL)
    assert title is not None
    assert [each for each in json.loads(title[1].replace("&quot;", '"')) if each[0] in ("serious", "critical")] == []
