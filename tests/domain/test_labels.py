"""Labels as codes."""

from __future__ import annotations

import pytest

from service.domain.labels import EncodedLabels


@pytest.mark.parametrize(
    ("labels", "values", "codes"),
    [
        (["b", None, "a", "b"], ("b", "a"), [0, -1, 1, 0]),
        ([None, None], (), [-1, -1]),
        ([False, True, None], (False, True), [0, 1, -1]),
        ([0, -5, 2**63 - 1, 0], (0, -5, 2**63 - 1), [0, 1, 2, 0]),
        ([], (), []),
    ],
)
def test_labels_are_encoded_in_the_order_of_their_first_appearance(labels, values, codes):
    encoded = EncodedLabels.encode(labels)
    assert encoded.values == values
    assert [type(value) for value in encoded.values] == [type(value) for value in values]
    assert encoded.codes.tolist() == codes
