"""The trees of a fitted forest: fast passes of many rows, the same in compiled code and without.

A pass adds the leaves' float64 values in the order of the trees, as scikit-learn does, so the two ways agree with it
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.pipeline import Pipeline

from service.learning.kernels import Kernel
from service.learning.linear_scorer import Predict
from service.learning.pool import CHUNK_CELLS, Features
from service.learning.preprocessing import as_float32

Outputs = npt.NDArray[np.float64]

LANES = 16
"""Rows that walk down a tree together; the kernel has the same number."""

BLOCK_ROWS = 512
BLOCK_CELLS = 2**15
"""Largest number of rows, and of their cells, that go through small trees while they are in a core's cache.

Of large trees, which must come from memory, half as many rows go through each as it has nodes.
"""

MIN_STEPS = 2**18
"""Rows times trees from which compiling pays off: scikit-learn takes a fortieth of a second for them."""

KERNEL = Kernel("service.learning.tree_kernel", "add_leaves")


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The trees of a fitted forest, and the values (nodes, c) of each: probabilities, or one number."""

    forest: Any
    trees: Sequence[Any]
    values: Sequence[Outputs]

    @classmethod
    def of(cls, forest: Any) -> Trees:
        """Return the trees of a forest, or of another model with `estimators_`."""
        trees = [each.tree_ for each in forest.estimators_]
        # Of shape (nodes, 1, c) in a classifier, and (nodes, c, 1) in a regressor.
        return cls(forest, trees, [tree.value.reshape(len(tree.value), -1) for tree in trees])

    def __len__(self) -> int:
        return len(self.trees)

    def mean(self, X: Features) -> Outputs:
        """Return the mean (n, c) of the trees' values for rows (n, d) in float32, dense or CSR."""
        out = np.zeros((1, X.shape[0], self.values[0].shape[1]))
        if not self._add_compiled(X, out):
            out[:] = 0
            for values, leaves in self._leaves(X):
                out[0] += values.take(leaves, axis=0)
        mean: Outputs = out[0] / len(self.trees)
        return mean

    def of_each_tree(self, X: Features) -> Outputs:
        """Return the values (m, n, c) of m trees for rows (n, d) in float32, dense or CSR."""
        out = np.zeros((len(self.trees), X.shape[0], self.values[0].shape[1]))
        if not self._add_compiled(X, out):
            for of_tree, (values, leaves) in zip(out, self._leaves(X), strict=True):
                values.take(leaves, axis=0, out=of_tree)
        return out

    def _leaves(self, X: Features) -> Any:
        """Yield the values of each tree and the leaves (n,) of the rows."""
        X = sparse.csr_matrix(X) if sparse.issparse(X) else X  # which trees demand
        return ((values, tree.apply(X)) for tree, values in zip(self.trees, self.values, strict=True))

    def _add_compiled(self, X: Features, out: Outputs) -> bool:
        """Add the leaves' values to `out` in compiled code; return whether that was possible, and `out` is right.

        It is not for sparse rows, with missing values, and until the code is compiled.
        """
        if sparse.issparse(X):
            return False
        add_leaves = KERNEL.get(is_worth_it=X.shape[0] * len(self.trees) >= MIN_STEPS)
        packed = None if add_leaves is None else packed_trees(self, X.shape[1])
        if add_leaves is None or packed is None:
            return False
        rows = np.require(X, np.float32, ["C", "ALIGNED"]).view(np.int32)
        return bool(add_leaves(rows, *packed.arrays, packed.block_rows, out))


def split_pipeline(model: Any) -> tuple[Callable[[Features], Features], Any]:
    """Return the function that prepares the features of a fitted model, and its last step."""
    return (model[:-1].transform, model[-1]) if isinstance(model, Pipeline) else (lambda X: X, model)


def fast_forest_predictor(model: Any) -> Predict:
    """Return a function from dense rows (n, d) to the probabilities (n, c), or numbers (n, 1), of a forest.

    The model may be a pipeline that ends with one.
    """
    prepare, forest = split_pipeline(model)
    trees = Trees.of(forest)
    return lambda X: trees.mean(as_float32(prepare(X)))


@dataclass(frozen=True, slots=True, eq=False)
class PackedTrees:
    """The nodes of all trees in two arrays, tree after tree and level after level; siblings are neighbours.

    `arrays` are the kernel's: of each node, the limit of its feature as a key, and the feature with the left child,
    which begins at bit `shift`; of each tree, its first node and the steps that most rows take. The limit of a leaf is
    the first of its entries among the classes and values that are not 0. A class is stored twofold, plus 1 in the
    leaf's last entry.
    """

    arrays: tuple[Any, ...]
    block_rows: np.uint64

    @classmethod
    def of(cls, trees: Trees, n_features: int) -> PackedTrees | None:
        """Pack the trees of a forest of rows (n, d); None if a node takes more than 64 bits."""
        n_nodes = [tree.node_count for tree in trees.trees]
        shift = max(1, int(max(n_nodes) - 1).bit_length())
        if (n_features + 1) * LANES > 2 ** (32 - shift):
            return None
        roots = np.cumsum([0, *n_nodes[:-1]])
        nodes = Nodes.of(trees, roots)
        order, depths = nodes.by_level(roots)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        is_leaf = nodes.left[order] < 0
        tree_of = np.repeat(np.arange(len(roots)), n_nodes)
        below = np.where(is_leaf, np.arange(len(order)), place[nodes.left[order]]) - roots[tree_of]
        feature = np.where(is_leaf, n_features, nodes.feature[order])
        starts, classes, values = entries(np.concatenate(trees.values)[order[is_leaf]])
        limits = float_keys(nodes.threshold[order])
        limits[is_leaf] = starts
        links = (feature * LANES << shift | below).astype(np.uint32)
        steps = np.bincount(tree_of[is_leaf], depths[is_leaf]) / np.bincount(tree_of[is_leaf]) + 2
        block = max(min(BLOCK_ROWS, BLOCK_CELLS // n_features), len(order) // len(roots) // 2)
        block = max(LANES, min(block, CHUNK_CELLS // n_features) // LANES * LANES)
        nodes_and_trees = limits, links, roots.astype(np.uint64), steps.astype(np.uint64), np.uint64(shift)
        return cls((*nodes_and_trees, classes, values), np.uint64(block))


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """The nodes of all trees as scikit-learn has them, numbered through; a leaf has the children -1."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]

    @classmethod
    def of(cls, trees: Trees, roots: npt.NDArray[np.int64]) -> Nodes:
        """Return the nodes of trees whose first nodes have these numbers."""
        left, right = (
            np.concatenate(
                [np.where(of_tree < 0, -1, of_tree + root) for of_tree, root in zip(children, roots, strict=True)]
            )
            for children in (
                [tree.children_left for tree in trees.trees],
                [tree.children_right for tree in trees.trees],
            )
        )
        feature = np.concatenate([tree.feature for tree in trees.trees])
        return cls(left, right, feature, np.concatenate([tree.threshold for tree in trees.trees]))

    def by_level(self, roots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the nodes tree after tree and level after level, and the level of each."""
        levels = [roots]
        while len(inner := levels[-1][self.left[levels[-1]] >= 0]):
            levels.append(np.column_stack([self.left[inner], self.right[inner]]).ravel())
        order = np.concatenate(levels)
        depths = np.repeat(np.arange(len(levels)), [len(level) for level in levels])
        by_tree = np.argsort(np.searchsorted(roots, order, side="right"), kind="stable")
        return order[by_tree], depths[by_tree]


def entries(values: Outputs) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], Outputs]:
    """Return where each leaf's entries begin, and of each entry its class, twofold plus 1 if it is the last, and value.

    Adding 0 changes nothing, so classes of value 0 (leaves, c) are left out, but for the first of a leaf without any.
    """
    is_kept = values != 0
    is_kept[:, 0] |= ~is_kept.any(axis=1)
    leaf, column = np.nonzero(is_kept)
    starts = np.searchsorted(leaf, np.arange(len(values)))
    classes = 2 * column
    classes[np.append(starts[1:], len(leaf)) - 1] += 1
    return starts.astype(np.uint32), classes.astype(np.uint32), np.ascontiguousarray(values[leaf, column])


def float_keys(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Return thresholds as unsigned integers, ordered as the keys of float32 features.

    A threshold between two numbers of float32 counts as the lower one: x <= threshold is the same for all features x.
    """
    narrow = thresholds.astype(np.float32)
    narrow = np.where(narrow > thresholds, np.nextafter(narrow, np.float32(-np.inf)), narrow)
    bits = (narrow + np.float32(0)).view(np.int32)  # -0 becomes 0
    return (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)


PACKED: WeakKeyDictionary[Any, PackedTrees | None] = WeakKeyDictionary()
PACKING = Lock()


def packed_trees(trees: Trees, n_features: int) -> PackedTrees | None:
    """Return the packed trees of a forest, which are kept as long as the forest is."""
    with PACKING:
        if trees.forest not in PACKED:
            PACKED[trees.forest] = PackedTrees.of(trees, n_features)
        return PACKED[trees.forest]
