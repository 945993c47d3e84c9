"""The schema of a lease that is renewed."""

from __future__ import annotations

from service.domain.leases import MAX_LEASE_SECONDS
from service.http.schemas import fields
from service.http.schemas.base import BaseSchema, RuleField


class RenewSchema(BaseSchema):
    """Renew a lease."""

    lease_seconds = RuleField(
        fields.integer(1, MAX_LEASE_SECONDS),
        "Seconds from now; by default as many as the lease was made for.",
    )
