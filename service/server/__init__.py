"""gunicorn: the adapter to it, its hooks, and slow clients."""
