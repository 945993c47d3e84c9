"""Label efficiency of the strategies for several labels a sample: `python -m tests.benchmarks.labels`.

The sets are yeast, from the package `river` (`pip install --no-deps river`), and the descriptions and tags of Debian's
packages, from `apt-cache dumpavail`; one that is not there is left out. For each strategy it prints the mean score of
the models on held-out rows, less that with random labels, in points.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from service.compute.threads import use_one_thread
from service.learning.estimators import fit, resolve_estimator
from service.learning.multilabel_scores import DEFAULT_THRESHOLD, evaluate_labels
from service.learning.pool import Pool
from service.strategies import Question, resolve_strategy, select

Rows = tuple[NDArray[np.float32], NDArray[np.bool_]]
Case = tuple[str, str, int]

SETS = ("yeast", "packages")
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "auto": ("auto", {}),
    "power, beta 3": ("power", {"beta": 3.0}),
    **{name: (name, {}) for name in ("mean_uncertainty", "binary_minimum", "mmc", "adaptive", "max_herding")},
}
SCORES = ("f1_micro", "f1_macro", "lrap")

N_START, N_POOL, N_TEST, BATCH, N_BATCHES = 20, 1_500, 800, 10, 15
N_PACKAGES, N_TAGS, N_COMPONENTS = 5_000, 24, 100
UNUSED_TAGS = ("uitoolkit", "implemented-in", "role::")


@cache
def read_rows(name: str) -> Rows | None:
    """Return the rows and classes of a set, None if it is not there."""
    return read_yeast() if name == "yeast" else read_packages()


def read_yeast() -> Rows | None:
    """Return yeast: 103 features and 14 classes."""
    spec = find_spec("river")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "datasets" / "yeast.csv.gz"
    rows = np.genfromtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",", skip_header=1)
    return rows[:, :103].astype(np.float32), rows[:, 103:].astype(bool)


def read_packages() -> Rows | None:
    """Return descriptions of Debian's packages as components of TF-IDF, with their most frequent tags."""
    apt_cache = shutil.which("apt-cache")
    if apt_cache is None:
        return None
    text = subprocess.run([apt_cache, "dumpavail"], capture_output=True, text=True, check=True).stdout
    tags: dict[str, set[str]] = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Tag|Description(?:-en)?): (.*(?:\n .*)*)", block, re.MULTILINE))
        description = fields.get("Description-en", fields.get("Description"))
        if description and "Tag" in fields:
            tags[f"{fields['Package']} {description}"] = set(re.split(r",\s*", fields["Tag"]))
    if len(tags) < N_PACKAGES:
        return None
    counts = Counter(tag for each in tags.values() for tag in each if not tag.startswith(UNUSED_TAGS))
    classes = [tag for tag, _ in counts.most_common(N_TAGS)]
    drawn = np.random.default_rng(0).choice(len(tags), N_PACKAGES, replace=False)
    all_texts = [*tags]
    texts = [all_texts[row] for row in drawn.tolist()]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=5, max_features=5_000, stop_words="english")
    X = TruncatedSVD(N_COMPONENTS, random_state=0).fit_transform(vectorizer.fit_transform(texts))
    return X.astype(np.float32), np.array([[tag in tags[text] for tag in classes] for text in texts])


def scores_of(X: Any, Y: Any, strategy: str, seed: int) -> list[float]:
    """Return the mean scores on held-out rows over a run."""
    use_one_thread()
    spec = resolve_estimator("auto", {})
    order = np.random.default_rng(seed).permutation(len(X))
    rows, test = order[:N_POOL], order[N_POOL : N_POOL + N_TEST]
    pool, held_out, P, Q = Pool.of(X[rows]), Pool.of(X[test]), X[rows], Y[rows]
    known = np.random.default_rng([seed, 1]).choice(N_POOL, N_START, replace=False).tolist()
    scores = []
    for turn in range(N_BATCHES + 1):
        labeled = np.sort(known)
        model = fit(spec, P[labeled], Q[labeled], seed, N_POOL, target="labels")
        found = evaluate_labels(model, np.full(Y.shape[1], DEFAULT_THRESHOLD), held_out, Y[test])
        scores.append([getattr(found, name) for name in SCORES])
        is_open = np.ones(N_POOL, bool)
        is_open[labeled] = False
        sizes = Q[labeled].sum(axis=1)
        question = Question(pool, is_open, labeled, model, 2, label_sizes=sizes, target="labels")
        name, params = STRATEGIES.get(strategy, (strategy, {}))
        chosen = select(*resolve_strategy(name, params), question, BATCH, np.random.default_rng([seed, turn]))
        known += chosen.indices.tolist()
    return [float(value) for value in np.mean(scores, axis=0)]


def run(case: Case) -> tuple[Case, list[float]]:
    """Return a case with its scores."""
    name, strategy, seed = case
    rows = read_rows(name)
    return case, [] if rows is None else scores_of(*rows, strategy, seed)


def table(
    found: dict[Case, list[float]], strategies: Sequence[str], sets: Sequence[str], seeds: range
) -> Iterator[str]:
    """Yield the rows of a table in Markdown: the gain over random labels in points, with 95 % intervals."""
    yield "| strategy | " + " | ".join(f"{name}: {score}" for name, score in product(sets, SCORES)) + " |"
    yield "| --- | " + "--- | " * (len(sets) * len(SCORES))
    baseline = np.array([[found[name, "random", seed] for seed in seeds] for name in sets])
    for strategy in strategies:
        gains = 100 * (np.array([[found[name, strategy, seed] for seed in seeds] for name in sets]) - baseline)
        spread = gains.std(axis=1, ddof=1) if len(seeds) > 1 else np.full(gains[:, 0].shape, np.nan)
        half = stdtrit(max(1, len(seeds) - 1), 0.975) * spread / np.sqrt(len(seeds))
        cells = [f"{gain:+.1f} ± {each:.1f}" for gain, each in zip(gains.mean(axis=1).flat, half.flat, strict=True)]
        yield f"| {strategy} | " + " | ".join(cells) + " |"
    yield "| random | " + " | ".join(f"{100 * value:.1f}" for value in baseline.mean(axis=1).flat) + " |"


@click.command()
@click.option("--seeds", default=6, show_default=True, help="Number of seeds.")
@click.option("--strategy", "strategies", multiple=True, type=click.Choice([*STRATEGIES]), help="One; all without.")
@click.option("--processes", default=2, show_default=True, help="Number of processes.")
@click.option("--journal", type=click.Path(path_type=Path), default=Path("labels.jsonl"), show_default=True)
def main(seeds: int, strategies: Sequence[str], processes: int, journal: Path) -> None:
    """Run what the journal lacks, and print the table."""
    strategies, sets = strategies or [*STRATEGIES], [name for name in SETS if read_rows(name) is not None]
    found: dict[Case, list[float]] = {}
    if journal.exists():
        found = {tuple(case): scores for case, scores in map(json.loads, journal.read_text().splitlines())}
    cases = [case for case in product(sets, ("random", *strategies), range(seeds)) if case not in found]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool, journal.open("a") as file:
        for case, scores in pool.map(run, cases):
            found[case] = scores
            file.write(json.dumps([case, scores]) + "\n")
            file.flush()
    for line in table(found, strategies, sets, range(seeds)):
        click.echo(line)


if __name__ == "__main__":
    main()
