"""Data sets: those of scikit-learn, and `.npz` files with X and y from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split

MAX_ROWS = 4000
TEST_SHARE = 0.3

SHIPPED: dict[str, Callable[..., Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A pool (n, d) with its true labels, and a held-out set; classes are 0 to c - 1."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    n_classes: int


def names(folder: Path | None) -> list[str]:
    """Return the names of all data sets; those of scikit-learn hide files of the same name."""
    own = sorted(path.stem for path in folder.glob("*.npz")) if folder else []
    return [*SHIPPED, *(name for name in own if name not in SHIPPED)]


@lru_cache(maxsize=4)
def load(name: str, folder: Path | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Load a data set: rows (n, d) and classes (n,)."""
    if name in SHIPPED:
        X, y = SHIPPED[name](return_X_y=True)
    elif folder is None:
        raise ValueError(f"{name!r} is not a data set of scikit-learn: use --data to name the folder that holds it")
    else:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
            X, y = stored["X"], stored["y"]
    return X, np.unique(y, return_inverse=True)[1].astype(np.int64)


@lru_cache(maxsize=4)
def split(name: str, folder: Path | None, seed: int, max_rows: int = MAX_ROWS) -> Split:
    """Draw at most `max_rows` of a data set and hold out a stratified share that depends on the seed."""
    X, y = load(name, folder)
    if np.bincount(y).min() < 2:
        raise ValueError(f"{name!r} has a class of a single row, which cannot be in the pool and held out")
    n_rows = min(len(y), max_rows)
    n_test = round(TEST_SHARE * n_rows)
    X_pool, X_test, y_pool, y_test = train_test_split(
        X, y, train_size=n_rows - n_test, test_size=n_test, random_state=seed, stratify=y
    )
    return Split(X_pool, y_pool, X_test, y_test, int(y.max()) + 1)
