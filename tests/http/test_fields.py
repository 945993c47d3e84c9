"""The rules of fields: for each, tables of valid values and of invalid ones with their pointers."""

import itertools

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from service.domain.project import PROJECT_ID
from service.errors import MAX_ERRORS
from service.http.problems import flatten
from service.http.schemas import fields, label_fields
from service.store.staging import StagedRows
from service.usecases.label import SubmittedLabel

TOO_LONG = "a" * 257
BEYOND_64_BITS = 2**63


def refusal(rule, value):
    """Return the pointers below the field at which a value is refused."""
    with pytest.raises(ValidationError) as caught:
        rule.read(value)
    wrong = flatten(caught.value.messages)
    assert all(error.detail for error in wrong)
    return [error.pointer for error in wrong]


def details_of(rule, value):
    """Return the details of the errors of a value."""
    with pytest.raises(ValidationError) as caught:
        rule.read(value)
    return " ".join(error.detail for error in flatten(caught.value.messages))


def same(one, other):
    """Equal, and of the same types all the way down: `True` is not `1`."""
    if isinstance(one, list):
        return type(other) is list and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


INTEGER, TEXT, SEED = fields.integer(1, 10), fields.text(1, 3), fields.integer(0, 2**32 - 1)
ANSWERS, CLASSES = label_fields.answers(), label_fields.class_list()
LABELS, LABELS_OR_NULL = label_fields.label_list(unlabeled=False), label_fields.label_list(unlabeled=True)

TAKEN = [
    *((INTEGER, value) for value in (1, 5, 10)),
    *((SEED, value) for value in (0, 2**32 - 1)),
    *((fields.boolean(), value) for value in (True, False)),
    *((TEXT, value) for value in ("a", "abc", "😀😀😀", "\0", " ")),
    *((fields.pattern(PROJECT_ID), value) for value in ("a", "0", "a.b_c-d", "A" * 64, "a..")),
    *((fields.one_of("wait", "never"), value) for value in ("wait", "never")),
    *((fields.json_object(), value) for value in ({}, {"a": [1, None]})),
    *((fields.estimator(), value) for value in ("svc", "", {"name": "svc"}, {"name": "x", "params": {"C": None}})),
    *((CLASSES, value) for value in (["a"], [2, 1], [True, False], ["1", "01"], ["a", "A", "á"])),
    *((fields.sample_ids(), value) for value in (["a"], ["b", "a"], ["1", "01", " 1"], ["a" * 256], ["\0", "\0\0"])),
]

REFUSED = [
    *((INTEGER, value, "") for value in (0, 11, -1, 1.0, True, "1", None, [1], {}, 2**64)),
    *((SEED, value, "") for value in (-1, 2**32, False, 0.0)),
    *((fields.boolean(), value, "") for value in (0, 1, "true", "", None, [])),
    *((TEXT, value, "") for value in ("", "abcd", 1, None, ["a"], b"a")),
    *(
        (fields.pattern(PROJECT_ID), value, "")
        for value in ("", ".", "-a", "a/b", "a\n", "\na", "ä", "a" * 65, 1, None)
    ),
    *(
        (fields.one_of("wait", "never"), value, "")
        for value in ("", "Wait", "wait ", None, True, ["wait"], {"wait": 1})
    ),
    *((fields.json_object(), value, "") for value in ([], "{}", None, 1, dict.fromkeys(map(str, range(101)), 1))),
    *(
        (fields.estimator(), value, "")
        for value in (None, 1, [], {}, {"name": None}, {"name": ["svc"]}, {"params": {}})
    ),
    (fields.estimator(), {"name": "svc", "C": 1}, "/C"),
    (fields.estimator(), {"name": "svc", "a/b~": 1}, "/a~1b~0"),
    *((fields.estimator(), {"name": "svc", "params": value}, "/params") for value in (None, [], "", 1)),
    (fields.estimator(), {"name": "svc", "params": dict.fromkeys(map(str, range(101)), 1)}, "/params"),
    *((fields.indices(), value, "") for value in (None, 1, "1", {}, {"0": 1})),
    *((fields.indices(), [0, value], "/1") for value in (-1, 1.0, True, "1", None, [], BEYOND_64_BITS, 2**64)),
    *((fields.matrix(), value, "") for value in (None, [], {}, "", 1, True)),
    *((fields.matrix(), [[1], value], "/1") for value in ([], 1, None, "1", {}, [1, 2])),
    *((fields.matrix(), [value, [1, 2], [3, 4]], "/0") for value in ([], 1, None, "1", {})),
    *((fields.matrix(), [[1, value]], "/0/1") for value in ("1", None, True, [], {}, "nan")),
    *((fields.features(), [[1, value]], "/0/1") for value in ("1", None, [], {}, "nan")),
    *((rule, value, "") for rule in (LABELS, LABELS_OR_NULL) for value in (None, [], {}, "ab", 1)),
    *((LABELS, [value], "/0") for value in ("", TOO_LONG, {}, 1e101, BEYOND_64_BITS, -BEYOND_64_BITS - 1)),
    *((LABELS, [["a"], value], "/1") for value in ("a", 1, {}, None)),
    *((LABELS, [["a", value]], "/0/1") for value in ("a", "", 1, 0.5, [], None)),
    (LABELS, ["a", None], "/1"),
    *((LABELS_OR_NULL, [None, one, None, other], "/3") for one, other in itertools.permutations([1, "1", True], 2)),
    *((LABELS_OR_NULL, [one, other], "/1") for one, other in itertools.permutations([0, "0", False], 2)),
    *((CLASSES, value, "") for value in (None, [], "ab")),
    *((CLASSES, [1, value], "/1") for value in (1, "1", True, None, [1])),
    *((CLASSES, value, "") for value in ([1, 1.0], [0.5])),
    (CLASSES, [True, False, True, False], ("/2", "/3")),
    *((fields.sample_ids(), value, "") for value in (None, [], "ab", {"a": 0})),
    *((fields.sample_ids(), ["a", value], "/1") for value in ("a", "", TOO_LONG, 1, None, True, ["a"])),
    *((ANSWERS, value, "") for value in (None, [], {}, "a", 1)),
    *((ANSWERS, [value], "/0") for value in (None, [], "a", 1, {}, {"index": 1}, {"label": "a"}, {"skip": True})),
    (ANSWERS, [{"index": 1, "id": "a", "label": "a"}], "/0"),
    (ANSWERS, [{"index": 1, "label": "a", "skip": True}], "/0"),
    (ANSWERS, [{"index": 1, "skip": False}], "/0"),
    *((ANSWERS, [{"index": value, "skip": True}], "/0/index") for value in (-1, 1.0, True, "1", None, 2**64)),
    *((ANSWERS, [{"id": value, "skip": True}], "/0/id") for value in ("", TOO_LONG, 1.0, True, 2**64, None)),
    *((ANSWERS, [{"id": "a", "label": value}], "/0/label") for value in ("", TOO_LONG, 1e101, 2**63)),
    *((ANSWERS, [{"id": "a", "label": [value]}], "/0/label/0") for value in ("", None, 0.5, [])),
    *((ANSWERS, [{"id": "a", "skip": value}], "/0/skip") for value in (1, "true", None)),
    *((ANSWERS, [{"id": "a", "skip": True, "annotator": value}], "/0/annotator") for value in ("", TOO_LONG, 1)),
    *((ANSWERS, [{"id": "a", "skip": True, "query_id": value}], "/0/query_id") for value in ("", "a b", 1)),
    *((ANSWERS, [{"id": "a", "skip": True, name: 1}], f"/0/{at}") for name, at in {"a": "a", "/": "~1"}.items()),
    (ANSWERS, [{"id": "a", "labl": 1, "skip": 1}], ("/0/labl", "/0/skip")),
    (
        ANSWERS,
        [{"id": "a", "label": 1}, {"id": "b", "skip": True}, {"id": "c", "label": "1"}],
        "/2/label",
    ),
    *(
        (fields.integer_text(1, 100), value, "")
        for value in ("", "0", "101", "1.0", "-1", "+1", " 1", "1\n", "٣", "1" * 99)
    ),
]


@pytest.mark.parametrize(("rule", "value"), TAKEN)
def test_a_rule_returns_valid_values_unchanged(rule, value):
    assert same(rule.read(value), value)


@pytest.mark.parametrize(("rule", "value", "pointers"), REFUSED)
def test_a_rule_refuses_invalid_values(rule, value, pointers):
    assert refusal(rule, value) == ([pointers] if isinstance(pointers, str) else list(pointers))


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("100", 100), ("007", 7)])
def test_an_integer_in_a_url(text, number):
    assert fields.integer_text(1, 100).read(text) == number


@pytest.mark.parametrize("value", [[], [0], [3, 1, 3], [2**63 - 1]])
def test_indices_become_integers_of_64_bits(value):
    read = fields.indices().read(value)
    assert (read.dtype, read.tolist()) == (np.int64, value)


# Matrices.


@pytest.mark.parametrize(
    "value",
    [
        [[1]],
        [[1, 2.5], [3, 4]],
        [[1, 2], [3.5, -0.0]],
        [[2**53, 2**53 + 1, 2**64 - 1, -(2**63)]],
        [[2**64 - 1], [-1], [0.5]],
        [[1.7976931348623157e308, -5e-324]],
    ],
)
def test_a_matrix_holds_each_number_as_float64_does(value):
    read = fields.matrix().read(value)
    assert read.dtype == np.float64
    assert read.tolist() == [[float(number) for number in row] for row in value]


def test_a_matrix_that_was_staged_passes(tmp_path):
    staged = StagedRows({"rows": tmp_path}, 1, 1)
    assert fields.matrix().read(staged) is staged


def test_a_ragged_row_is_compared_with_the_first_good_one():
    assert details_of(fields.matrix(), [None, [1, 2], [3]]).endswith("has 1 numbers, but row 1 has 2")


# Labels.


@pytest.mark.parametrize(
    ("value", "values", "codes"),
    [
        (["b", "a", "b"], ("b", "a"), [0, 1, 0]),
        ([1, 0, 1], (1, 0), [0, 1, 0]),
        ([True, False], (True, False), [0, 1]),
        ([False], (False,), [0]),
        ([None, "a", None], ("a",), [-1, 0, -1]),
        ([None, None], (), [-1, -1]),
        (["1", "01", "1 "], ("1", "01", "1 "), [0, 1, 2]),
        ([2**63 - 1, -(2**63)], (2**63 - 1, -(2**63)), [0, 1]),
        (["a" * 256, "😀" * 256, "\0"], ("a" * 256, "😀" * 256, "\0"), [0, 1, 2]),
    ],
)
def test_labels_are_encoded_with_their_type(value, values, codes):
    read = LABELS_OR_NULL.read(value)
    assert same(list(read.values), list(values))
    assert (read.codes.dtype, read.codes.tolist()) == (np.int32, codes)


@pytest.mark.parametrize(
    ("column", "values", "codes"),
    [
        (np.array([3, 1, 3], "u1"), (1, 3), [1, 0, 1]),
        (np.array([3, 1, 3], ">i8"), (1, 3), [1, 0, 1]),
        (np.array([2**63 - 1], "u8"), (2**63 - 1,), [0]),
        (np.array([True, False]), (False, True), [1, 0]),
        (np.array(["a", "", "b"]), ("", "a", "b"), [1, 0, 2]),
        (np.array(["ä", "😀"], ">U2"), ("ä", "😀"), [0, 1]),
        (np.array([1.0, np.nan, -0.0, 0.0]), (0, 1), [1, -1, 0, 0]),
        (np.array([1, np.nan, 2048], "f2"), (1, 2048), [0, -1, 1]),
        (np.array([2.0**62, -(2.0**62)], ">f4"), (-(2**62), 2**62), [1, 0]),
        (np.array([np.nan, np.nan]), (), [-1, -1]),
    ],
)
def test_a_column_becomes_labels_of_json_types(column, values, codes):
    read = LABELS_OR_NULL.read(column)
    assert same(list(read.values), list(values))
    assert read.codes.tolist() == codes


@pytest.mark.parametrize(
    ("column", "pointers"),
    [
        (np.array([0.5, 1, np.inf, -np.inf]), ["/2", "/3"]),
        (np.array([np.nan, 1.5, 65504, np.inf], "f2"), ["/3"]),
        (np.array([1e300, 2.0**63]), ["/0"]),
        (np.array([[0, 1], [2, 0]]), ["/1/0"]),
        (np.array([1, 2**63], "u8"), ["/1"]),
        (np.array(["a", TOO_LONG]), ["/1"]),
        (np.array([], "f8"), [""]),
        (np.array([], "U1"), [""]),
        (np.array([1j]), [""]),
        (np.array([b"a"]), [""]),
        (np.array([0], "M8[s]"), [""]),
        (np.array([0xD800], "u4").view("U1"), [""]),
        (np.array([0xDFFF, 97], "u4").view("U2"), [""]),
        (np.array([0x110000], "u4").view("U1"), [""]),
        (np.array([0xFFFFFFFF], ">u4").view(">U1"), [""]),
    ],
)
def test_a_column_that_holds_no_labels_is_refused(column, pointers):
    assert refusal(LABELS_OR_NULL, column) == pointers


def test_a_held_out_column_needs_every_label():
    assert refusal(LABELS, np.array([1, np.nan])) == ["/1"]
    assert refusal(LABELS, np.array(["", "a"])) == ["/0"]


@pytest.mark.parametrize("column", [np.array(["b", "a"]), np.array(["b", "ä😀"], ">U2"), np.array([2, 1], "u1")])
def test_a_column_becomes_ids(column):
    assert fields.sample_ids().read(column) == column.tolist()


@pytest.mark.parametrize(
    ("column", "pointers"),
    [
        (np.array(["a", "b", "a"]), ["/2"]),
        (np.array(["a", ""]), ["/1"]),
        (np.array([1.0, 2.0]), [""]),
        (np.array([b"a"]), [""]),
        (np.array([], "U1"), [""]),
        (np.array([0xD800], "u4").view("U1"), [""]),
        (np.array([0x110000], "u4").view("U1"), [""]),
    ],
)
def test_a_column_that_holds_no_ids_is_refused(column, pointers):
    assert refusal(fields.sample_ids(), column) == pointers


# Label records.


def test_answers_become_records():
    value = [
        {"index": 3, "label": "a", "annotator": "me", "query_id": "q"},
        {"id": "s", "label": "b", "skip": False},
        {"index": 0, "skip": True},
    ]
    assert ANSWERS.read(value) == [
        SubmittedLabel(3, None, "a", "me", "q"),
        SubmittedLabel(None, "s", "b"),
        SubmittedLabel(0, None, None),
    ]


# Long lists.

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        pytest.param(fields.matrix(), lambda: [["a"]] * MILLION, id="a million rows"),
        pytest.param(fields.matrix(), lambda: [["a"] * MILLION], id="a row of a million"),
        pytest.param(fields.matrix(), lambda: [[1]] + [[1, 2]] * MILLION, id="a million ragged rows"),
        pytest.param(LABELS_OR_NULL, lambda: [{}] * MILLION, id="a million labels"),
        pytest.param(LABELS_OR_NULL, lambda: ["a"] + [1] * MILLION, id="a million labels of another type"),
        pytest.param(LABELS, lambda: [None] * MILLION, id="a million nulls"),
        pytest.param(LABELS_OR_NULL, lambda: np.full(MILLION, np.inf), id="a million infinities as .npy"),
        pytest.param(fields.sample_ids(), lambda: [""] * MILLION, id="a million empty ids"),
        pytest.param(fields.sample_ids(), lambda: ["a"] * MILLION, id="a million equal ids"),
        pytest.param(fields.indices(), lambda: [-1] * MILLION, id="a million indices"),
        pytest.param(CLASSES, lambda: ["a"] * label_fields.MAX_CLASSES, id="many equal classes"),
        pytest.param(ANSWERS, lambda: [{}] * label_fields.MAX_RECORDS, id="many empty records"),
        pytest.param(ANSWERS, lambda: [{"id": "a", "b": 1}] * label_fields.MAX_RECORDS, id="many unknown fields"),
        pytest.param(ANSWERS, lambda: [dict.fromkeys(map(str, range(MILLION)))], id="a record of a million fields"),
        pytest.param(
            fields.estimator(), lambda: {"name": ""} | dict.fromkeys(map(str, range(MILLION))), id="a million fields"
        ),
    ],
)
def test_of_very_many_errors_a_few_are_collected(rule, make):
    assert len(refusal(rule, make())) == MAX_ERRORS + 1


def test_too_many_records_and_classes_are_counted_first():
    assert refusal(ANSWERS, [None] * (label_fields.MAX_RECORDS + 1)) == [""]
    assert refusal(CLASSES, list(range(label_fields.MAX_CLASSES + 1))) == [""]


class CountedList(list):
    """A list that counts the passes over it."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()


@pytest.mark.parametrize(
    ("rule", "items"),
    [
        (fields.matrix(), [[1.0, 2.0]] * 100),
        (fields.indices(), list(range(100))),
        (LABELS_OR_NULL, ["a", None] * 50),
        (fields.sample_ids(), [str(i) for i in range(100)]),
        (ANSWERS, [{"index": i, "label": "a"} for i in range(100)]),
    ],
)
def test_the_passes_over_a_list_do_not_grow_with_its_length(rule, items):
    counted = CountedList(items)
    rule.read(counted)
    assert counted.walks <= 5


def test_a_label_is_checked_once_however_often_it_comes(monkeypatch):
    checked = []
    check = label_fields.wrong_label
    monkeypatch.setattr(label_fields, "wrong_label", lambda value: checked.append(value) or check(value))
    LABELS_OR_NULL.read(["a", "b", None] * 1_000)
    assert len(checked) < 10


# Any JSON value. orjson knows no integers beyond 64 bits, no NaN and no halves of surrogate pairs.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.sampled_from(["index", "id", "label", "skip", "name", "params", "_schema", "wait", "svc", TOO_LONG]),
)
records = st.dictionaries(
    st.sampled_from(["index", "id", "label", "skip", "annotator", "query_id", "name", "params", "_schema", "a/b"]),
    scalars,
)
json_values = st.one_of(
    scalars,
    records,
    st.lists(scalars, max_size=5),
    st.lists(records, max_size=3),
    st.lists(st.lists(st.one_of(st.integers(0, 3), scalars), max_size=3), max_size=3),
    st.recursive(scalars, lambda below: st.one_of(st.lists(below), st.dictionaries(texts, below)), max_leaves=8),
)

ALL_RULES = {
    "integer": INTEGER,
    "integer_text": fields.integer_text(1, 10),
    "boolean": fields.boolean(),
    "text": TEXT,
    "pattern": fields.pattern(PROJECT_ID),
    "one_of": fields.one_of("wait", "never"),
    "json_object": fields.json_object(),
    "estimator": fields.estimator(),
    "indices": fields.indices(),
    "matrix": fields.matrix(),
    "label_list": LABELS_OR_NULL,
    "held_out": LABELS,
    "class_list": CLASSES,
    "sample_ids": fields.sample_ids(),
    "answers": ANSWERS,
}


@settings(max_examples=400)
@given(json_values)
def test_any_json_is_accepted_or_refused(value):
    value = orjson.loads(orjson.dumps(value))
    for name, rule in ALL_RULES.items():
        try:
            rule.read(value)
        except ValidationError as error:
            wrong = flatten(error.messages)
            assert wrong, name
            assert all(found.pointer.startswith("/") or not found.pointer for found in wrong), name
            assert all(0 < len(found.detail) < 500 for found in wrong), name
