"""The pages in a real headless Chromium, under gunicorn: `pytest -m browser`. It needs `chromium` on the path.

With `AXE` set to the path of axe-core's `axe.min.js`, the pages are also checked for accessibility.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import Service, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000")
DARK = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}
WIDTHS = (1280, 390)

X = np.random.default_rng(0).normal(size=(120, 4)).tolist()
LABELS = ["cat" if row[0] > 0 else "dog" for row in X]
HOSTILE = "<script>document.title = 'run'</script> <b>win</b> " + "w" * 200
STATES = {
    "cold": {},
    "one class": {"y": ["cat"] * 5 + [None] * 115},
    "some labels": {"y": LABELS[:60] + [None] * 60},
    "finished": {"y": LABELS},
    "60 characters": {"project_id": "n" * 60, "y": LABELS[:40] + [None] * 80},
    "100 classes": {"y": [f"class {i % 100}" for i in range(110)] + [None] * 10},
    "long labels": {"y": [HOSTILE, "b"] * 40 + [None] * 40},
}
PAGES = ("projects", "no projects", "annotators", "texts", "simulation", "wrong form", "missing", "wrong limit")

CHECK = """
addEventListener("load", async () => {
  const wide = [...document.querySelectorAll("body *")].filter(each => !each.closest(".scroll, .skip"))
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80));
  const found = window.axe ? (await axe.run()).violations : [];
  const serious = found.filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => each.id + ": " + each.nodes.map(node => node.target).join(", "));
  parent.postMessage([document.querySelectorAll("h1").length, wide, serious], "*");
});
"""
COLLECT = """
const found = [];
addEventListener("message", event => { found.push(event.data); document.title = JSON.stringify(found); });
"""


def browse(folder: Path, address: str, *options: str) -> str:
    """Open a page, and return what Chromium prints."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, address]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not re.search("Refused to|Content Security Policy", found.stderr), found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service without projects; kill it after the tests."""
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log", AQ_WORKERS="1").start()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def pages(service: Service) -> dict[str, str]:
    """Return the page of each state, by its name."""
    found = {"no projects": service.call("GET", "/")}
    for name, fields in STATES.items():
        body = {"project_id": name.replace(" ", "-"), "X": X, "estimator": "gaussian_nb", **fields}
        service.post("/fit", body, 201)
        found[name] = service.call("GET", f"/projects/{body['project_id']}/page")
    records = [{"index": i, "label": LABELS[i], "annotator": f"annotator-{i % 25}"} for i in range(60, 110)]
    service.post("/label", {"project_id": "some-labels", "labels": records, "refit": "never"})
    found["annotators"] = service.call("GET", "/projects/some-labels/page")
    texts = [f"{HOSTILE} {i}\n\nline" for i in range(20)]
    urls = [f"https://pictures.example/{'long/' * 30}{i}.png" for i in range(20)]
    service.post("/fit", {"project_id": "texts", "texts": texts, "urls": urls, "text": {"n_features": 256}}, 201)
    found["texts"] = service.call("GET", "/projects/texts/page")
    form = b"strategies=margin&batch_size=10&repeats=2&budget="
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = service.call("POST", "/projects/finished/page/simulations", form + b"20", headers)
    path = reply.headers["Location"].removeprefix("../../..")
    wait_until(lambda: "Refresh" not in service.call("GET", path).headers)
    found["simulation"] = service.call("GET", path)
    found["wrong form"] = service.call("POST", "/projects/finished/page/simulations", form + b"many", headers)
    found["missing"] = service.call("GET", "/projects/nowhere/page")
    found["wrong limit"] = service.call("GET", "/?limit=0")
    found["projects"] = service.call("GET", "/")
    return {name: reply.body.decode() for name, reply in found.items()}


@pytest.mark.parametrize("theme", DARK)
@pytest.mark.parametrize("name", [*STATES, *PAGES])
def test_a_page_fits_its_window_and_can_be_used_by_all(
    pages: dict[str, str], tmp_path: Path, name: str, theme: str
) -> None:
    axe = Path(os.environ["AXE"]).read_text(encoding="utf-8") if "AXE" in os.environ else ""
    page = pages[name].replace("</head>", f"<script>{axe}</script><script>{CHECK}</script></head>")
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS)
    copy = tmp_path / "copy.html"
    copy.write_text(f"<!DOCTYPE html><script>{COLLECT}</script>{frames}", encoding="utf-8")
    shown = browse(tmp_path, f"file://{copy}", "--dump-dom", *DARK[theme])
    title = re.search("<title>(.*?)</title>", shown, re.DOTALL)
    assert title is not None, shown[-2000:]
    assert json.loads(html.unescape(title[1])) == [[1, [], []]] * len(WIDTHS)


@pytest.mark.parametrize("path", ["/", "/projects/some-labels/page", "/projects/texts/page"])
@pytest.mark.usefixtures("pages")
def test_a_served_page_breaks_no_rule_of_its_policy(service: Service, tmp_path: Path, path: str) -> None:
    address = f"http://127.0.0.1:{service.port}{path}"
    shown = browse(tmp_path, address, "--dump-dom", "--enable-logging=stderr", "--v=0")
    assert "</html>" in shown and "<title>run</title>" not in shown
