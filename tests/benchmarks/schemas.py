"""What the shortcuts of `BaseSchema` save on small requests: `python -m tests.benchmarks.schemas`."""

from __future__ import annotations

from collections.abc import Callable
from timeit import repeat

from marshmallow import Schema

from service.http.schemas.label import LabelSchema
from service.http.schemas.query import QuerySchema
from service.http.schemas.responses import QueryReplySchema
from service.usecases.query_result import QueryResult

QUERY = {"project_id": "flowers", "batch_size": 10, "strategy": "margin", "annotator": "ada", "lease_seconds": 600}
LABEL = {"project_id": "flowers", "labels": [{"index": 3, "label": "cat"}], "refit": "never"}
RESULT = QueryResult(
    project_id="flowers",
    query_id="0f6d1c52a1f34b1c8a55c1c7f0f1d2e3",
    indices=list(range(10)),
    ids=None,
    scores=[0.5] * 10,
    strategy="margin",
    fallback_reason=None,
    reason=None,
    model_version=1,
    n_labeled=2,
    n_unlabeled=6,
    n_labels_since_fit=0,
    classes=None,
    explanations=None,
    project=None,
)


def microseconds(call: Callable[[], object], number: int = 2_000) -> float:
    """Shortest mean time of a call over five rounds."""
    return min(repeat(call, number=number, repeat=5)) / number * 1e6


def main() -> None:
    query, label, reply = QuerySchema(), LabelSchema(), QueryReplySchema()
    rows = [
        ("load POST /query", lambda: query.load(QUERY), lambda: Schema.load(query, QUERY)),
        ("load POST /label", lambda: label.load(LABEL), lambda: Schema.load(label, LABEL)),
        ("dump a query result", lambda: reply.dump(RESULT), lambda: Schema.dump(reply, RESULT)),
    ]
    print(f"{'µs':<20}{'shortcut':>10}{'marshmallow':>13}")
    for name, shortcut, marshmallow in rows:
        print(f"{name:<20}{microseconds(shortcut):>10.1f}{microseconds(marshmallow):>13.1f}")


if __name__ == "__main__":
    main()
