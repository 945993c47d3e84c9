"""Labels that are probably wrong, by confident learning (Northcutt et al. 2021, arXiv:1911.00068)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


MIN_OF_CLASS = 5
"""Labels of a class below which models hardly know it, so that none of them is judged."""


MAX_RATIO = 0.2
"""Largest probability of a suspect label, as a share of that of the better class.

Without it many right labels are suspect where the model is weak: at 100 labels, of which 7 % are flipped, 40 % of the
suspects on digits and segment are flipped with logistic regression, and 50 % with it. With `auto` it is 50 and 85 %.
"""


def find_suspects(probabilities: Numbers, codes: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows whose label is probably wrong, the most suspect first, and the class that fits each better.

    `probabilities` (n, c) are out of fold, `codes` (n,) the labels. A model is confident of a class if its probability
    reaches the mean over the rows with that label. A row is suspect if the most probable of these classes is not its
    label, whose probability is at most MAX_RATIO times as large. The rows come in the order of their own label's
    probability. Classes with fewer labels than MIN_OF_CLASS are left out.
    """
    n_rows, n_classes = probabilities.shape
    own = probabilities[np.arange(n_rows), codes]
    counts = np.bincount(codes, minlength=n_classes)
    sums = np.bincount(codes, own, minlength=n_classes)
    # A class with few labels suggests nothing.
    threshold = np.divide(sums, counts, out=np.full(n_classes, np.inf), where=counts >= MIN_OF_CLASS)
    confident = np.where(probabilities >= np.maximum(threshold, 1e-12), probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    is_suspect = (suggested != codes) & (own <= MAX_RATIO * confident.max(axis=1))
    is_suspect &= counts[codes] >= MIN_OF_CLASS
    rows = np.flatnonzero(is_suspect)
    rows = rows[np.argsort(own[rows], kind="stable")]
    return rows, suggested[rows]
