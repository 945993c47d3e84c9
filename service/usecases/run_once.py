"""Idempotency of changes: a request sent again with its Idempotency-Key does not change its project a second time.

The middleware replays the kept reply of a request that was answered. This covers the requests whose reply was never
kept, because the process died after the commit, say: the event of that commit carries the request's fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from service.domain.preconditions import Preconditions, RequestFingerprint
from service.domain.project import MICROSECONDS, Project, format_time, now
from service.errors import IdempotencyKeyReused
from service.store import Store
from service.store.idempotency import RETENTION_SECONDS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PriorOutcome:
    """The effect of an earlier request: the project as it is now, and the event that the request led to."""

    project: Project
    kind: str
    n_labels: int
    details: Mapping[str, Any]


def run_once(
    store: Store,
    project_id: str,
    preconditions: Preconditions,
    change: Callable[[], T],
    recall: Callable[[PriorOutcome], T],
) -> T:
    """Return `change()`, or `recall(outcome)` if this request has changed the project before.

    The request holds its key, so no other can make the same change meanwhile. Raises IdempotencyKeyReused
    if the key came with another request, and what `change` raises.
    """
    fingerprint = preconditions.fingerprint
    outcome = None if fingerprint is None else find_prior_outcome(store, project_id, fingerprint)
    return change() if outcome is None else recall(outcome)


def find_prior_outcome(store: Store, project_id: str, fingerprint: RequestFingerprint) -> PriorOutcome | None:
    """Return the outcome of a request that changed the project within the last day, or None.

    Raises IdempotencyKeyReused or StoreDamaged.
    """
    found = store.event_of_request(project_id, fingerprint.key)
    if found is None:
        return None
    project, event = found
    if event["at"] < format_time(now() - RETENTION_SECONDS * MICROSECONDS):
        return None
    details = event["details"]
    if details.get("request") != str(fingerprint):
        raise IdempotencyKeyReused
    given, retracted = (details[name]["index"] if name in details else [] for name in ("labels", "retracted"))
    # A label without an annotator takes those of others from its sample, which do not count.
    n_labels = len(given) + len(set(retracted) - set(given))
    return PriorOutcome(project, event["kind"], n_labels, details)
