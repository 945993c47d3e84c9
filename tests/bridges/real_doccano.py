"""doccano in an environment of its own, on a free loopback port, and people who annotate in it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from service.bridges.web import ToolError, Web
from tests.bridges.installed import InstalledServer

PACKAGES = ("doccano==1.8.4", "marshmallow<4", "numpy<1.27", "scipy<1.13", "scikit-learn<1.6", "setuptools<81")
"""doccano, and versions of its time of what it needs."""

ADMIN, PASSWORD = "ada", "not-a-secret-1"
CLASSES = ("ham", "spam")


class RealDoccano(InstalledServer):
    """A doccano that can be killed and started again; its first user is Ada."""

    health = "/v1/auth/login/"

    def __init__(self, programs: Path, data: Path, log: Path) -> None:
        super().__init__(log)
        (self.folder,) = programs.parent.glob("lib/python*/site-packages/backend")
        data.mkdir()
        self.python = programs / "python"
        self.environment |= {
            "DOCCANO_HOME": str(data),
            "DATABASE_URL": f"sqlite:///{data}/db.sqlite3",
            "MEDIA_ROOT": str(data / "media"),
            "STANDALONE": "True",
            "DJANGO_SETTINGS_MODULE": "config.settings.production",
            "DJANGO_SUPERUSER_USERNAME": ADMIN,
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "DJANGO_SUPERUSER_EMAIL": "ada@example.org",
        }
        for command in (["migrate", "-v0"], ["create_roles"], ["createsuperuser", "--noinput"]):
            everything = [self.python, "manage.py", *command]
            with log.open("ab") as file:
                subprocess.run(everything, cwd=self.folder, env=self.environment, stdout=file, stderr=file, check=True)
        self.command = [self.python, "-m", "gunicorn", "config.wsgi", "--workers", "1", "--threads", "4"]
        self.command += ["--timeout", "300", "--bind", f"127.0.0.1:{self.port}"]


class Person:
    """A user of doccano, who annotates as its page does: the first example that is not confirmed, by score."""

    def __init__(self, url: str, name: str, project: int | None = None) -> None:
        self.web, self.name, self.project = Web(url), name, project
        login = {"username": name, "password": PASSWORD}
        self.headers = {"Authorization": f"Token {self.send('POST', '/v1/auth/login/', login, {})['key']}"}
        self.number: int = self.send("GET", "/v1/me")["id"]
        self.labels: dict[str, int] = {}

    def send(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """Send a request; while doccano is away, send it again."""
        for _ in range(1200):
            try:
                return self.web.send(method, path, body, self.headers if headers is None else headers)
            except ToolError as error:
                if error.status is not None:
                    raise
                time.sleep(0.5)
        raise TimeoutError("doccano does not come back")

    @property
    def path(self) -> str:
        return f"/v1/projects/{self.project}"

    @property
    def annotator(self) -> str:
        """The name of the annotator in the service."""
        return f"doccano-{self.number}"

    def create_project(self, texts: list[str]) -> list[int]:
        """Create a project of texts with two classes, and return its examples."""
        settings = {
            "name": "mails",
            "description": "mails",
            "guideline": "",
            "tags": [],
            "project_type": "DocumentClassification",
            "resourcetype": "TextClassificationProject",
            "single_class_classification": True,
            "collaborative_annotation": True,
            "random_order": False,
        }
        self.project = self.send("POST", "/v1/projects", settings)["id"]
        for name in CLASSES:
            look = {"prefix_key": None, "suffix_key": name[0], "background_color": "#2196F3", "text_color": "#ffffff"}
            self.labels[name] = self.send("POST", f"{self.path}/category-types", {"text": name, **look})["id"]
        return self.add(texts)

    def add(self, texts: list[str]) -> list[int]:
        """Add examples, and return their numbers."""
        return [self.send("POST", f"{self.path}/examples", {"text": text, "meta": {}})["id"] for text in texts]

    def invite(self, url: str, name: str) -> Person:
        """Create a user who annotates in this project."""
        user = {"username": name, "password1": PASSWORD, "password2": PASSWORD}
        number = self.send("POST", "/v1/users/create", user)["id"]
        (role,) = (role["id"] for role in self.send("GET", "/v1/roles") if role["name"] == "annotator")
        self.send("POST", f"{self.path}/members", {"user": number, "role": role})
        other = Person(url, name, self.project)
        other.labels = self.labels
        return other

    def batch(self) -> list[int]:
        """Return the examples whose scores are below the others."""
        found = self.send("GET", f"{self.path}/examples?limit=20&ordering=score")["results"]
        return [each["id"] for each in found if each["score"] < 100]

    def next_example(self) -> int:
        """Return the example that the page shows first: by score, of those that are not confirmed."""
        example: int = self.send("GET", f"{self.path}/examples?limit=1&ordering=score&confirmed=false")["results"][0][
            "id"
        ]
        return example

    def annotate(self, example: int, label: str | None) -> int:
        """Label an example and confirm it, or confirm it without a label; return the number of the label, or 0."""
        category = 0 if label is None else self.add_label(example, label)
        self.toggle(example)
        return category

    def add_label(self, example: int, label: str) -> int:
        """Label an example, and return the number of the label."""
        path = f"{self.path}/examples/{example}/categories"
        number: int = self.send("POST", path, {"label": self.labels[label]})["id"]
        return number

    def take_label_back(self, example: int, category: int) -> None:
        self.send("DELETE", f"{self.path}/examples/{example}/categories/{category}")

    def toggle(self, example: int) -> None:
        """Confirm an example, or take that back."""
        self.send("POST", f"{self.path}/examples/{example}/states", {})
