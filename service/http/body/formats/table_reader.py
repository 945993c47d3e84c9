"""Read Arrow, Parquet and CSV files in a separate process, which `formats.tables` starts.

pyarrow allocates the sizes a file announces: 5 kB may announce gigabytes. A memory limit on the worker would end other
requests, too; one on this process ends only its own. Few modules are imported, so that it starts quickly.

A request is a line of JSON on standard input. The reply is a series of frames on standard output, each a line of JSON
followed by the number of bytes it gives: blocks of numbers, the first with the names of the columns and of the pandas
index, or lists of values in JSON; the last frame is an error or an empty object.
"""

from __future__ import annotations

import codecs
import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from service.http.body.formats.wrong_tables import list_columns, no_features, wrong_feature

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

BLOCK_CELLS = 2**18
"""Numbers sent at a time."""

BATCH_ROWS = 4096
"""Lists or labels read at a time."""

MAX_NAMES_LENGTH = 2**22
"""Maximum total length of the column names, which each commit of a project writes."""

CSV_BLOCK_BYTES = 2**22
"""How much CSV is parsed at a time."""

CSV_CONVERSION = re.compile(
    r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.*)'", re.S
)

NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")

INDEX_NAME = re.compile(r"__index_level_[0-9]+__")
"""What pandas names an index without a name."""

Batches = Callable[[int], Iterable[Any]]
"""Yields record batches of at most the given number of rows."""


class WrongValue(Exception):
    """A value of the table that the service does not take; `at` is its pointer below that of the table.

    `role` is set if the table lacks the column of this role.
    """

    def __init__(self, at: str, problem: str, role: str | None = None) -> None:
        super().__init__(problem)
        self.at = at
        self.role = role


def main() -> None:
    """Handle requests until standard input ends, as it does when the worker ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A service manager signals all processes at once, while the worker still completes its requests.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    n_bytes_at_start = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        n_mapped = Path(request["path"]).stat().st_size
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes_at_start + n_mapped + request["memory_bytes"], hard))
        signal.alarm(request["seconds"])  # ends the process, whatever it is doing
        last_frame = send_table(request)
        signal.alarm(0)
        send(last_frame)
        pa.default_memory_pool().release_unused()  # to the system: the next table may come late


def send_table(request: dict[str, Any]) -> dict[str, Any]:
    """Send the frames of a table, except the last one, which is returned: an error or an empty object."""
    try:
        schema, batches = OPENERS[request["kind"]](request)
        if request["is_matrix"]:
            chosen, header = choose_features(schema, request)
            if request["features"] == []:
                send(header)
                return {}
            for block in read_blocks(*select(schema, batches, chosen), request["advice"]):
                send_array(block, **header)
                header = {}
        else:
            chosen = [choose_column(schema, request["column"])]
            for values in read_values(*select(schema, batches, chosen), request["max_text_length"]):
                send_values(values)
    except WrongValue as error:
        return {"error": str(error), "at": error.at, "role": error.role}
    except MemoryError:
        problem = f"takes more than {request['memory_bytes']} bytes of memory to read"
        return {"error": f"{problem}; write smaller record batches, or smaller row groups and pages", "at": ""}
    except Exception as error:  # noqa: BLE001 - hostile bytes make the library raise anything
        first_line = str(error).partition("\n")[0][:200]
        return {"error": f"cannot be read: {first_line}", "at": ""}
    return {}


def send(header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Write a frame."""
    out = sys.stdout.buffer
    out.write(json.dumps(header).encode() + b"\n")
    out.write(payload)
    out.flush()


def send_array(array: NDArray[Any], **more: Any) -> None:
    """Write a frame of numbers, with more values in its header."""
    array = np.ascontiguousarray(array)
    send({"dtype": array.dtype.str, "shape": array.shape, **more}, array.reshape(-1).view(np.uint8).data)


def send_values(values: NDArray[Any] | list[Any]) -> None:
    """Write a frame of some values of a column."""
    if isinstance(values, list):
        text = json.dumps(values).encode()
        send({"n_bytes": len(text)}, text)
    else:
        send_array(values)


def choose_features(schema: Any, request: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """Return the positions of the features, and the header of the first block. Raises WrongValue.

    By default they are all columns but those of the `roles` and the index of a pandas table, which pandas leaves out,
    too. Only columns of `required` roles must exist.
    """
    names, features = schema.names, request["features"]
    roles = {role: name for role, name in request["roles"].items() if name in names}
    for role in request["required"]:
        if role not in roles:
            raise WrongValue("", f"{request['roles'][role]!r} is not a column; {list_columns(names)}", role)
    others = set(roles.values())
    if features is None:
        index = {name for name in index_names(schema) if name not in others}
        chosen = [at for at, name in enumerate(names) if name not in index and name not in others]
    else:
        index = set()
        chosen = [position_of(schema, name) for name in features]
    if not chosen and features != []:
        raise WrongValue("", no_features(request["advice"] if others else ""))
    header = {
        "names": feature_names(schema, chosen),
        "index_names": [name for name in names if name in index],
        "roles": list(roles),
    }
    return chosen, header


def index_names(schema: Any) -> set[str]:
    """Return the names of the columns that are the index of a pandas table."""
    declared = (schema.pandas_metadata or {}).get("index_columns", [])
    # Other libraries keep the column when they rewrite a file of pandas, but not its metadata.
    return {name for name in declared if isinstance(name, str)} | set(filter(INDEX_NAME.fullmatch, schema.names))


def choose_column(schema: Any, name: str | None) -> int:
    """Return the position of a column, by default of the only one beside the index of pandas. Raises WrongValue."""
    if name is not None:
        return position_of(schema, name)
    index = index_names(schema)
    chosen = [at for at, each in enumerate(schema.names) if each not in index] or list(range(len(schema.names)))
    if len(chosen) != 1:
        raise WrongValue("", f"has {len(chosen)} columns; it must have one" if chosen else "has no columns")
    return chosen[0]


def position_of(schema: Any, name: str) -> int:
    """Return the position of a column. Raises WrongValue."""
    positions: list[int] = schema.get_all_field_indices(name)
    if len(positions) != 1:
        problem = f"repeats column names: {name!r}"
        raise WrongValue("", problem if positions else f"has no column {name!r}; {list_columns(schema.names)}")
    return positions[0]


def select(schema: Any, batches: Batches, chosen: list[int]) -> tuple[Any, Batches]:
    """Return the schema of the chosen columns, and their valid batches."""

    def chosen_batches(n_rows: int) -> Iterator[Any]:
        for batch in batches(n_rows):
            batch.validate(full=True)
            for begin in range(0, batch.num_rows, n_rows):
                yield batch.select(chosen).slice(begin, n_rows)

    return pa.schema([schema.field(at) for at in chosen]), chosen_batches


def open_stream(request: dict[str, Any]) -> tuple[Any, Batches]:
    """Open a file in Arrow's stream format."""
    file = pa.memory_map(request["path"])
    reader = pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(use_threads=False))

    def batches(_: int) -> Iterator[Any]:
        yield from reader
        # pyarrow takes the end of the file for the end of the stream.
        end = file.tell()
        file.seek(max(0, end - len(END_OF_STREAM)))
        if file.read(len(END_OF_STREAM)) != END_OF_STREAM:
            raise WrongValue("", "the stream breaks off: its end is not marked")
        if end != file.size():
            raise WrongValue("", "there are bytes behind the end of the stream")

    return reader.schema, batches


def open_file(request: dict[str, Any]) -> tuple[Any, Batches]:
    """Open a file in Arrow's file format."""
    reader = pa.ipc.open_file(pa.memory_map(request["path"]), options=pa.ipc.IpcReadOptions(use_threads=False))
    return reader.schema, lambda _: (reader.get_batch(number) for number in range(reader.num_record_batches))


def open_parquet(request: dict[str, Any]) -> tuple[Any, Batches]:
    """Open a Parquet file, of which only one column is read if it is named."""
    file = pa.parquet.ParquetFile(request["path"], memory_map=True, pre_buffer=False)
    schema, column = file.schema_arrow, request["column"]
    if column is None or len(schema.get_all_field_indices(column)) != 1:
        return schema, lambda n_rows: file.iter_batches(n_rows, use_threads=False)

    def batches(n_rows: int) -> Iterator[Any]:
        for batch in file.iter_batches(n_rows, columns=[column], use_threads=False):
            yield batch.select([column])  # the name may be the beginning of another one

    return pa.schema([schema.field(column)]), batches


def open_csv(request: dict[str, Any]) -> tuple[Any, Batches]:
    """Open a CSV file with a header. Features are float64 or booleans, and all else is text."""
    path = request["path"]
    check_text(path)
    schema = read_csv(path).schema
    check_header(schema.names)
    text = pa.string()
    types = dict.fromkeys(schema.names, text)
    if request["is_matrix"]:
        types |= {name: csv_type(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        types |= {name: text for name in request["roles"].values() if name in types}
    # An empty line is an empty cell if there is one column, and else no row.
    reader = read_csv(path, types, ignore_empty_lines=len(schema.names) > 1)
    schema = reader.schema
    if not schema.names[0]:
        schema = schema.with_metadata({"pandas": json.dumps({"index_columns": [""]})})

    def batches(_: int) -> Iterator[Any]:
        with csv_errors(schema.names):
            yield from reader

    return schema, batches


def read_csv(path: str, types: dict[str, Any] | None = None, *, ignore_empty_lines: bool = True) -> Any:
    """Open a CSV file with pyarrow's reader; types are inferred from its first block where they are not given."""
    with csv_errors(list(types or ())):
        return pa.csv.open_csv(
            pa.memory_map(path),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=ignore_empty_lines),
            convert_options=pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )


def csv_type(kind: Any) -> Any:
    """Return the type of a column of CSV whose first values have a type; later ones may be fractions."""
    if pa.types.is_binary(kind):
        raise WrongValue("", "is not UTF-8; save it as UTF-8")
    return pa.float64() if is_number(kind) or pa.types.is_null(kind) else kind


def check_text(path: str) -> None:
    """Raise WrongValue for UTF-16, and for a quote that is not closed, whose field would be the rest of the file."""
    with Path(path).open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise WrongValue("", "is UTF-16; save it as UTF-8")
        file.seek(0)
        if sum(block.count(b'"') for block in iter(lambda: file.read(CSV_BLOCK_BYTES), b"")) % 2:
            raise WrongValue("", "has an odd number of quotes: one is not closed, or not doubled inside a field")


def check_header(names: list[str]) -> None:
    """Raise WrongValue if the first line of a CSV file holds numbers other than those that pandas counts columns by."""
    if all(map(NUMBER.fullmatch, names)) and names != [str(at) for at in range(len(names))]:
        raise WrongValue("", "must begin with a line of column names, and begins with numbers")


@contextmanager
def csv_errors(names: list[str]) -> Iterator[None]:
    """Turn pyarrow's error for a long row, or for a cell of a column with a type, into WrongValue."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if "straddl" in str(error):
            raise WrongValue("", f"has a row of more than {CSV_BLOCK_BYTES} bytes") from None
        if (found := CSV_CONVERSION.fullmatch(str(error))) is None:
            raise
        column, line, kind, value = found.groups()
        kind = "a boolean" if kind == "bool" else "a number"
        problem = f"column {names[int(column)]!r} holds {value[:64]!r}, which is not {kind}"
        raise WrongValue(f"/{int(line) - 2}", problem) from None


OPENERS = {"stream": open_stream, "file": open_file, "parquet": open_parquet, "csv": open_csv}
"""How a file of each kind is opened for a request: its schema and batches."""


def read_blocks(schema: Any, batches: Batches, advice: str) -> Iterator[NDArray[Any]]:
    """Yield the rows of a matrix as blocks (k, d), with NaN for null. Raises WrongValue.

    All blocks have one dtype, except that those with nulls are floats.
    """
    kinds = [plain_type(kind) for kind in schema.types]
    if len(kinds) == 1 and is_list(kinds[0]):
        dtype = number_dtype(schema.names[0], kinds[0].value_type, advice)
        yield from list_blocks(batches(BATCH_ROWS), dtype)
        return
    dtype = np.result_type(*(number_dtype(name, kind, advice) for name, kind in zip(schema.names, kinds, strict=True)))
    for batch in batches(max(1, BLOCK_CELLS // len(kinds))):
        columns = [plain(column) for column in batch.columns]
        has_nulls = any(column.null_count for column in columns)
        block = np.empty((batch.num_rows, len(kinds)), dtype_with_nan(dtype) if has_nulls else dtype)
        for number, column in enumerate(columns):
            block[:, number] = numbers_of(column)
        yield block


def numbers_of(column: Any) -> NDArray[Any]:
    """Return a column of numbers or booleans, with NaN for null."""
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.uint8())
    numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers


def dtype_with_nan(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype itself if it has NaN, otherwise a float for its numbers; those beyond 2**53 are rounded."""
    return dtype if dtype.kind == "f" else np.result_type(dtype, np.float32)


def feature_names(schema: Any, chosen: list[int]) -> list[str] | None:
    """Return the names of the chosen columns, None for a matrix in one column of lists. Raises WrongValue."""
    if sum(map(len, schema.names)) > MAX_NAMES_LENGTH:
        raise WrongValue("", f"has names of columns of more than {MAX_NAMES_LENGTH} characters in all")
    names = [schema.names[at] for at in chosen]
    return None if len(chosen) == 1 and is_list(plain_type(schema.types[chosen[0]])) else names


def list_blocks(batches: Iterable[Any], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield a column of lists of numbers, all of one length d, as blocks (k, d). Raises WrongValue."""
    row, width = 0, 0
    for batch in batches:
        lists = plain(batch.column(0))
        if lists.null_count:
            raise WrongValue(f"/{row + first_null(lists)}", "must be a list of numbers, not null")
        lengths = list_lengths(lists)
        width = width or int(lengths[0])
        other = np.flatnonzero(lengths != width)
        if not width:
            raise WrongValue(f"/{row}", "must not be empty")
        if len(other):
            raise WrongValue(f"/{row + other[0]}", f"has {lengths[other[0]]} numbers, but row 0 has {width}")
        step = max(1, BLOCK_CELLS // width)
        for begin in range(0, len(lists), step):
            values = plain(lists.slice(begin, step).flatten())
            numbers = numbers_of(values).reshape(-1, width)
            yield numbers.astype(dtype_with_nan(dtype) if values.null_count else dtype, copy=False)
        row += len(lists)


def list_lengths(lists: Any) -> NDArray[Any]:
    """Return the length of each list."""
    if pa.types.is_fixed_size_list(lists.type):
        return np.full(len(lists), lists.type.list_size)
    return np.diff(lists.offsets.to_numpy())


def read_values(schema: Any, batches: Batches, max_text_length: int) -> Iterator[NDArray[Any] | list[Any]]:
    """Yield a column: numbers as arrays, with NaN for null in floats, and all else as lists. Raises WrongValue."""
    refuse_column_type(plain_type(schema.types[0]))
    row, dictionary, texts = 0, None, []
    for batch in batches(BATCH_ROWS):
        column = plain(batch.column(0))
        if pa.types.is_dictionary(column.type):
            if dictionary is None or not column.dictionary.equals(dictionary):
                dictionary = column.dictionary
                texts = read_texts(dictionary, None, max_text_length)
            yield [None if code is None else texts[code] for code in column.indices.to_pylist()]
        elif is_text(column.type):
            yield read_texts(column, row, max_text_length)
        elif not is_list(column.type) and (pa.types.is_floating(column.type) or not column.null_count):
            yield column.to_numpy(zero_copy_only=False)
        else:
            yield column.to_pylist()
        row += len(column)


def read_texts(column: Any, row: int | None, max_length: int) -> list[str | None]:
    """Return texts, or raise WrongValue for one that is too long; `row` is the position of the first, if it has one."""
    texts: list[str | None] = column.to_pylist()
    for at, text in enumerate(texts):
        if text is not None and len(text) > max_length:
            raise WrongValue("" if row is None else f"/{row + at}", f"has text of more than {max_length} characters")
    return texts


def refuse_column_type(kind: Any) -> None:
    """Raise WrongValue for a type that holds neither labels, nor lists of them, nor ids."""
    types = pa.types
    inner = kind.value_type if types.is_dictionary(kind) or is_list(kind) else kind
    if not (is_text(inner) or is_number(inner) or types.is_boolean(inner) or types.is_null(inner)):
        problem = "send integers, booleans, text, whole numbers, or lists of them for several labels a sample"
        raise WrongValue("", f"holds {str(kind)[:64]}; {problem}")


def plain_type(kind: Any) -> Any:
    """Return the type that `plain` returns for columns of a type."""
    return plain(pa.nulls(0, kind)).type


def plain(column: Any) -> Any:
    """Return a column without extension types, decimals and dictionaries of anything but text."""
    types = pa.types
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if types.is_dictionary(column.type) and not is_text(column.type.value_type):
        column = column.dictionary_decode()
    return column.cast(pa.float64()) if types.is_decimal(column.type) else column


def is_text(kind: Any) -> bool:
    """Return whether values of a type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: Any) -> bool:
    """Return whether values of a type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_number(kind: Any) -> bool:
    """Return whether values of a type are integers or floats."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def number_dtype(name: str, kind: Any, advice: str) -> np.dtype[Any]:
    """Return numpy's type for a type of numbers, of booleans, which count as 0 and 1, or of nulls.

    Raises WrongValue for another type.
    """
    if pa.types.is_boolean(kind):
        return np.dtype(np.uint8)
    if pa.types.is_null(kind):
        return np.dtype(np.float32)
    if not is_number(kind):
        raise WrongValue("", wrong_feature(name, str(kind), advice))
    dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return dtype


def first_null(array: Any) -> int:
    """Return the position of the first null."""
    return int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
