"""Build questions for strategies from a pool, labelled rows and a model with known probabilities."""

import numpy as np
from scipy import sparse

from service.learning.pool import Pool, SparseRows
from service.strategies import Question, resolve_strategy, select


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def sparse_pool(X):
    """Return the rows as a sparse pool."""
    csr = sparse.csr_array(X)
    return Pool.of(SparseRows(csr.data, csr.indices, csr.indptr, csr.shape[1]))


def make_question(X, labeled=(), model=None, n_classes_labeled=2, **known):
    """Return a question in which all rows but the labelled ones are open."""
    pool = X if isinstance(X, Pool) else Pool.of(read_only(X))
    is_open = np.ones(len(pool), bool)
    is_open[list(labeled)] = False
    return Question(pool, read_only(is_open), read_only(np.array(labeled, np.int64)), model, n_classes_labeled, **known)


def question_from_probabilities(P, labeled=()):
    """Return a question in which row i has the single feature i and the probabilities P[i]."""
    return make_question(np.arange(len(P), dtype=np.float64)[:, np.newaxis], labeled, TableModel(P))


def run_strategy(name, question, batch_size, seed=0, **params):
    return select(*resolve_strategy(name, params), question, batch_size, np.random.default_rng(seed))


def selected_indices(*args, **params):
    return run_strategy(*args, **params).indices.tolist()


class TableModel:
    """A model that returns P[i] for a row whose first feature is i."""

    def __init__(self, P):
        self.P = np.array(P, np.float64)
        self.classes_ = np.arange(self.P.shape[1])

    def predict_proba(self, X):
        return self.P[X[:, 0].astype(int)]
