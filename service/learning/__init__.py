"""Models and the pools they read."""

from importlib import import_module

import_module("service.learning.regressors")  # registers the estimators of numbers
