"""What the recipe for CVAT uses of its SDK, with an annotator who tags the images of a new task at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Named:
    """A label, or a frame."""

    name: str
    id: int = 0


@dataclass
class Tag:
    frame: int
    label_id: int


@dataclass
class Annotations:
    tags: list[Tag] = field(default_factory=list)


@dataclass
class Task:
    names: list[str]

    def get_frames_info(self) -> list[Named]:
        return [Named(name) for name in self.names]

    def get_annotations(self) -> Annotations:
        return Annotations([Tag(frame, 1 if name < "pet-4" else 2) for frame, name in enumerate(self.names)])


class Tasks(list[Task]):
    def create_from_data(self, spec: Mapping[str, Any], resources: Sequence[Path]) -> Task:
        assert spec["project_id"] == 7 and spec["name"]
        self.append(Task([Path(path).name for path in resources]))
        return self[-1]


@dataclass
class Project:
    tasks: Tasks

    def get_labels(self) -> list[Named]:
        return [Named("cat", 1), Named("dog", 2)]

    def get_tasks(self) -> list[Task]:
        return [*self.tasks]


@dataclass
class Projects:
    tasks: Tasks

    def retrieve(self, number: int) -> Project:
        assert number == 7
        return Project(self.tasks)


class Client:
    def __init__(self) -> None:
        self.tasks = Tasks()
        self.projects = Projects(self.tasks)


@contextmanager
def make_client(host: str, credentials: tuple[str, str]) -> Iterator[Client]:
    assert host and len(credentials) == 2
    yield Client()
