"""Texts in place of features, and what is stored beside the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.parameters import Parameters
from service.domain.text_column import TextColumn
from service.errors import FieldError, InvalidRequest
from service.learning.embeddings import embed_texts
from service.learning.pool import Rows, SparseRows, count_texts, stack_rows
from service.learning.texts import count_terms, weights_of
from service.store.files import StagedFile
from service.store.spool import ArraySpool
from service.store.staging import SPARSE, StagedRows, Staging

MAX_TERMS = int(np.iinfo(np.int32).max)
"""Terms of one piece: their positions fit 32 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class TextUpload:
    """The n texts of a request, how many cells their features may have, and where models that embed them are."""

    texts: Sequence[str]
    max_cells: int
    embeddings: Path | None = None

    @property
    def n_rows(self) -> int:
        """The number of texts."""
        return len(self.texts)


Samples = StagedRows | TextUpload
"""The features of samples, or texts that they are made of."""

HEAVY_CHARACTERS = 2**20
"""Texts of at least this length count as heavy requests: their features take about a second."""


def is_heavy(samples: Samples) -> bool:
    """Return whether it takes long to make the features of samples."""
    return isinstance(samples, TextUpload) and sum(map(len, samples.texts)) >= HEAVY_CHARACTERS


def stage_features(field: str, samples: Samples, text: Parameters | None, staging: Staging) -> StagedRows:
    """Return the features of samples for a pool of texts, or of numbers if `text` is None.

    Raises InvalidRequest at a field for samples of the other kind, or texts with too many terms.
    """
    if isinstance(samples, StagedRows):
        if text is not None:
            raise InvalidRequest.at(f"/{field}", f"must be texts: {OF_TEXTS}")
        return samples
    if text is None:
        raise InvalidRequest.at(f"/{field}", "must be numbers, as the pool is: texts need a pool of texts")
    if "embeddings" in text:
        return stage_embeddings(field, samples, text, staging)
    return stage_terms(field, samples, text, staging)


def stage_embeddings(field: str, upload: TextUpload, text: Parameters, staging: Staging) -> StagedRows:
    """Write the embeddings of texts to a staged file. Raises InvalidRequest."""
    rows = ArraySpool(staging, np.dtype(np.float32))
    width = 0
    try:
        for block in embedded_blocks(field, upload, text):
            width = block.shape[1]
            rows.write(block)
        return StagedRows({"rows": rows.close((upload.n_rows, width))}, upload.n_rows, width)
    finally:
        rows.abandon()


def embedded_blocks(field: str, upload: TextUpload, text: Parameters) -> Iterator[NDArray[np.float32]]:
    """Yield the embeddings of texts as matrices (k, d). Raises InvalidRequest at the field, or at a text in it."""
    try:
        for block in embed_texts(upload.texts, text, upload.embeddings):
            check_terms(field, upload.n_rows * block.shape[1], upload)
            yield block
    except InvalidRequest as error:
        raise InvalidRequest(
            FieldError(f"/{field}" + each.pointer.removeprefix("/embeddings"), each.detail) for each in error.errors
        ) from None


OF_TEXTS = "the pool is made of texts, which are sent as 'texts', those of a held-out set as a list in 'X_test'"


def stage_terms(field: str, upload: TextUpload, text: Parameters, staging: Staging) -> StagedRows:
    """Write the term frequencies of texts to staged files. Raises InvalidRequest for too many terms."""
    n_columns = int(str(text["n_features"]))
    arrays = {name: ArraySpool(staging, np.dtype(np.float32 if name == "data" else np.int32)) for name in SPARSE}
    n_rows = n_terms = 0
    try:
        arrays["indptr"].write(np.zeros(1))
        for rows in count_terms(upload.texts, text):
            n_rows += rows.shape[0]
            write_rows(arrays, rows, n_terms)
            n_terms += rows.nnz
            check_terms(field, n_rows + n_terms, upload)
        lengths = {"data": n_terms, "indices": n_terms, "indptr": n_rows + 1}
        return StagedRows({name: array.close((lengths[name],)) for name, array in arrays.items()}, n_rows, n_columns)
    finally:
        for array in arrays.values():
            array.abandon()


def weigh_texts(field: str, upload: TextUpload, text: Parameters) -> Rows:
    """Return the features of texts in memory, weighted or embedded. Raises InvalidRequest for too many."""
    if "embeddings" in text:
        return np.concatenate(list(embedded_blocks(field, upload, text)))
    parts = []
    n_cells = 0
    for rows in count_terms(upload.texts, text):
        parts.append(rows)
        n_cells += rows.nnz + rows.shape[0]
        check_terms(field, n_cells, upload)
    counted = stack_rows(parts, np.dtype(np.float32), int(str(text["n_features"])))
    rows = SparseRows(counted.data, counted.indices, counted.indptr, counted.shape[1])
    return replace(rows, weights=weights_of(count_texts(rows, len(rows)), text, rows.n_columns))


def check_terms(field: str, n_cells: int, upload: TextUpload) -> None:
    """Raise InvalidRequest for more rows and terms than allowed."""
    most = min(MAX_TERMS, upload.max_cells)
    if n_cells > most:
        problem = f"has more than {most} terms in all (AQ_MAX_POOL_CELLS)"
        raise InvalidRequest.at(f"/{field}", f"{problem}; send fewer or shorter texts")


def write_rows(arrays: dict[str, ArraySpool], rows: Any, n_terms: int) -> None:
    """Append rows, a csr_array, to those with `n_terms` terms."""
    arrays["data"].write(rows.data)
    arrays["indices"].write(rows.indices)
    arrays["indptr"].write(rows.indptr[1:].astype(np.int64) + n_terms)


def stage_column(texts: Sequence[str] | TextColumn | None, staging: Staging) -> StagedFile | None:
    """Write texts or addresses to a staged file; return None without any."""
    if texts is None:
        return None
    column = texts if isinstance(texts, TextColumn) else TextColumn.build(texts)
    return staging.array(column.pack())
