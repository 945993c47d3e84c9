"""gunicorn: the worker, its hooks, and how it treats slow clients."""
