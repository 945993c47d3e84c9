"""Matrices and columns out of tables of Arrow: each column a feature, or one column of lists; or labels and names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import MAX_LABEL_LENGTH
from service.errors import InvalidRequest
from service.http.body.formats.arrow import Table, is_text, library, open_table
from service.http.body.formats.spool import ArraySpool, check_finite
from service.http.body.limits import check_cells
from service.store.staging import StagedRows, Staging

BLOCK_CELLS = 2**17
BLOCK_ROWS = 4096

NULL = "must be a finite number, not null"

MAX_TEXT_BYTES = 4 * MAX_LABEL_LENGTH
VALUE_BYTES = 64
"""What a value takes as an object of Python, beyond its text."""


def read_matrix(path: Path, kind: str, pointer: str, staging: Staging, max_cells: int) -> StagedRows:
    """Read a spooled table into a staged matrix, some rows at a time.

    Raises InvalidRequest at the cell or row that is wrong, or ValueError for what is wrong with the whole.
    """
    pa = library(pointer)
    blocks = read_blocks(pa, open_table(pa, path, kind), pointer)
    first = next(blocks, None)
    if first is None:
        raise ValueError("has no rows")
    array, n_rows, n_columns = ArraySpool(staging, first.dtype), 0, first.shape[1]
    try:
        for block in chain([first], blocks):
            if block.shape[1] != n_columns:
                problem = f"has {block.shape[1]} numbers, but row 0 has {n_columns}"
                raise InvalidRequest.at(f"{pointer}/{n_rows}", problem)
            check_cells(pointer, (n_rows + len(block), n_columns), max_cells)
            check_finite(pointer, block, n_rows)
            array.write(block)
            n_rows += len(block)
        return StagedRows({"rows": array.close((n_rows, n_columns))}, n_rows, n_columns)
    finally:
        array.abandon()


def read_blocks(pa: Any, table: Table, pointer: str) -> Iterator[NDArray[Any]]:
    """Yield the rows of a table as dense blocks of one dtype."""
    types = table.schema.types
    row = 0
    if len(types) == 1 and is_list(pa, types[0]):
        number_dtype(pa, types[0].value_type)
        for batch in table.batches(BLOCK_ROWS):
            for block in list_blocks(batch.column(0), pointer, row):
                yield block
                row += len(block)
        return
    dtype: np.dtype[Any] = np.result_type(*(number_dtype(pa, each) for each in types))
    for batch in table.batches(max(1, BLOCK_CELLS // len(types))):
        yield column_block(batch, dtype, pointer, row)
        row += batch.num_rows


def is_list(pa: Any, kind: Any) -> bool:
    """Tell whether values of a type are lists."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def number_dtype(pa: Any, kind: Any) -> np.dtype[Any]:
    """Return numpy's type for a type of numbers, or raise ValueError."""
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        problem = "every column must hold floats or integers, or there must be one column of lists of them"
        raise ValueError(f"has a column of {str(kind)[:64]}; {problem}")
    dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return dtype


def column_block(batch: Any, dtype: np.dtype[Any], pointer: str, row: int) -> NDArray[Any]:
    """Put columns of numbers side by side (k, d); `row` is the position of the first of them."""
    block = np.empty((batch.num_rows, batch.num_columns), dtype)
    for number, column in enumerate(batch.columns):
        if column.null_count:
            at = f"{pointer}/{row + first_null(column)}/{number}"
            raise InvalidRequest.at(at, NULL)
        block[:, number] = column.to_numpy(zero_copy_only=False)
    return block


def list_blocks(column: Any, pointer: str, row: int) -> Iterator[NDArray[Any]]:
    """Put lists of numbers of one length one below the other (k, d); `row` is the position of the first of them."""
    if column.null_count:
        raise InvalidRequest.at(f"{pointer}/{row + first_null(column)}", "must be a list of numbers, not null")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    width = int(lengths[0])
    other = np.flatnonzero(lengths != width)
    if width == 0 or len(other):
        wrong = int(other[0]) if width else 0
        problem = f"has {lengths[wrong]} numbers, but row {row} has {width}" if width else "must not be empty"
        raise InvalidRequest.at(f"{pointer}/{row + wrong}", problem)
    step = max(1, BLOCK_CELLS // width)
    for begin in range(0, len(column), step):
        values = column.slice(begin, step).flatten()
        if values.null_count:
            at_row, at_column = divmod(first_null(values), width)
            at = f"{pointer}/{row + begin + at_row}/{at_column}"
            raise InvalidRequest.at(at, NULL)
        yield values.to_numpy(zero_copy_only=False).reshape(-1, width)


def first_null(array: Any) -> int:
    """Return the position of the first null."""
    return int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))


def read_column(path: Path, kind: str, pointer: str, max_bytes: int) -> NDArray[Any] | list[Any]:
    """Read a spooled table of one column: numbers as an array, NaN for null in floats; all else as a list.

    Raises InvalidRequest at the text that is too long, or ValueError: for more than `max_bytes` in memory, say.
    """
    pa = library(pointer)
    table = open_table(pa, path, kind)
    if len(table.schema.types) != 1:
        raise ValueError(f"has {len(table.schema.types)} columns; it must have one")
    refuse_column_type(pa, table.schema.types[0])
    pieces: list[NDArray[Any] | list[Any]] = []
    row, n_bytes = 0, 0
    for batch in table.batches(BLOCK_ROWS):
        pieces.append(column_values(pa, batch.column(0), pointer, row))
        row += batch.num_rows
        n_bytes += size_of(pieces[-1])
        if n_bytes > max_bytes:
            raise ValueError(f"takes more than {max_bytes} bytes of memory; AQ_MAX_BODY_BYTES allows no more")
    arrays = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    if arrays and len(arrays) == len(pieces):
        return np.concatenate(arrays)
    return list(chain.from_iterable(p.tolist() if isinstance(p, np.ndarray) else p for p in pieces))


def refuse_column_type(pa: Any, kind: Any) -> None:
    """Raise ValueError for a type that is none of labels or names."""
    types = pa.types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    if not (is_text(pa, inner) or any(is_a(inner) for is_a in (types.is_integer, types.is_boolean, types.is_floating))):
        if types.is_null(kind):
            return
        raise ValueError(f"holds {str(kind)[:64]}; integers, booleans, text or whole numbers are taken")


def column_values(pa: Any, column: Any, pointer: str, row: int) -> NDArray[Any] | list[Any]:
    """Return some values of a column, the first of which is at `row`. Raises InvalidRequest for too long a text."""
    if pa.types.is_dictionary(column.type):
        refuse_long_texts(pa, column.dictionary, pointer)
        column = column.dictionary_decode()
    else:
        refuse_long_texts(pa, column, pointer, row)
    if pa.types.is_floating(column.type) or (not column.null_count and not is_text(pa, column.type)):
        array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return array
    values: list[Any] = column.to_pylist()
    return values


def refuse_long_texts(pa: Any, texts: Any, pointer: str, row: int | None = None) -> None:
    """Raise InvalidRequest before a text that is no label becomes an object: a few bytes may stand for many long ones.

    `row` is the position of the first text, None for those of a dictionary.
    """
    if not is_text(pa, texts.type) or not len(texts):
        return
    lengths = text_lengths(pa, texts)
    at = int(np.argmax(lengths))
    if lengths[at] > MAX_TEXT_BYTES:
        at_row = "" if row is None else f"/{row + at}"
        raise InvalidRequest.at(f"{pointer}{at_row}", f"has text of more than {MAX_LABEL_LENGTH} characters")


def text_lengths(pa: Any, texts: Any) -> NDArray[Any]:
    """Return how many bytes each text has, 0 for null."""
    if not pa.types.is_string_view(texts.type):
        lengths: NDArray[Any] = pa.compute.fill_null(pa.compute.binary_length(texts), 0).to_numpy(zero_copy_only=False)
        return lengths
    # A view is 16 bytes, of which the first four are the length of what it shows.
    views = np.frombuffer(texts.buffers()[1], np.int32)[::4][texts.offset : texts.offset + len(texts)]
    return np.where(texts.is_null().to_numpy(zero_copy_only=False), 0, views)


def size_of(values: NDArray[Any] | list[Any]) -> int:
    """Return about how many bytes of memory some values take."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    return sum(VALUE_BYTES + (len(value) if isinstance(value, str) else 0) for value in values)
