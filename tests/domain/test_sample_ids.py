"""Sample ids: every id is found, with any characters, and in a mapped file."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.sample_ids import SampleIds

TABLES = {
    "one": ["a"],
    "prefixes": ["aa", "a", "aaa", "ab", "b", "aab"],
    "numbers as text": ["10", "9", "1", "100", "09"],
    "unicode": ["ß", "é", "e\u0301", "日本", "日", "🦊", "z", "ﬀ"],
    "odd characters": ["a b", " ", "\0", "a\0", "\n", '"', "/../", ","],
    "case": ["A", "a", "aA", "Aa"],
    "long": ["x" * 256, "x" * 255, "x" * 255 + "y"],
}


@pytest.mark.parametrize("names", TABLES.values(), ids=TABLES)
def test_every_id_has_its_row_and_every_row_its_id(names):
    ids = SampleIds.build(names)
    assert len(ids) == len(names)
    assert [ids.find(name) for name in names] == list(range(len(names)))
    assert ids.names_at(range(len(names))) == names
    assert ids.names_at(reversed(range(len(names)))) == names[::-1]


@pytest.mark.parametrize("other", ["", "a", "ab", "abcd", "b", "é", "\0", "abc\0", "ABC", "zzz"])
def test_an_unknown_id_is_not_found(other):
    assert SampleIds.build(["abc", "abd", "xyz"]).find(other) is None


def test_rows_may_be_asked_for_more_than_once_or_not_at_all():
    ids = SampleIds.build(["x", "y"])
    assert ids.names_at([1, 1, 0]) == ["y", "y", "x"]
    assert ids.names_at([]) == []


def test_mapped_names_are_found(tmp_path):
    names = [f"sample-{n * 7919 % 1000}" for n in range(1000)]
    built = SampleIds.build(names)
    joblib.dump(built.pack(), tmp_path / "ids")
    mapped = joblib.load(tmp_path / "ids", mmap_mode="r")
    ids = SampleIds.unpack(mapped)
    assert isinstance(mapped, np.memmap)
    assert np.shares_memory(ids.text, mapped)
    assert [ids.find(name) for name in names[::50]] == list(range(0, 1000, 50))
    assert ids.names_at([999, 0]) == [names[999], names[0]]
    assert ids.find("sample-1000") is None


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, unique=True), st.text(max_size=4))
def test_any_names(names, other):
    ids = SampleIds.build(names)
    assert [ids.find(name) for name in names] == list(range(len(names)))
    assert ids.names_at(range(len(names))) == names
    assert ids.find(other) == (names.index(other) if other in names else None)
