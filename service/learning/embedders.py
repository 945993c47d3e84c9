"""Models that embed texts, run by the libraries of the extra `embeddings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

MAX_TOKENS = 512
"""Where texts are cut for a model that is run, unless its tokenizer cuts them."""


def load(tokenizer_file: Path, model_file: Path) -> TableEmbedder | OnnxEmbedder:
    """Load a model. Raises ValueError, or what the libraries raise for damaged files."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    if model_file.suffix == ".npy":
        return TableEmbedder(tokenizer, read_table(model_file))
    if tokenizer.truncation is None:
        tokenizer.enable_truncation(MAX_TOKENS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # texts are embedded in threads
    session = onnxruntime.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])
    vector = OnnxEmbedder(tokenizer, session, 0).embed("a")
    if vector is None or vector.ndim != 1:
        raise ValueError(f"{model_file.name} must return a vector for each text or token")
    return OnnxEmbedder(tokenizer, session, len(vector))


def read_table(path: Path) -> NDArray[Any]:
    """Map a table of vectors. Raises ValueError."""
    table: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if table.ndim != 2 or table.dtype.kind != "f":
        raise ValueError(f"{path.name} has shape {table.shape} and dtype {table.dtype}; it must be a matrix of floats")
    return table


@dataclass(frozen=True, slots=True, eq=False)
class TableEmbedder:
    """Means of the rows of a table (tokens, d)."""

    tokenizer: Any
    table: NDArray[Any]

    @property
    def width(self) -> int:
        """The number of columns of the vectors."""
        return int(self.table.shape[1])

    def embed(self, text: str) -> NDArray[np.float32] | None:
        """Return the mean vector of a text's tokens."""
        tokens = np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        tokens = tokens[tokens < len(self.table)]
        return self.table[tokens].mean(axis=0, dtype=np.float32) if len(tokens) else None


@dataclass(frozen=True, slots=True, eq=False)
class OnnxEmbedder:
    """Means of the output of a model.

    Texts are run one at a time: padding rounds differently in other company, and the rows of a pool must not depend on
    how it was cut.
    """

    tokenizer: Any
    session: Any
    width: int

    def embed(self, text: str) -> NDArray[np.float32] | None:
        """Return the model's vector of a text: its first output, or the mean of that over the tokens."""
        encoded = self.tokenizer.encode(text)
        if not encoded.ids:
            return None
        given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        wanted = {entry.name for entry in self.session.get_inputs()}
        inputs = {name: np.array([ids], np.int64) for name, ids in given.items() if name in wanted}
        output = np.asarray(self.session.run(None, inputs)[0], np.float32)[0]
        vector: NDArray[np.float32] = output.mean(axis=0) if output.ndim == 2 else output
        return vector
