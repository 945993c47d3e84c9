"""Classes and functions in pickled models, under the paths that they had before their modules moved."""

from __future__ import annotations

import sys
from types import ModuleType

from service.learning.estimators import DecisionSVC
from service.learning.preprocessing import Standardizer, as_float32, squarable

MOVED = {
    "service.estimators": (DecisionSVC,),
    "service.preparation": (Standardizer, as_float32, squarable),
}
"""Former modules with what pickles name in them."""


def register_old_paths() -> None:
    """Let pickles find what has moved."""
    for path, members in MOVED.items():
        module = ModuleType(path)
        for member in members:
            setattr(module, member.__name__, member)
        sys.modules[path] = module
