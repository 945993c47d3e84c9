"""Features of texts: words and character n-grams, hashed to columns.

Hashing needs no vocabulary, so the rows of a piece depend on no other piece, and words that no earlier piece had count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from service.domain.parameters import Parameter, Parameters, check_parameters, pointer_token
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.embeddings import resolve_embeddings
from service.learning.term_weights import DocumentCounts, TermWeights

MAX_TEXT_LENGTH = 2**20
"""Characters of a text."""

BATCH_CHARACTERS = 2**20
"""Characters turned into features at a time, if they are not those of one text."""

SHORTEST_CHARACTER_NGRAM = 3

TEXT_PARAMETERS = (
    Parameter(
        "n_features",
        "integer",
        2**18,
        "Number of columns. Terms that share a column count as one; words and characters get half of the columns each.",
        minimum=2**8,
        maximum=2**22,
    ),
    Parameter("words", "integer", 2, "Longest run of words that counts as a term; 0 = no words.", 0, 5),
    Parameter(
        "characters",
        "integer",
        5,
        "Longest run of characters within a word that counts as a term, from 3; 0 = no characters.",
        0,
        8,
    ),
    Parameter("lowercase", "boolean", True, "Whether to convert texts to lower case."),
    Parameter(
        "stop_words",
        "choice",
        "none",
        "Words that do not count: none, or scikit-learn's list of English ones.",
        choices=("none", "english"),
    ),
    Parameter(
        "sublinear_tf", "boolean", True, "Whether a term that occurs n times counts 1 + ln(n) instead of n times."
    ),
    Parameter(
        "idf",
        "number",
        0.5,
        "Power of the inverse document frequency by which terms are weighted: 0 = not at all, 1 = as in scikit-learn.",
        0,
        1,
    ),
)
"""The parameters of `text` in POST /fit."""


def resolve_text(given: Mapping[str, object], embeddings: Path | None) -> Parameters:
    """Return all parameters of texts, with defaults filled in. Raises InvalidRequest with a pointer `/<parameter>`.

    `embeddings` is the directory of models that embed texts.
    """
    if "embeddings" in given:
        if others := [name for name in given if name != "embeddings"][: MAX_ERRORS + 1]:
            problem = "must be omitted with 'embeddings'"
            raise InvalidRequest(FieldError(f"/{pointer_token(name)}", problem) for name in others)
        return resolve_embeddings(given["embeddings"], embeddings)
    params = check_parameters("text", TEXT_PARAMETERS, given)
    if params["words"] == 0 and params["characters"] == 0:
        raise InvalidRequest.at("/words", "must not be 0 if 'characters' is: no text would have features")
    return params


def vectorizers(params: Parameters) -> list[HashingVectorizer]:
    """Return the vectorizers of words and of characters, as far as they count."""
    words, characters, n_columns = (int(str(params[name])) for name in ("words", "characters", "n_features"))
    share = n_columns if not (words and characters) else n_columns // 2
    # With signs, terms of one column would cancel each other, and their texts could not be counted.
    common = {"lowercase": params["lowercase"], "norm": None, "alternate_sign": False, "dtype": np.float32}
    stop_words = None if params["stop_words"] == "none" else params["stop_words"]
    found = []
    if words:
        found.append(HashingVectorizer(ngram_range=(1, words), stop_words=stop_words, n_features=share, **common))
    if characters:
        ngrams = (min(SHORTEST_CHARACTER_NGRAM, characters), characters)
        rest = n_columns - share if words else n_columns
        found.append(HashingVectorizer(analyzer="char_wb", ngram_range=ngrams, n_features=rest, **common))
    return found


def weights_of(counts: DocumentCounts, params: Parameters, n_columns: int) -> TermWeights:
    """Return the weights of the terms of texts."""
    return TermWeights.of(counts, n_columns, power=float(str(params["idf"])))


def count_terms(texts: Sequence[str], params: Parameters) -> Iterator[Any]:
    """Yield the term frequencies of texts as a csr_array (k, n_features) of float32 for each batch of k texts.

    A text without terms has an empty row.
    """
    hashers = vectorizers(params)
    for batch in batches(texts):
        counted = sparse.hstack([hasher.transform(batch) for hasher in hashers], format="csr")
        if params["sublinear_tf"]:
            np.log(counted.data, out=counted.data)
            counted.data += 1
        yield sparse.csr_array(counted)


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split texts into batches of about BATCH_CHARACTERS."""
    begin = n_characters = 0
    for at, text in enumerate(texts, 1):
        n_characters += len(text)
        if n_characters >= BATCH_CHARACTERS or at == len(texts):
            yield texts[begin:at]
            begin, n_characters = at, 0
