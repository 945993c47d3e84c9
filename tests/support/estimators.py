"""The names of the estimators by target."""

from service.learning.estimators import ESTIMATORS

CLASSIFIERS = [name for name, kind in ESTIMATORS.items() if "class" in kind.targets]
REGRESSORS = [name for name, kind in ESTIMATORS.items() if "number" in kind.targets]
