"""What a Parquet file would make its reader set aside, read from the file before the reader is let at it.

A reader takes for each page the memory that the page's own head announces, whatever the metadata says: 5 kB may hold
a page of 2 GB. Metadata and heads are in Thrift's compact protocol, of which this reads what they use.
Source: https://parquet.apache.org/docs/file-format/, https://thrift.apache.org/docs/thrift-compact-protocol
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"PAR1"

MAX_METADATA_BYTES = 2**22
MAX_HEAD_BYTES = 2**16
MAX_DEPTH = 16

MAX_PAGE_BYTES = 2**26
MAX_UNPACKED_BYTES = 2**28
"""How much may be unpacked at a time: a page and a dictionary of every column, usually 2 MB."""

MAX_LIST_VALUES = 2**25
"""How many values a row group may have in a column of lists: all of them may turn out to be in one row."""

I32, I64, LIST, STRUCT = 5, 6, 9, 12
"""The numbers of the protocol for types that are read here."""

REPEATED = 2
DELTA_BYTE_ARRAY = 7
DICTIONARY = 2

Fields = dict[tuple[int, int], Any]
"""The values of a struct by the numbers of their field and type: a field of another type is passed over by readers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the head of a kind of page has what is particular to it: a struct, and how values are written in that."""

    struct: int
    encoding: int


KINDS = {0: Place(5, 2), DICTIONARY: Place(7, 2), 3: Place(8, 4)}
"""Data pages, dictionary pages, and data pages of the second version."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the head of a page announces: its length unpacked, how many values it has and how they are written."""

    n_bytes: int
    n_values: int
    encoding: int
    is_dictionary: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group: its values, and where its pages lie."""

    n_values: int
    begin: int
    size: int


class Compact:
    """Reads Thrift's compact protocol from bytes; ValueError for what is none."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        """Read one byte."""
        if self.at >= len(self.data):
            raise ValueError("its metadata breaks off")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        """Read a number of at most 64 bits, seven to a byte."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ValueError("its metadata holds a number that does not end")

    def signed(self) -> int:
        """Read a number whose sign is in its last bit."""
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def skip(self, size: int) -> None:
        """Pass over some bytes."""
        if size > len(self.data) - self.at:
            raise ValueError("its metadata breaks off")
        self.at += size

    def struct(self, depth: int = 0) -> Fields:
        """Read a struct."""
        fields: Fields = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            kind = head & 0x0F
            # The two truth values are types of their own, and have no bytes.
            fields[number, kind] = None if kind in (1, 2) else self.value(kind, depth + 1)
        return fields

    def items(self, depth: int) -> list[Any]:
        """Read a list."""
        head = self.byte()
        size = head >> 4 if head >> 4 < 15 else self.varint()
        if size > len(self.data) - self.at:
            raise ValueError("its metadata breaks off")
        return [self.value(head & 0x0F, depth) for _ in range(size)]

    def value(self, kind: int, depth: int) -> Any:
        """Read a value of a type; of those that nobody asks for only the bytes are passed over."""
        if depth > MAX_DEPTH:
            raise ValueError("its metadata is nested too deeply")
        match kind:
            case 1 | 2 | 3:
                return self.byte()
            case 4 | 5 | 6:
                return self.signed()
            case 7:
                return self.skip(8)
            case 8:
                return self.skip(self.varint())
            case 9 | 10:
                return self.items(depth + 1)
            case 12:
                return self.struct(depth)
        raise ValueError("its metadata holds an unknown type")


def check_file(path: Path) -> int:
    """Return the length of the longest dictionary of a Parquet file; ValueError for one that would unpack to much."""
    with path.open("rb") as file:
        metadata = Compact(read_footer(file)).struct()
        has_lists = any(element.get((3, I32)) == REPEATED for element in structs(metadata, 2))
        return max((check_group(file, group, has_lists=has_lists) for group in structs(metadata, 4)), default=0)


def structs(fields: Fields, number: int) -> list[Fields]:
    """Return the structs of a list."""
    return [item for item in fields.get((number, LIST), []) if isinstance(item, dict)]


def read_footer(file: BinaryIO) -> bytes:
    """Return the metadata at the end of a Parquet file, or raise ValueError."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    end = file.read()
    if len(end) < 8 or end[4:] != MAGIC:
        raise ValueError("it is not a Parquet file, or breaks off, or is encrypted")
    length = int.from_bytes(end[:4], "little")
    if length > MAX_METADATA_BYTES:
        raise ValueError(f"its metadata has more than {MAX_METADATA_BYTES} bytes; write larger row groups")
    file.seek(max(0, size - 8 - length))
    return file.read(length)


def check_group(file: BinaryIO, group: Fields, *, has_lists: bool) -> int:
    """Return the length of the longest dictionary of a row group; ValueError when its pages unpack to too much."""
    longest, unpacked = 0, 0
    for column in structs(group, 1):
        chunk = read_chunk(column)
        if has_lists and chunk.n_values > MAX_LIST_VALUES:
            n_rows = max(0, group.get((3, I64), 0)) * MAX_LIST_VALUES // chunk.n_values
            problem = f"a row group has more than {MAX_LIST_VALUES} values in its lists"
            raise ValueError(f"{problem}; write smaller ones (row_group_size={max(1, n_rows)})")
        dictionary, data = check_pages(file, chunk)
        longest = max(longest, dictionary)
        unpacked += dictionary + data
    if unpacked > MAX_UNPACKED_BYTES:
        problem = f"the pages of a row group unpack to more than {MAX_UNPACKED_BYTES} bytes at a time"
        raise ValueError(f"{problem}; write smaller ones (row_group_size, data_page_size)")
    return longest


def read_chunk(column: Fields) -> Chunk:
    """Return where a column of a row group lies, or raise ValueError."""
    fields: Fields = column.get((3, STRUCT), {})
    n_values, size, data, dictionary = (fields.get((number, I64), -1) for number in (5, 7, 9, 11))
    begin = dictionary if 0 < dictionary < data else data
    if min(n_values, size, begin) < 0:
        raise ValueError("its metadata does not say where a column lies")
    return Chunk(n_values, begin, size)


def check_pages(file: BinaryIO, chunk: Chunk) -> tuple[int, int]:
    """Return the lengths of the longest dictionary and data page of a column. Raises ValueError.

    What was found must be all that a reader will read, and its values must not refer to one another: each may then
    be as long as all before it together.
    """
    longest, n_values = {True: 0, False: 0}, 0
    for page in read_pages(file, chunk) if chunk.n_values else ():
        if page.n_bytes > MAX_PAGE_BYTES:
            raise ValueError(f"a page unpacks to more than {MAX_PAGE_BYTES} bytes; write smaller ones (data_page_size)")
        longest[page.is_dictionary] = max(longest[page.is_dictionary], page.n_bytes)
        n_values += 0 if page.is_dictionary else page.n_values
        if page.encoding == DELTA_BYTE_ARRAY:
            raise ValueError("the encoding DELTA_BYTE_ARRAY is not read here; write text with another")
    if n_values != chunk.n_values:
        raise ValueError("the pages of a column do not have as many values as its metadata says")
    return longest[True], longest[False]


def read_pages(file: BinaryIO, chunk: Chunk) -> Iterator[Page]:
    """Yield what the heads of a column's pages announce. Raises ValueError."""
    at, end = chunk.begin, chunk.begin + chunk.size
    while at < end:
        file.seek(at)
        head = Compact(file.read(MAX_HEAD_BYTES))
        fields = head.struct()
        kind, n_bytes, n_packed = (fields.get((number, I32), -1) for number in (1, 2, 3))
        if kind not in KINDS or n_bytes < 0 or n_packed < 0:
            raise ValueError("it has a page of an unknown kind")
        own: Fields = fields.get((KINDS[kind].struct, STRUCT), {})
        n_values, encoding = own.get((1, I32), -1), own.get((KINDS[kind].encoding, I32), -1)
        if n_values < 0:
            raise ValueError("it has a page of an unknown length")
        yield Page(n_bytes, n_values, encoding, kind == DICTIONARY)
        at += head.at + n_packed
