"""Models and the pools they read."""

from importlib import import_module

for name in ("classifiers", "regressors", "multilabel_estimators"):
    import_module(f"service.learning.{name}")  # registers estimators
