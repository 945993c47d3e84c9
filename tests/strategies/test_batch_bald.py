"""The joint information of a batch, against brute force over all joint labels and examples worked by hand."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from service.learning.committees import BaggedCommittee
from service.learning.estimators import fit, resolve_estimator
from service.learning.external_predictions import PassthroughCommittee
from service.learning.pool import Pool
from service.strategies import batch_bald
from service.strategies.batch_bald import BatchGains, LabelConfigurations
from service.strategies.committee import bald
from tests.support.calls import end_labels, line_pool, post
from tests.support.questions import TableModel, make_question, run_strategy, selected_indices

SURE, OTHER, EVEN = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]


def question_of(members, labeled=(), **known):
    """Row i has the single feature i, and member j predicts members[j][i] for it."""
    members = np.array(members, np.float64)
    X = np.arange(members.shape[1], dtype=np.float64)[:, np.newaxis]
    bag = BaggedCommittee.of([TableModel(P) for P in members])
    return make_question(X, labeled, TableModel(members.mean(axis=0)), committee=lambda n_members: bag, **known)


def entropy(p):
    return -sum(q * math.log(q) for q in p if q > 0)


def information(members, batch):
    """The definition: H(labels) - mean H(labels | member), over every joint label of the batch."""
    m, _, c = members.shape
    joint_labels = itertools.product(range(c), repeat=len(batch))
    shares = [
        sum(math.prod(P[i, k] for i, k in zip(batch, labels, strict=True)) for P in members) / m
        for labels in joint_labels
    ]
    return entropy(shares) - sum(entropy(P[i]) for P in members for i in batch) / m


def greedy(members, batch_size):
    """The definition: one row after another, the one that maximises the information of the batch."""
    batch = []
    while len(batch) < batch_size:
        rest = [i for i in range(members.shape[1]) if i not in batch]
        batch.append(max(rest, key=lambda i: information(members, [*batch, i])))
    return batch


def drawn_members(m, n, c, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(c), (m, n))


def answers_to(members, batch, limit, seed=0):
    answers, rng = LabelConfigurations.of_none(len(members)), np.random.default_rng(seed)
    for row in batch:
        answers = answers.with_row(members[:, row], limit, rng)
    return answers


def test_worked_by_hand():
    # Rows 0 and 1 both separate the first two members from the others, and row 2 odd from even ones: ln 2 each. Row 1
    # adds nothing to row 0, and all members agree on row 3.
    members = [
        [SURE, SURE, SURE, SURE],
        [SURE, SURE, OTHER, SURE],
        [OTHER, OTHER, SURE, SURE],
        [OTHER, OTHER, OTHER, SURE],
    ]
    batches = [run_strategy("batch_bald", question_of(members), 4, seed) for seed in range(20)]
    assert all(sorted(batch.indices[:2] // 2) == [0, 1] and batch.indices[3] == 3 for batch in batches)
    assert (
        batches[0].fallback_reason
        == "batch_bald chose 2 of the batch by bald score alone: no other row adds information"
    )
    assert information(np.array(members), [0, 2]) == pytest.approx(math.log(4))
    assert {batch.indices[0] for batch in batches} == {0, 1, 2}


@pytest.mark.parametrize(("m", "c", "batch_size"), [(2, 2, 5), (5, 3, 4), (7, 2, 6), (3, 5, 3)])
def test_batch_bald_matches_its_definition_while_exact(m, c, batch_size):
    members = drawn_members(m, 12, c)
    assert selected_indices("batch_bald", question_of(members), batch_size) == greedy(members, batch_size)


def test_gains_equal_the_information_that_a_row_adds():
    members = drawn_members(4, 9, 3)
    gains = answers_to(members, [2, 5, 7], 1000).gains(members)
    before = information(members, [2, 5, 7])
    assert gains == pytest.approx([information(members, [2, 5, 7, row]) - before for row in range(9)])


@pytest.mark.parametrize("seed", range(3))
def test_sampled_configurations_estimate_the_exact_gains(seed):
    members = drawn_members(5, 40, 3)
    exact = answers_to(members, range(9), 3**9).gains(members)
    some = answers_to(members, range(9), 1000, seed)
    assert len(some.likelihoods) <= 1000
    assert some.likelihoods.sum() == pytest.approx(1)
    assert some.gains(members) == pytest.approx(exact, abs=0.01)


def test_sixteen_times_as_many_samples_quarter_the_error():
    members = drawn_members(5, 40, 3)
    exact = answers_to(members, range(9), 3**9).gains(members)
    few, many = (
        np.mean([np.abs(answers_to(members, range(9), limit, seed).gains(members) - exact) for seed in range(20)])
        for limit in (50, 800)
    )
    assert 2.5 < few / many < 7


def test_sampled_configurations_are_unbiased():
    members = drawn_members(5, 20, 3)
    exact = answers_to(members, range(6), 3**6).gains(members)
    mean = np.mean([answers_to(members, range(6), 20, seed).gains(members) for seed in range(300)], axis=0)
    assert mean == pytest.approx(exact, abs=0.015)


def test_a_long_batch_of_few_configurations_stays_exact():
    # Members are certain of every row: the only possible joint labels are their own.
    members = np.eye(4)[np.random.default_rng(0).integers(0, 4, (6, 30))]
    answers = answers_to(members, range(20), 10)
    assert sorted(answers.likelihoods) == pytest.approx([1 / 6] * 6)
    assert sorted(answers.posteriors.argmax(axis=1)) == list(range(6))


def test_batch_bald_asks_once_about_a_repeated_disagreement_and_bald_often():
    # Twenty rows split the members in one way; one row splits them in another way, with slightly less information.
    one, another = [[0.98, 0.02], [0.98, 0.02], [0.02, 0.98], [0.02, 0.98]], [[0.95, 0.05], [0.05, 0.95]] * 2
    question = question_of(np.stack([np.array(one)] * 20 + [np.array(another)], axis=1))
    assert selected_indices("batch_bald", question, 2)[1] == 20
    assert 20 not in selected_indices("bald", question, 20)


def test_the_first_row_is_the_same_as_with_bald():
    members = drawn_members(7, 50, 4)
    assert selected_indices("batch_bald", question_of(members), 1) == selected_indices("bald", question_of(members), 1)


@pytest.mark.parametrize("p", [[0.5, 0.5], [1.0, 0.0], [0.3, 0.7]])
def test_rows_are_random_if_members_agree(p):
    question = question_of(np.broadcast_to(np.array(p), (7, 8, 2)), labeled=[7])
    answers = [selected_indices("batch_bald", question, 7, seed) for seed in range(400)]
    assert all(sorted(answer) == list(range(7)) for answer in answers)
    firsts = np.bincount([answer[0] for answer in answers], minlength=7)
    assert np.abs(firsts - 400 / 7).max() < 30  # one deviation is 7


def test_rows_of_equal_information_come_in_random_order():
    question = question_of(np.repeat(drawn_members(5, 1, 3), 8, axis=1))
    firsts = [selected_indices("batch_bald", question, 2, seed) for seed in range(400)]
    for place in (0, 1):
        assert (
            np.abs(np.bincount([batch[place] for batch in firsts], minlength=8) - 50).max() < 30
        )  # one deviation is 7


def test_rows_without_finite_probabilities_come_last_with_a_note():
    members = drawn_members(3, 6, 2)
    members[1, 2], members[2, 4] = [math.nan, 0.5], [math.inf, 0.0]
    answer = run_strategy("batch_bald", question_of(members), 6)
    assert set(answer.indices[4:].tolist()) == {2, 4}
    assert "no finite probabilities for 2 of the 6 candidates" in answer.fallback_reason


def test_batch_bald_considers_the_rows_of_highest_bald_score_with_a_note():
    members = drawn_members(3, 300, 2)
    question = question_of(members)
    answer = run_strategy("batch_bald", question, 10, sample=100)
    assert answer.fallback_reason == "batch_bald considered the 100 of the 300 candidates with the highest bald scores"
    assert set(answer.indices) <= set(selected_indices("bald", question, 100))
    assert run_strategy("batch_bald", question, 10, sample=300).fallback_reason is None


def test_many_members_reduce_the_candidates_but_not_the_batch(monkeypatch):
    monkeypatch.setattr(batch_bald, "HELD_CELLS", 3 * 2 * 20)
    answer = run_strategy("batch_bald", question_of(drawn_members(3, 300, 2)), 30)
    assert len(set(answer.indices.tolist())) == 30
    assert "considered the 20 of the 300 candidates" in answer.fallback_reason
    assert answer.fallback_reason.endswith("chose 10 of the batch by bald score alone: more would be slow")


def test_the_work_is_bounded_with_a_note(monkeypatch):
    question = question_of(drawn_members(4, 200, 3))
    whole = selected_indices("batch_bald", question, 30)
    monkeypatch.setattr(batch_bald, "WORK", 10**7)
    cut = run_strategy("batch_bald", question, 30)
    n_chosen = 30 - int(cut.fallback_reason.split()[2])
    assert 5 < n_chosen < 30
    assert cut.indices[:n_chosen].tolist() == whole[:n_chosen]
    assert cut.fallback_reason.endswith("of the batch by bald score alone: more would be slow")
    assert len(set(cut.indices.tolist())) == 30


def test_lazy_updates_save_work_without_changing_the_result():
    members = drawn_members(4, 2000, 2)
    growth = BatchGains(members, bald(members).round(12), 4096)
    lazily = growth.select_rows(6, np.random.default_rng(0))
    answers, gains = LabelConfigurations.of_none(4), bald(members)
    for row in lazily:
        assert row == gains.argmax()
        answers = answers.with_row(members[:, row], 4096, np.random.default_rng(0))
        gains = answers.gains(members)
        gains[lazily[: list(lazily).index(row) + 1]] = -1
    assert growth.work < 0.5 * 2000 * sum(2**n for n in range(1, 6)) * 2 * (4 + batch_bald.LOG_COST)


@pytest.mark.parametrize(("n_groups", "at_most"), [(1, np.inf), (8, 0.1), (64, 0.02), (1000, 0.0)])
def test_merged_joint_labels_give_upper_bounds(n_groups, at_most):
    members = drawn_members(4, 50, 3)
    answers = answers_to(members, range(6), 1000)
    merged = answers.merged(n_groups)
    excess = merged.gains(members) - answers.gains(members)
    assert -1e-12 <= excess.min() <= excess.max() <= at_most
    assert len(merged.likelihoods) <= n_groups
    assert merged.likelihoods.sum() == pytest.approx(1)
    assert merged.posteriors.sum(axis=1) == pytest.approx(np.ones(len(merged.posteriors)))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_number_of_threads_does_not_matter(n_threads, monkeypatch):
    question = question_of(drawn_members(5, 2000, 3))
    expected = selected_indices("batch_bald", question, 12, configurations=100)
    monkeypatch.setattr("service.compute.threads.n_cores", lambda: n_threads)
    assert selected_indices("batch_bald", question, 12, configurations=100) == expected


def test_the_sample_depends_on_the_seed():
    question = question_of(drawn_members(5, 60, 3))
    batches = {tuple(selected_indices("batch_bald", question, 20, seed, configurations=10)) for seed in range(5)}
    assert len(batches) > 1
    assert tuple(selected_indices("batch_bald", question, 20, 3, configurations=10)) in batches


@pytest.mark.parametrize("name", ["random_forest", "extra_trees"])
def test_batch_bald_uses_the_trees_of_a_forest(name):
    X = np.random.default_rng(0).normal(size=(80, 4))
    model = fit(resolve_estimator(name, {"n_estimators": 10, "max_depth": 2}), X[:40], np.arange(40) % 3, 0)
    members = np.stack([tree.predict_proba(X) for tree in model[-1].estimators_])
    assert selected_indices("batch_bald", make_question(X, [], model, 3), 4) == greedy(members, 4)


def test_members_may_be_sent_by_the_caller():
    members = drawn_members(4, 12, 3)
    given = {
        "committee": lambda n_members: PassthroughCommittee(4, np.arange(3)),
        "committee_pool": Pool.of(np.moveaxis(members, 1, 0)),
    }
    question = make_question(np.zeros((12, 1)), [], TableModel(members.mean(axis=0)), **given)
    assert selected_indices("batch_bald", question, 4) == greedy(members, 4)


def test_memory_is_linear_in_the_rows():
    n = 60_000
    X = np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32)
    bag = BaggedCommittee.of([GaussianNB().fit(X[n : n + 90], np.arange(90) % 10) for n in range(4)])
    question = make_question(Pool.of(X), [], bag.members[0], committee=lambda n_members: bag)
    tracemalloc.start()
    answer = run_strategy("batch_bald", question, 20, configurations=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(answer.indices.tolist())) == 20
    assert peak < 40 * n + 16e6  # the members' probabilities alone would be 320 a row


def test_other_strategies_fit_no_committee():
    def never(n_members):
        raise AssertionError

    X = np.random.default_rng(0).normal(size=(30, 2))
    question = make_question(X, [0], LogisticRegression().fit(X, np.arange(30) % 2), committee=never)
    assert len(selected_indices("badge", question, 3)) == 3


def test_one_committee_of_the_requested_size_is_fitted():
    members = drawn_members(3, 500, 2)
    question, asked = question_of(members), []
    bag = question.committee(3)
    question = make_question(question.pool, [], question.model, committee=lambda n: asked.append(n) or bag)
    run_strategy("batch_bald", question, 5, members=9)
    assert asked == [9]


def test_asked_over_http(client):
    post(client, "/fit", 201, project_id="p", X=line_pool(40), y=end_labels(40))
    post(client, "/label", project_id="p", labels=[{"index": n, "label": n // 20} for n in (3, 9, 30, 34)])
    asked = [post(client, "/query", project_id="p", strategy="batch_bald", batch_size=5) for _ in range(2)]
    assert asked[0] == asked[1]
    assert (asked[0]["strategy"], asked[0]["fallback_reason"]) == ("batch_bald", None)
    assert np.mean([abs(index - 19.5) for index in asked[0]["indices"]]) < 12  # where the members may differ
