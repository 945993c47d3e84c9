"""Embeddings of texts by a model on this machine: the extra `embeddings`.

A model is a directory with `tokenizer.json`, in the format of the tokenizers library, and either `model.onnx`, which is
run, or `embeddings.npy`, a table with a row of numbers for each token. A text is the mean of the vectors of its tokens.
Nothing is ever downloaded.
"""

from __future__ import annotations

import logging
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads
from service.domain.parameters import Parameters
from service.errors import InvalidRequest

TOKENIZER, MODELS = "tokenizer.json", ("model.onnx", "embeddings.npy")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

BLOCK_TEXTS = 256
"""Texts embedded at a time."""

PROGRESS_SECONDS = 5.0
"""How often the progress of a long request is logged."""

MAX_LISTED = 20

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """Turns a text into a vector."""

    @property
    def width(self) -> int:
        """The number of columns of the vectors."""

    def embed(self, text: str) -> NDArray[np.float32] | None:
        """Return the vector (d,) of a text, None if it has no tokens."""


def resolve_embeddings(given: object, directory: Path | None) -> Parameters:
    """Return the parameters of texts that a model embeds: its name, and a checksum of its files.

    Raises InvalidRequest at `/embeddings` if there is no such model.
    """
    if not isinstance(given, str) or not NAME.fullmatch(given):
        raise InvalidRequest.at("/embeddings", f"must be the name of a model; {list_models(directory)}")
    return {"embeddings": given, "checksum": checksum_of(model_path(given, directory))}


def model_path(name: str, directory: Path | None) -> Path:
    """Return the directory of a model. Raises InvalidRequest at `/embeddings`."""
    for library in ("onnxruntime", "tokenizers"):
        if find_spec(library) is None:
            problem = "embeddings require pip install 'active-query[embeddings]'"
            raise InvalidRequest.at("/embeddings", problem)
    if directory is None or not is_model(directory / name):
        raise InvalidRequest.at("/embeddings", f"{name!r} is not a model; {list_models(directory)}")
    return directory / name


def is_model(path: Path) -> bool:
    """Return whether a directory holds a model."""
    return (path / TOKENIZER).is_file() and any((path / file).is_file() for file in MODELS)


def list_models(directory: Path | None) -> str:
    """Return a sentence with the names of all models."""
    if directory is None:
        return "set AQ_EMBEDDINGS_DIR to a directory with a directory for each model"
    names = sorted(path.name for path in directory.iterdir() if is_model(path)) if directory.is_dir() else []
    return "AQ_EMBEDDINGS_DIR has " + (", ".join(map(repr, names[:MAX_LISTED])) or f"no directory with {TOKENIZER}")


def checksum_of(path: Path) -> str:
    """Return a checksum of the files of a model."""
    return checksum_of_files(tuple(stamp(path / file) for file in (TOKENIZER, *MODELS) if (path / file).is_file()))


def stamp(path: Path) -> tuple[Path, int, int]:
    """Return what changes with the contents of a file."""
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def checksum_of_files(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Return a checksum of some files, cached until one of them changes."""
    total = 0
    for path, _, _ in stamps:
        with path.open("rb") as file:
            while data := file.read(2**20):
                total = zlib.crc32(data, total)
    return f"{total:08x}"


@lru_cache(maxsize=2)
def load_model(path: Path, checksum: str) -> Embedder:
    """Load a model; `checksum` is that of its files, so that changed files are loaded again. Raises InvalidRequest."""
    from service.learning import embedders  # noqa: PLC0415 - the libraries are an extra

    try:
        return embedders.load(path / TOKENIZER, path / next(file for file in MODELS if (path / file).is_file()))
    except Exception as error:  # whatever the libraries raise for damaged files
        first_line = str(error).partition("\n")[0][:200]
        raise InvalidRequest.at("/embeddings", f"{path.name!r} cannot be loaded: {first_line}") from error


def embed_texts(texts: Sequence[str], text: Parameters, directory: Path | None) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of texts as matrices (k, d) of float32; a text without tokens is a row of zeros.

    Raises InvalidRequest at `/embeddings` if the model is not the one that `text` was resolved with, or at the position
    of a text whose numbers are not finite.
    """
    name = str(text["embeddings"])
    path = model_path(name, directory)
    if checksum_of(path) != text["checksum"]:
        raise InvalidRequest.at("/embeddings", f"{name!r} has changed since the pool was made; restore its files")
    model = load_model(path, str(text["checksum"]))
    began = logged = time.monotonic()
    for begin in range(0, len(texts), BLOCK_TEXTS):
        check_deadline()
        yield embed_block(model, texts[begin : begin + BLOCK_TEXTS], begin)
        if time.monotonic() - logged >= PROGRESS_SECONDS:
            logged = time.monotonic()
            n_done = min(begin + BLOCK_TEXTS, len(texts))
            log.info("embedded %d of %d texts by %s in %d s", n_done, len(texts), name, logged - began)


def embed_block(model: Embedder, texts: Sequence[str], first: int) -> NDArray[np.float32]:
    """Return the vectors (k, d) of some texts, the first of which has position `first` in the request."""
    rows = np.zeros((len(texts), model.width), np.float32)

    def embed(at: int) -> None:
        vector = model.embed(texts[at])
        if vector is not None:
            rows[at] = vector

    run_in_threads(embed, range(len(texts)))
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise InvalidRequest.at(f"/{first + int(wrong[0])}", "has an embedding that is not finite")
    return rows
