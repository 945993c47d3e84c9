"""Classes and functions in pickled models, under the paths that they had before their modules moved."""

from __future__ import annotations

import sys
from types import ModuleType

from service.learning.classifiers import DecisionSVC
from service.learning.preprocessing import Standardizer, as_float32, squarable

MOVED = {
    "service.estimators": (DecisionSVC,),
    "service.learning.estimators": (DecisionSVC,),
    "service.preparation": (Standardizer, as_float32, squarable),
}
"""Former modules, and their members that pickles name."""


def register_old_paths() -> None:
    """Register the members under their former modules, some of which still exist, so that old pickles can be loaded."""
    for path, members in MOVED.items():
        module = sys.modules.setdefault(path, ModuleType(path))
        for member in members:
            setattr(module, member.__name__, member)
