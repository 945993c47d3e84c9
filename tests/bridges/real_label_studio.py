"""Label Studio in an environment of its own, on a free loopback port, and people who annotate in it.

A machine may be slow: a first start takes a minute of CPU time.
"""

from __future__ import annotations

import http.cookiejar
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.bridges.web import ToolError, Web
from tests.bridges.installed import InstalledServer
from tests.bridges.stand_ins import CONFIG

VERSION = "1.23.2"
PASSWORD = "not-a-secret-1"  # noqa: S105 - of a server that lives as long as the test
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105


class RealLabelStudio(InstalledServer):
    """A Label Studio that can be killed and started again; its first user is Ada."""

    health = "/health"

    def __init__(self, programs: Path, data: Path, log: Path, **settings: str) -> None:
        super().__init__(log)
        self.command = [programs / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1"]
        self.command += ["--port", str(self.port)]
        self.environment |= {
            "LABEL_STUDIO_BASE_DATA_DIR": str(data),
            "LABEL_STUDIO_USERNAME": "ada@example.org",
            "LABEL_STUDIO_PASSWORD": PASSWORD,
            "LABEL_STUDIO_USER_TOKEN": LEGACY_TOKEN,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            **settings,
        }

    def personal_token(self) -> str:
        """Create and return Ada's personal access token."""
        token: str = Person(self.url, LEGACY_TOKEN).send("POST", "/api/token/", {})["token"]
        return token

    def invite(self, email: str) -> Person:
        """Return another person, signed up by an invitation."""
        link = self.url + Person(self.url, LEGACY_TOKEN).send("GET", "/api/invite")["invite_url"]
        cookies = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        browser.open(link).read()
        (csrf,) = (cookie.value for cookie in cookies if cookie.name == "csrftoken")
        form = urllib.parse.urlencode({"email": email, "password": PASSWORD, "csrfmiddlewaretoken": csrf})
        browser.addheaders.append(("Referer", link))
        browser.open(link, form.encode()).read()
        return Person(self.url, json.load(browser.open(f"{self.url}/api/current-user/token"))["token"])


class Person:
    """A user of Label Studio, who annotates as people do: by asking for the next task."""

    def __init__(self, url: str, token: str) -> None:
        self.web, self.headers = Web(url), {"Authorization": f"Token {token}"}

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request; while Label Studio is away, send it again."""
        for _ in range(1200):
            try:
                return self.web.send(method, path, body, self.headers)
            except ToolError as error:
                if error.status is not None:
                    raise
                time.sleep(0.5)
        raise TimeoutError("Label Studio does not come back")

    @property
    def number(self) -> str:
        return str(self.send("GET", "/api/current-user/whoami")["id"])

    def create_project(self, texts: Sequence[str], config: str = CONFIG) -> tuple[int, list[int]]:
        """Create a project of texts, and return its number and its tasks."""
        number: int = self.send("POST", "/api/projects/", {"title": "mails", "label_config": config})["id"]
        return number, self.import_texts(number, texts)

    def import_texts(self, project: int, texts: Sequence[str]) -> list[int]:
        """Import tasks with a text as `body`, and their numbers as `subject`, and return them."""
        items = [{"body": text, "subject": f"mail {number}"} for number, text in enumerate(texts)]
        tasks: list[int] = self.send("POST", f"/api/projects/{project}/import?return_task_ids=1", items)["task_ids"]
        return tasks

    def predictions(self, project: int) -> list[dict[str, Any]]:
        """Return the predictions of all versions."""
        found: list[dict[str, Any]] = self.send("GET", f"/api/predictions/?project={project}&task__project={project}")
        return found

    def batch(self, project: int) -> tuple[str, list[int]]:
        """Return the version that the project shows, and the tasks of its predictions, in their order."""
        version = self.send("GET", f"/api/projects/{project}/")["model_version"] or ""
        found = self.predictions(project) if version else []
        shown = sorted((each["score"], each["task"]) for each in found if each["model_version"] == version)
        return version, [task for _, task in shown]

    def next_task(self, project: int) -> int:
        """Return the task that "Label All Tasks" shows."""
        task: int = self.send("GET", f"/api/projects/{project}/next/")["id"]
        return task

    def annotate(self, task: int, choice: str | None) -> int:
        """Annotate a task, or skip it, and return the number of the annotation."""
        value = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
        body = {"result": [] if choice is None else [value], "was_cancelled": choice is None}
        number: int = self.send("POST", f"/api/tasks/{task}/annotations/", body)["id"]
        return number

    def change(self, annotation: int, choice: str) -> None:
        value = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
        self.send("PATCH", f"/api/annotations/{annotation}/", {"result": [value]})
