"""What the recipe for Argilla uses of its SDK, with a dataset whose annotator answers the first records by `rank`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

ANSWERS_A_TURN = 4
ADA = UUID(int=1)


@dataclass
class Response:
    value: str
    user_id: UUID
    status: str = "submitted"


@dataclass
class Record:
    id: str
    fields: dict[str, str]
    metadata: dict[str, int] = field(default_factory=dict)
    responses: dict[str, list[Response]] = field(default_factory=lambda: {"label": []})


class Records:
    def __init__(self) -> None:
        texts = [
            "a free prize",
            "lunch at noon",
            "free money",
            "the report",
            "win free gold",
            "see you",
            "free!",
            "notes",
        ]
        self._records = [Record(f"record-{n}", {"text": text}) for n, text in enumerate(texts)]

    def __call__(self, *, with_responses: bool = False) -> Iterator[Record]:
        for record in self._records:
            yield record if with_responses else Record(record.id, record.fields, record.metadata)

    def log(self, records: list[dict[str, Any]]) -> None:
        known = {record.id: record for record in self._records}
        for record in records:
            assert record.keys() == {"id", "text", "rank"}
            known[record["id"]].metadata["rank"] = record["rank"]
        waiting = [record for record in self._records if not record.responses["label"] and "rank" in record.metadata]
        for record in sorted(waiting, key=lambda record: record.metadata["rank"])[:ANSWERS_A_TURN]:
            answer = "spam" if "free" in record.fields["text"] else "ham"
            record.responses["label"].append(Response(answer, ADA))


@dataclass
class Dataset:
    name: str
    records: Records = field(default_factory=Records)


class Argilla:
    def __init__(self, api_url: str, api_key: str) -> None:
        assert api_url and api_key

    def datasets(self, name: str) -> Dataset:
        return Dataset(name)
