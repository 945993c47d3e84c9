"""Code that runs for every request: authentication, logging, metrics, idempotency, ETags."""
