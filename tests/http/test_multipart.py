"""Forms are split into the same parts for any chunk size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from service.http.body.multipart import MAX_HEAD_BYTES, MAX_PARTS, PartEnd, PartHead, split_form

PARTS = {"a": b"", "b": b"text", "c": b"\r\n--boundar\r\n--\r\n\r", "d": b"\r\n" * 50, "e": bytes(range(256))}


def part(name, data, more=""):
    return f'--boundary\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


FORM = b"".join(part(name, data) for name, data in PARTS.items()) + b"--boundary--\r\n"


def split(form, size=2**20, boundary="boundary"):
    """The parts of a form that comes in chunks of a size: their heads and bytes, in order."""
    found = []
    for event in split_form(boundary, (form[at : at + size] for at in range(0, len(form), size))):
        if isinstance(event, PartHead):
            found.append([event, b"", False])
        elif isinstance(event, PartEnd):
            found[-1][2] = True
        else:
            assert event
            found[-1][1] += event
    assert all(ended for _, _, ended in found)
    return [(head, data) for head, data, _ in found]


@pytest.mark.parametrize("size", range(1, 40))
def test_parts_are_the_same_for_any_chunk_size(size):
    assert {head.name: data for head, data in split(FORM, size)} == PARTS


@given(st.lists(st.text("\r\n-boundary", max_size=30), max_size=4), st.integers(1, 50))
def test_a_part_may_hold_any_bytes(texts, size):
    texts = [text for text in texts if "\r\n--boundary" not in f"\r\n{text}"]
    form = b"".join(part("x", text.encode()) for text in texts) + b"--boundary--"
    assert [data.decode() for _, data in split(form, size)] == texts


@pytest.mark.parametrize(
    ("more", "media_type"),
    [
        ("", ""),
        ('; filename="f"', ""),
        ("\r\nContent-Type: Application/X-NPY; a=b", "application/x-npy"),
        ("\r\nCONTENT-TYPE:text/plain", "text/plain"),
        ("\r\nContent-Length: 3\r\nX-Other: 1", ""),
    ],
)
def test_the_head_of_a_part_is_read(more, media_type):
    ((head, data),) = split(part("X", b"123", more) + b"--boundary--")
    assert (head.name, head.media_type, data) == ("X", media_type, b"123")


@pytest.mark.parametrize(
    "form",
    [
        b"preamble\r\n" + FORM + b"epilogue",
        b"\r\n" + FORM,
        FORM[:-2],
        FORM.replace(b"--boundary\r\n", b"--boundary \t\r\n"),
    ],
)
def test_preamble_and_epilogue_are_ignored(form):
    assert [data for _, data in split(form)] == list(PARTS.values())


def test_a_form_may_have_no_parts():
    assert split(b"--boundary--") == []


@pytest.mark.parametrize("size", [1, 1000])
def test_a_truncated_form_is_refused(size):
    for length in range(len(FORM) - 2):
        with pytest.raises(BadRequest):
            split(FORM[:length], size)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (b"no form at all", BadRequest),
        (b"--boundaryx\r\n\r\n\r\n--boundary--", BadRequest),
        (part("a", b"\r\n--boundaryx") + b"--boundary--", BadRequest),
        (b"--boundary\r\n\r\ndata\r\n--boundary--", BadRequest),
        (b"--boundary\r\nContent-Type: a\r\n\r\ndata\r\n--boundary--", BadRequest),
        (b'--boundary\r\nContent-Disposition: attachment; name="a"\r\n\r\n\r\n--boundary--', BadRequest),
        (b"--boundary\r\nContent-Disposition: form-data; name=\xff\r\n\r\n\r\n--boundary--", BadRequest),
        (FORM.replace(b"\r\n", b"\n"), BadRequest),
        (b" " * 20_000 + FORM, RequestEntityTooLarge),
        (part("a", b"", f"\r\nX: {'x' * MAX_HEAD_BYTES}") + FORM, RequestEntityTooLarge),
        (part("a", b"") * (MAX_PARTS + 1) + b"--boundary--", RequestEntityTooLarge),
    ],
)
@pytest.mark.parametrize("size", [100, 2**20])
def test_a_body_that_is_not_a_form_is_refused(form, error, size):
    with pytest.raises(error):
        split(form, size)


@pytest.mark.parametrize("boundary", ["", "a" * 101, "a ", "ä", "a\r\n", "\x00"])
def test_an_invalid_boundary_is_refused(boundary):
    with pytest.raises(BadRequest, match="boundary"):
        split(FORM, boundary=boundary)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_random_bytes_are_split_or_refused(data, size):
    form = FORM[:100] + data + FORM[100:]
    try:
        split(form, size)
    except HTTPException as error:
        assert error.code in (400, 413)
