"""The contract of all estimators: parameters, probabilities, nasty pools, repetition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from service.compute import threads
from service.compute.threads import thread_pools, use_one_thread
from service.errors import FitFailed, InvalidRequest
from service.learning import estimators
from service.learning.classifiers import DecisionSVC
from service.learning.committees import BaggedCommittee
from service.learning.estimators import ESTIMATORS, TrainingShape, fit, resolve_estimator
from service.learning.pool import Pool
from service.learning.preprocessing import Standardizer
from service.learning.scoring import score_pool

NAMES = [
    "auto",
    "logistic_regression",
    "random_forest",
    "extra_trees",
    "hist_gradient_boosting",
    "gaussian_nb",
    "k_neighbors",
    "svc",
    "mlp",
]

# Small enough for hundreds of fits in a few seconds.
QUICK = {
    "auto": {"n_estimators": 10},
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "hist_gradient_boosting": {"max_iter": 5},
    "mlp": {"max_iter": 10, "hidden_layer_sizes": [8]},
}


@pytest.fixture(autouse=True)
def no_openmp_threads():
    """Predict on one thread too: on a busy machine OpenMP's threads spin in wait for each other."""
    use_one_thread()


every_estimator = pytest.mark.parametrize("name", NAMES)


def quick(name, **params):
    return resolve_estimator(name, QUICK.get(name, {}) | params)


def blobs(n_classes=3, per_class=12, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), per_class)
    X = rng.normal(size=(len(y), n_features)) + rng.normal(scale=2, size=(n_classes, n_features))[y]
    return X, y


def assert_probabilities(probabilities, n_rows, n_classes):
    assert probabilities.shape == (n_rows, n_classes)
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


# The registry


def test_the_registry_contains_exactly_these_estimators():
    assert [name for name, kind in ESTIMATORS.items() if "class" in kind.targets] == NAMES


@every_estimator
def test_every_estimator_and_parameter_is_documented(name):
    kind = ESTIMATORS[name]
    assert kind.name == name
    assert kind.summary.endswith(".")
    assert kind.source.startswith("sklearn.")
    assert all(parameter.summary.endswith(".") for parameter in kind.parameters)
    assert kind.parameters[-1].name == "scale"


@every_estimator
def test_defaults_are_complete_and_within_their_own_range(name):
    defaults = resolve_estimator(name, {}).params
    assert list(defaults) == [parameter.name for parameter in ESTIMATORS[name].parameters]
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert resolve_estimator(name, given) == resolve_estimator(name, {})


def test_an_unknown_estimator_is_refused_and_the_right_name_suggested():
    with pytest.raises(InvalidRequest, match="did you mean 'random_forest'") as caught:
        resolve_estimator("random_forrest", {})
    assert [error.pointer for error in caught.value.errors] == ["/name"]


def wrong_values():
    for name in NAMES:
        yield name, "no_such_parameter", 1
        for parameter in ESTIMATORS[name].parameters:
            wrong = {
                "boolean": ["true", 1],
                "integer": ["3", 1.5, True],
                "number": ["3", True, float("nan"), float("inf")],
                "choice": ["no such choice", 1],
                "integers": [[], 100, [1.5], [True], ["8"], [8] * 11],
            }[parameter.kind]
            if parameter.minimum is not None:
                whole = parameter.kind != "number"
                low = parameter.minimum if parameter.above_minimum else parameter.minimum - 1
                high = parameter.maximum + 1
                bounds = [int(low), int(high)] if whole else [low, high]
                wrong += [[bound] for bound in bounds] if parameter.kind == "integers" else bounds
            for value in wrong + ([] if parameter.nullable else [None]):
                yield name, parameter.name, value


@pytest.mark.parametrize(("name", "parameter", "value"), list(wrong_values()))
def test_a_wrong_parameter_is_refused_by_its_pointer(name, parameter, value):
    with pytest.raises(InvalidRequest) as caught:
        resolve_estimator(name, {parameter: value})
    assert [error.pointer for error in caught.value.errors] == [f"/params/{parameter}"]


def test_all_wrong_parameters_are_named_at_once():
    with pytest.raises(InvalidRequest) as caught:
        resolve_estimator("svc", {"C": 0, "kernel": "magic", "scale": True})
    assert [error.pointer for error in caught.value.errors] == ["/params/C", "/params/kernel"]


def edges(parameter):
    """Return the limits of a parameter's declared range."""
    low = parameter.minimum
    if parameter.above_minimum:
        low = np.nextafter(low, np.inf)
    return {
        "boolean": lambda: [False, True],
        "integer": lambda: [int(low), int(parameter.maximum)],
        "number": lambda: [float(low), float(parameter.maximum)],
        "choice": lambda: list(parameter.choices),
        "integers": lambda: [[int(low)], [int(low)] * 10, [int(parameter.maximum)]],
    }[parameter.kind]() + [None] * parameter.nullable


EDGES = [
    (name, parameter.name, value)
    for name in NAMES
    for parameter in ESTIMATORS[name].parameters
    for value in edges(parameter)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameter", "value"), EDGES)
def test_the_whole_declared_range_is_accepted_by_the_estimator(name, parameter, value):
    X, y = blobs(n_classes=2, per_class=6, n_features=2)
    model = fit(quick(name, **{parameter: value}), X, y, random_state=0)
    assert_probabilities(model.predict_proba(X), len(X), 2)


# Probabilities


@every_estimator
def test_columns_follow_the_codes_seen_in_training(name):
    X, y = blobs()
    codes = np.array([7, 0, 3])[y]
    spec = quick(name, **({"max_iter": 300} if name == "mlp" else {}))
    model = fit(spec, X, codes, random_state=0)
    assert model.classes_.tolist() == [0, 3, 7]
    probabilities = model.predict_proba(X)
    assert_probabilities(probabilities, len(X), 3)
    assert (model.classes_[probabilities.argmax(axis=1)] == codes).mean() > 0.7


@every_estimator
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_same_seed_gives_the_same_probabilities_in_any_thread(name, seed):
    X, y = blobs()

    def train(_):
        return fit(quick(name), X, y, random_state=seed).predict_proba(X)

    first = train(None)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(first, other) for other in pool.map(train, range(4)))


@pytest.mark.parametrize("name", ["random_forest", "extra_trees", "svc", "mlp"])
def test_the_seed_reaches_the_estimator(name):
    X, y = blobs()
    unseen = X + 1
    one, other = (fit(quick(name), X, y, random_state=seed).predict_proba(unseen) for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unscaled_logistic_regression_is_scikit_learns_bit_for_bit(n_classes, dtype):
    X, y = blobs(n_classes)
    X = X.astype(dtype)
    model = fit(resolve_estimator("logistic_regression", {"C": 0.3}), X, y, random_state=5)
    bare = LogisticRegression(C=0.3, max_iter=1000, random_state=5).fit(X, y)
    assert type(model) is LogisticRegression
    assert np.array_equal(model.predict_proba(X), bare.predict_proba(X))


@pytest.mark.parametrize(
    ("name", "bare"), [("random_forest", RandomForestClassifier), ("extra_trees", ExtraTreesClassifier)]
)
def test_a_forest_is_scikit_learns_bit_for_bit(name, bare):
    X, y = blobs()
    model = fit(resolve_estimator(name, {"n_estimators": 10, "max_features": "all"}), X, y, random_state=5)
    bare = bare(n_estimators=10, max_features=None, random_state=5).fit(X, y)
    assert np.array_equal(model.predict_proba(X), bare.predict_proba(X))


@every_estimator
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.int16, np.int64, ">f8"])
def test_other_dtypes_give_the_probabilities_of_float64(name, dtype, scale):
    X, y = blobs()
    X = (100 * X).astype(dtype)
    wide = X.astype(np.float64)
    spec = quick(name, scale=scale)
    same = fit(spec, wide, y, random_state=0).predict_proba(wide)
    assert np.array_equal(fit(spec, X, y, random_state=0).predict_proba(X), same)


# Scaling.


@every_estimator
def test_scale_makes_the_units_of_a_column_irrelevant(name):
    X, y = blobs()
    units = 2.0 ** np.array([-1000, -3, 40, 1000])
    spec = quick(name, scale=True)
    here = fit(spec, X, y, random_state=0).predict_proba(X)
    there = fit(spec, X * units, y, random_state=0).predict_proba(X * units)
    assert np.array_equal(here, there)


@every_estimator
def test_scale_false_leaves_the_features_alone(name):
    X, y = blobs()
    model = fit(quick(name, scale=False), X, y, random_state=0)
    assert "Standardizer" not in repr(model)


def test_standardizer_is_standard_scaler_on_columns_that_vary():
    X, _ = blobs()
    X = np.column_stack([X, X * 1e-9 + 1, X * 1e12 - 3e13])
    assert np.array_equal(Standardizer().fit_transform(X), StandardScaler().fit_transform(X))


def test_standardizer_makes_a_constant_column_zero():
    X = np.column_stack([np.full(7, 3.7), np.zeros(7), np.full(7, -1e300)])
    np.testing.assert_allclose(Standardizer().fit_transform(X), 0, atol=1e-15)


@pytest.mark.parametrize("unit", [1e300, 1e-300, 1e-310, 1.7e308])
def test_standardizer_takes_any_magnitude(unit):
    X = np.array([[-1.0], [0.0], [1.0]])
    np.testing.assert_allclose(Standardizer().fit_transform(X * unit)[:, 0], [-1.224745, 0, 1.224745], rtol=1e-6)


@every_estimator
def test_with_scale_an_outlier_of_the_pool_has_finite_probabilities(name):
    X, y = blobs()
    X[:, 1] = 0
    stray = np.array([[1e308] * 4, [-1e308] * 4, [1e39, -1e39, 0, 0]])
    model = fit(quick(name, scale=True), X * 1e-5, y, random_state=0)
    assert_probabilities(model.predict_proba(stray), 3, 3)


@every_estimator
@pytest.mark.parametrize("far", [1e39, 1e160, 1.7e308])
def test_without_scale_an_outlier_of_the_pool_affects_no_other_row(name, far):
    X, y = blobs()
    params = {"weights": "distance"} if name == "k_neighbors" else {}
    model = fit(quick(name, scale=False, **params), X, y, random_state=0)
    with np.errstate(all="ignore"):
        probabilities = model.predict_proba(np.vstack([np.full(4, far), X]))
    np.testing.assert_allclose(probabilities[1:], model.predict_proba(X), rtol=1e-9)


# Nasty training sets.


def nasty_sets():
    X, y = blobs()
    half = np.arange(20) % 2
    integers = np.iinfo(np.int64)
    return {
        "two rows": (X[[0, 12]], np.array([0, 1])),
        "two equal rows": (X[[0, 0]], np.array([0, 1])),
        "two rows of one feature": (np.array([[0.0], [1.0]]), np.array([0, 1])),
        "all rows equal": (np.ones((20, 3)), half),
        "all zero": (np.zeros((20, 3)), half),
        "a constant column": (np.column_stack([X, np.full(len(X), 3.3)]), y),
        "duplicated rows": (np.repeat(X[::6], 6, axis=0), y),
        "the same rows in both classes": (np.repeat(X[:10], 2, axis=0), half),
        "a class with one row": (X, (np.arange(36) == 5).astype(int)),
        "one row a class": (X[:10], np.arange(10)),
        "a class with one row of three": (X, np.where(np.arange(36) == 5, 2, np.arange(36) % 2)),
        "more features than rows": (blobs(2, 2, 300)[0], np.array([0, 0, 1, 1])),
        "huge": (X * 1e300, y),
        "beyond float32": (X * 1e39, y),
        "tiny": (X * 1e-300, y),
        "subnormal": (X * 1e-315, y),
        "mixed magnitudes": (X * [1e300, 1e-300, 1, 1e10], y),
        "one huge value": (np.where(np.arange(36)[:, None] == 3, 1e308, X), y),
        "the ends of float64": (np.finfo(np.float64).max * np.sign(X), y),
        "the ends of float32": (np.finfo(np.float32).max * np.sign(X).astype(np.float32), y),
        "the ends of float16": (np.finfo(np.float16).max * np.sign(X).astype(np.float16), y),
        "the ends of int64": (np.where(X > 0, integers.max, integers.min), y),
    }


NASTY = nasty_sets()


ALIKE = {"two equal rows", "all rows equal", "all zero"}
EXTREME = {
    "huge",
    "tiny",
    "subnormal",
    "mixed magnitudes",
    "one huge value",
    "the ends of float64",
    "the ends of float32",
}


@every_estimator
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_set_gives_finite_probabilities_or_fit_failed(name, nasty, scale):
    X, y = NASTY[nasty]
    try:
        model = fit(quick(name, scale=scale), X, y, random_state=0)
    except FitFailed as error:
        assert str(error).startswith(f"{name} cannot learn from these numbers: ")
        assert (nasty in EXTREME and not scale) or (nasty in ALIKE and name == "gaussian_nb")
        return
    with np.errstate(all="ignore"):
        probabilities = model.predict_proba(X)
    assert model.classes_.tolist() == np.unique(y).tolist()
    assert_probabilities(probabilities, len(X), len(model.classes_))


@every_estimator
def test_one_class_is_not_enough_to_fit(name):
    with pytest.raises(FitFailed, match=f"{name} needs labels of at least two classes"):
        fit(quick(name), np.ones((3, 2)), np.array([4, 4, 4]), random_state=0)


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        ("logistic_regression", np.nan, "Input X contains NaN"),
        ("logistic_regression", np.inf, "Input X contains infinity or a value too large for dtype('float64')"),
        ("svc", 1e300, "The dual coefficients or intercepts are not finite"),
        ("gaussian_nb", 0, "its probabilities are not finite even on the labelled rows"),
    ],
)
def test_fit_failed_says_why_in_one_sentence(name, bad, reason):
    X, y = blobs()
    with pytest.raises(FitFailed) as caught:
        fit(quick(name, scale=False), X * bad, y, random_state=0)
    assert str(caught.value).startswith(f"{name} cannot learn from these numbers: {reason}")
    assert "\n" not in str(caught.value)


# Few labelled rows


def test_the_number_of_neighbours_is_limited_to_the_rows():
    X, y = np.arange(3.0)[:, None], np.array([0, 1, 1])
    model = fit(resolve_estimator("k_neighbors", {}), X, y, random_state=0)
    np.testing.assert_allclose(model.predict_proba(X), [[1 / 3, 2 / 3]] * 3)


@pytest.mark.parametrize("rows", [2, 3, 6, 9])
def test_gradient_boosting_splits_however_few_the_rows(rows):
    X = np.arange(float(rows))[:, None]
    y = (X[:, 0] >= rows // 2).astype(int)
    model = fit(resolve_estimator("hist_gradient_boosting", {}), X, y, random_state=0)
    assert len(np.unique(model.predict_proba(X)[:, 1])) > 1


@pytest.mark.parametrize(("rarest", "model"), [(1, DecisionSVC), (4, DecisionSVC), (5, CalibratedClassifierCV)])
def test_svc_is_calibrated_from_five_rows_per_class(rarest, model):
    made = (
        ESTIMATORS["svc"]
        .variants["class"]
        .factory(resolve_estimator("svc", {"scale": False}).params, 0, TrainingShape(30, 2, 3, rarest))
    )
    assert type(made) is model


@pytest.mark.parametrize("n_classes", [2, 3])
def test_uncalibrated_svc_predicts_as_the_machine_itself(n_classes):
    X, y = blobs(n_classes, per_class=4)
    machine = SVC().fit(X, y)
    probabilities = fit(resolve_estimator("svc", {"scale": False}), X, y, random_state=0).predict_proba(X)
    assert np.array_equal(probabilities.argmax(axis=1), machine.predict(X))
    if n_classes == 2:
        np.testing.assert_allclose(probabilities[:, 1], expit(machine.decision_function(X)))


def test_svc_ends_on_rows_it_cannot_separate():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 20)), rng.integers(2, size=300)
    model = fit(resolve_estimator("svc", {"C": 1e6, "kernel": "linear"}), X, y, random_state=0)
    assert_probabilities(model.predict_proba(X), 300, 2)


# Arrays, files and threads.


@every_estimator
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_a_read_only_mapped_pool_is_trained_on_and_predicted(name, dtype, scale, tmp_path):
    X, y = blobs()
    np.save(tmp_path / "pool.npy", (10 * X).astype(dtype))
    before = (tmp_path / "pool.npy").read_bytes()
    pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
    y.flags.writeable = False
    model = fit(quick(name, scale=scale), pool, y, random_state=0)
    assert_probabilities(model.predict_proba(pool), len(X), 3)
    assert (tmp_path / "pool.npy").read_bytes() == before


@every_estimator
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("per_class", [1, 12])
def test_a_model_survives_joblib(name, per_class, scale, tmp_path):
    X, y = blobs(per_class=per_class)
    model = fit(quick(name, scale=scale), X, y, random_state=0)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert np.array_equal(mapped.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("name", ["auto", "random_forest", "extra_trees", "svc"])
def test_a_fit_on_all_cores_gives_the_same_model(name, monkeypatch):
    X, y = np.random.default_rng(0).standard_normal((60, 4)), np.arange(60) % 3
    spec = resolve_estimator(name, QUICK.get(name, {}))
    monkeypatch.setattr(estimators, "THREADED_ROWS", 10)
    found = []
    for n_cores in (1, 3):
        monkeypatch.setattr(threads, "n_cores", lambda n_cores=n_cores: n_cores)
        found.append(joblib.hash(fit(spec, X, y, 0)))
    assert found[0] == found[1]


def test_a_fit_computes_in_one_thread():
    X, y = blobs()
    with thread_pools().limit(limits=2):
        fit(resolve_estimator("gaussian_nb", {}), X, y, random_state=0)
        assert {pool["num_threads"] for pool in thread_pools().info()} == {1}


def test_a_network_of_too_many_weights_is_refused():
    X = np.eye(4, 200_000, dtype=np.int8)
    with pytest.raises(FitFailed, match="20000000 weights on 200000 features"):
        fit(resolve_estimator("mlp", {"hidden_layer_sizes": [100]}), X, np.array([0, 1, 0, 1]), random_state=0)


def test_an_estimator_declares_its_fast_predictor_and_its_members(monkeypatch):
    monkeypatch.setattr(estimators, "ESTIMATORS", dict(ESTIMATORS))

    @estimators.estimator(
        "bernoulli_nb",
        summary="Naive Bayes on binary features.",
        source="sklearn.naive_bayes.BernoulliNB",
        parameters=(),
        model_type=BernoulliNB,
        fast_predictor=lambda model: lambda X: model.predict_proba(X) + 1,
        members=lambda model: BaggedCommittee.of([model, model]),
    )
    def bernoulli_nb(params, random_state, shape):
        return BernoulliNB()

    X, y = np.eye(6), np.arange(6) % 2
    model = fit(resolve_estimator("bernoulli_nb", {}), X, y, 0)
    assert estimators.committee_in(model).n_members == 2
    [scores] = score_pool(model, Pool.of(X), lambda P: P.sum(axis=1), np.ones(6, bool))
    assert scores == pytest.approx(np.full(6, 3.0))  # each of the two classes has its probability plus one
