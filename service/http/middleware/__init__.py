"""What applies to every request: authentication, logging, metrics, idempotency, ETags."""
