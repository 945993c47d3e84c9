"""The strategies that draw at random: proportions, no repetition, and the rows that come last."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.learning import scoring
from service.learning.scoring import SegmentScores
from service.strategies.sampling import draw_diverse, gumbel_keys, rescale
from tests.support.questions import make_question, question_from_probabilities, run_strategy, selected_indices

CERTAIN, BROKEN = [1.0, 0.0], [math.nan, 0.5]


def unsure(*margins):
    """Two probabilities per row with these margin scores."""
    return [[1 - margin / 2, margin / 2] for margin in margins]


def shares_of_firsts(name, question, n_rows, **params):
    firsts = [selected_indices(name, question, 1, seed, **params)[0] for seed in range(1000)]
    return np.bincount(firsts, minlength=n_rows) / 1000


# power


@pytest.mark.parametrize(
    ("scorer", "P", "beta", "weights"),
    [
        ("margin", unsure(0.5, 1.0, 0.25), 1, [2, 4, 1]),
        ("margin", unsure(0.5, 1.0, 0.25), 2, [4, 16, 1]),
        ("margin", unsure(0.5, 1.0, 0.25), 0, [1, 1, 1]),
        ("least_confidence", [[0.5, 0.5, 0], [0.4, 0.3, 0.3]], 1, [5, 6]),
        ("ratio", [[0.5, 0.5, 0], [0.5, 0.25, 0.25]], 3, [8, 1]),
        ("entropy", [[0.25] * 4, [0.5, 0.5, 0, 0]], 2, [4, 1]),
    ],
)
def test_power_draws_in_proportion_to_the_power_of_the_score(scorer, P, beta, weights):
    shares = shares_of_firsts("power", question_from_probabilities(P), len(P), scorer=scorer, beta=beta)
    assert shares == pytest.approx(np.array(weights) / sum(weights), abs=0.06)  # one deviation is 0.016


def test_power_draws_the_second_in_proportion_among_the_rest():
    # The first is drawn as 4 : 2 : 1; if that is the row of 4, the second as 2 : 1.
    batches = [
        selected_indices("power", question_from_probabilities(unsure(1.0, 0.5, 0.25)), 2, seed, beta=1)
        for seed in range(1500)
    ]
    seconds = [second for first, second in batches if first == 0]
    assert np.mean(np.array(seconds) == 1) == pytest.approx(2 / 3, abs=0.06)


def test_power_uses_the_cube_of_the_margin_by_default():
    P = np.random.default_rng(0).dirichlet([1, 1, 1], 60)
    assert selected_indices("power", question_from_probabilities(P), 9) == selected_indices(
        "power", question_from_probabilities(P), 9, scorer="margin", beta=3
    )


def test_a_large_power_gives_the_plain_ranking():
    P = unsure(0.1, 0.9, 0.3, 0.5, 0.7)
    assert selected_indices("power", question_from_probabilities(P), 5, beta=100) == [1, 4, 3, 2, 0]


@pytest.mark.parametrize("beta", [0, 3, 100])
def test_certain_rows_come_after_uncertain_ones_and_invalid_ones_last(beta):
    question = question_from_probabilities([CERTAIN, [1.0, 5e-324], BROKEN, CERTAIN, BROKEN, [0.5, 0.5], CERTAIN])
    answer = run_strategy("power", question, 7, scorer="ratio", beta=beta)
    assert [set(part) for part in np.split(answer.indices, [2, 5])] == [{1, 5}, {0, 3, 6}, {2, 4}]
    assert "no finite probabilities for 2 of the 7 candidates" in answer.fallback_reason


def test_rows_of_score_0_come_in_random_order():
    shares = shares_of_firsts("power", question_from_probabilities([CERTAIN] * 5), 5)
    assert np.abs(shares - 0.2).max() < 0.06


def test_power_has_scores_that_fall_and_a_larger_batch_begins_with_the_smaller():
    question = question_from_probabilities(np.random.default_rng(0).dirichlet([1, 1], 50))
    small, large = run_strategy("power", question, 10), run_strategy("power", question, 30)
    assert large.indices[:10].tolist() == small.indices.tolist()
    assert (np.diff(large.scores) < 0).all()


def test_power_repeats_a_question_less_often_than_the_ranking():
    # Twenty equal rows rank above a hundred that are nearly as uncertain.
    P = unsure(*[1.0] * 20, *np.linspace(0.8, 0.95, 100))
    assert set(selected_indices("margin", question_from_probabilities(P), 20)) == set(range(20))
    assert np.mean(np.array(selected_indices("power", question_from_probabilities(P), 20)) < 20) < 0.5


# falcun


def falcun_literally(P, gamma, batch_size, rng):
    """The definition, row by row, with the draws that `falcun` makes."""
    uncertainty = [1 - (sorted(p)[-1] - sorted(p)[-2]) for p in P]
    diversity, chosen = list(uncertainty), []
    while len(chosen) < batch_size:
        low, high = min(diversity), max(diversity)
        relevance = [u + (d - low) / (high - low) for u, d in zip(uncertainty, diversity, strict=True)]
        noise = rng.gumbel(size=len(P))
        rng.integers(2**64, dtype=np.uint64)  # the seed that breaks ties
        keys = [gamma * math.log(r) + g for r, g in zip(relevance, noise, strict=True)]
        chosen.append(max((i for i in range(len(P)) if i not in chosen), key=lambda i: keys[i]))
        diversity = [min(d, sum(abs(p - P[chosen[-1]]))) for d, p in zip(diversity, P, strict=True)]
    return chosen


@pytest.mark.parametrize("gamma", [0.5, 10])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_falcun_matches_its_definition(gamma, n_classes):
    P = np.random.default_rng(n_classes).dirichlet(np.ones(n_classes), 60)
    for seed in range(5):
        expected = falcun_literally(P, gamma, 12, np.random.default_rng(seed))
        assert selected_indices("falcun", question_from_probabilities(P), 12, seed, gamma=gamma) == expected


def test_falcun_first_draws_in_proportion_to_the_power_of_the_relevance():
    # The uncertainties .25, .5 and 1 are rescaled to 0, 1/3 and 1: the relevances are as 3 : 10 : 24.
    shares = shares_of_firsts("falcun", question_from_probabilities(unsure(0.25, 0.5, 1.0)), 3, gamma=1)
    assert shares == pytest.approx(np.array([3, 10, 24]) / 37, abs=0.06)


def test_falcun_turns_to_other_probabilities_after_each_draw():
    # Two clusters, equally uncertain between different classes: a plain ranking cannot distinguish them.
    P = [[0.5, 0.5, 0.0]] * 20 + [[0.0, 0.5, 0.5]] * 20
    batches = [selected_indices("falcun", question_from_probabilities(P), 2, seed) for seed in range(50)]
    assert all({i // 20 for i in batch} == {0, 1} for batch in batches)


def test_falcun_takes_certain_rows_late_and_invalid_ones_last():
    answer = run_strategy("falcun", question_from_probabilities([BROKEN, CERTAIN, CERTAIN, [0.5, 0.5], BROKEN]), 5)
    assert answer.indices[0] == 3
    assert set(answer.indices[3:]) == {0, 4}
    assert "no finite probabilities for 2 of the 5 candidates" in answer.fallback_reason


def test_falcun_considers_a_sample_with_a_note():
    question = question_from_probabilities(np.random.default_rng(0).dirichlet([1, 1], 500))
    answer = run_strategy("falcun", question, 20, sample=100)
    assert answer.fallback_reason == "falcun considered a sample of 100 of the 500 candidates"
    assert run_strategy("falcun", question, 200, sample=100).fallback_reason.endswith(
        "a sample of 200 of the 500 candidates"
    )
    assert run_strategy("falcun", question, 20, sample=500).fallback_reason is None


def test_the_sample_is_smaller_with_many_classes(monkeypatch):
    monkeypatch.setattr("service.strategies.sampling.SAMPLE_CELLS", 2000)
    P = np.random.default_rng(0).dirichlet(np.ones(20), 300)
    answer = run_strategy("falcun", question_from_probabilities(P), 10)
    assert answer.fallback_reason == "falcun considered a sample of 100 of the 300 candidates"


def test_falcun_draws_the_rest_at_once_beyond_its_work_limit(monkeypatch):
    question = question_from_probabilities(np.random.default_rng(0).dirichlet([1, 1], 100))
    whole = selected_indices("falcun", question, 30)
    monkeypatch.setattr("service.strategies.sampling.DRAW_CELLS", 2 * 100 * 12)
    cut = run_strategy("falcun", question, 30)
    assert cut.fallback_reason == "falcun drew the last 18 of the batch at once: one by one would be slow"
    assert cut.indices[:12].tolist() == whole[:12]
    assert len(set(cut.indices.tolist())) == 30


# Helpers


def test_values_are_rescaled_over_the_valid_ones():
    values, counts = np.array([2.0, 4.0, 3.0, 0.0]), np.array([True, True, True, False])
    assert rescale(values, counts).tolist() == [0, 1, 0.5, -1]
    assert rescale(np.ones(3), np.ones(3, bool)).tolist() == [0, 0, 0]
    assert rescale(values, np.zeros(4, bool)).tolist() == [0, 0, 0, 0]


def test_keys_of_weight_0_come_last():
    keys = gumbel_keys(np.array([0.0, 5e-324, 1.0, -1.0]), 100, np.random.default_rng(0))
    assert np.isfinite(keys).all()
    assert max(keys[[0, 3]]) < min(keys[[1, 2]])


def test_rows_are_drawn_even_if_all_are_invalid():
    drawn = draw_diverse(
        np.zeros((2, 6), np.float32), np.full(6, -1.0), np.ones(6, bool), 10, 6, 6, np.random.default_rng(0)
    )
    assert sorted(drawn) == list(range(6))


@pytest.mark.parametrize("name", ["power", "falcun"])
def test_a_model_gives_the_same_batch_in_chunks_as_in_one(name):
    X = np.random.default_rng(0).normal(size=(9000, 70))
    model = LogisticRegression().fit(X[:200], np.arange(200) % 3)
    whole = make_question(X, (), model, 3)
    table = question_from_probabilities(model.predict_proba(X))
    assert selected_indices(name, whole, 20) == selected_indices(name, table, 20)


def test_power_uses_cached_scores(monkeypatch):
    known = {}

    class Kept:
        def segment_scores(self, scoring, segment, n_rows, n_chunks):
            return known.setdefault((scoring, segment), SegmentScores.unknown(n_rows, n_chunks))

    P = np.random.default_rng(0).dirichlet([1, 1, 1], 60)
    question = replace(question_from_probabilities(P), score_cache=Kept())
    expected = selected_indices("power", question_from_probabilities(P), 9)
    run_strategy("margin", question, 5)
    monkeypatch.setattr(scoring, "score_rows", None)
    assert selected_indices("power", question, 9) == expected
