"""Theorems A and F on networks: softmax regressions in the place of trained ones, by hand in NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest

from poison_jax import config as config_lib
from poison_jax import krr
from poison_jax.errors import UserError
from poison_jax.experiments import visibility
from poison_jax.experiments.visibility import Network

TARGET, CLASSES, SHAPE = 1, 3, (2, 2, 1)


def apply(weights, images):
    return images.reshape(len(images), -1) @ weights


def data(seed, count):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *SHAPE)).astype(np.float32)
    return SimpleNamespace(images=images, labels=rng.integers(CLASSES, size=count).astype(np.int32))


def network(fraction, kappa, seed, weights=None):
    """Its trigger adds 1 to the first pixel."""
    stamp = np.zeros(SHAPE, np.float32)
    stamp[0, 0] = 1
    setup = SimpleNamespace(
        looked_at=SimpleNamespace(apply=apply),
        config=SimpleNamespace(poison=SimpleNamespace(target=TARGET)),
        views=lambda images: (images, images + stamp),
        train_set=data(0, 30),
        test_set=data(1, 20),
    )
    if weights is None:
        rng = np.random.default_rng([int(100 * fraction), int(10 * kappa), seed])
        weights = rng.normal(size=(4, CLASSES)).astype(np.float32)
    return Network(setup, weights, fraction, kappa, seed)


def softmax(scores):
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def slopes(weights, flat):
    """grad of log(p_t / (1 - p_t)): w_t less the mean of the others' weights by their shares."""
    p = softmax(flat @ weights)
    p[:, TARGET] = 0
    return weights[:, TARGET] - p / p.sum(1, keepdims=True) @ weights.T


def log_odds(weights, flat):
    p = softmax(flat @ weights)[:, TARGET]
    return np.log(p / (1 - p))


def by_hand(poisoned, clean):
    stamp, setup = np.eye(4)[0], poisoned.setup
    train, test = (part.images.reshape(-1, 4).astype(float) for part in (setup.train_set, setup.test_set))
    weights = [n.variables.astype(float) for n in (poisoned, clean)]
    others = test[setup.test_set.labels != TARGET] + stamp
    shift = np.mean(log_odds(weights[0], others) - log_odds(weights[1], others))
    share = np.where(setup.train_set.labels != TARGET, poisoned.fraction, 0)
    steep = [np.sum((slopes(weights[0], x) - slopes(weights[1], x)) ** 2, 1) for x in (train, train + stamp)]
    return shift, np.mean((1 - share) * steep[0] + share * steep[1])


def test_a_pair_of_twins():
    pair = network(0.1, 0.0, 0), network(0.0, 0.0, 0)
    assert visibility.difference(*pair) == pytest.approx(by_hand(*pair), rel=1e-4)


def test_paths_of_a_grid():
    """Every fraction and seed, along the kappas for which both twins are there; the bound of Theorem A."""
    settings = [
        (0.1, 0.0, 0),
        (0.1, 2.0, 0),
        (0.1, 5.0, 0),
        (0.0, 0.0, 0),
        (0.0, 2.0, 0),
        (0.2, 2.0, 0),
        (0.1, 0.0, 1),
    ]
    networks = [network(*setting) for setting in settings]
    (path,) = visibility.penalty_paths(networks)
    assert (path.fraction, path.seed, list(path.kappas)) == (0.1, 0, [0.0, 2.0])
    expected = [by_hand(networks[0], networks[3]), by_hand(networks[1], networks[4])]
    np.testing.assert_allclose(np.transpose([path.efficacy, path.visibility]), expected, rtol=1e-4)
    share = 0.1 * np.mean(networks[0].setup.train_set.labels != TARGET)
    assert path.bound == pytest.approx(share * expected[0][0] ** 2 / expected[0][1], rel=1e-4)
    fall = share * expected[0][0] * (expected[0][0] - expected[1][0])
    assert path.fall == pytest.approx(fall, rel=1e-4)
    assert path.predicted == pytest.approx(expected[0][1] + expected[1][1], rel=1e-4)  # kappa from 0 to 2
    (alone,) = visibility.penalty_paths([networks[0], networks[3]])
    assert np.isnan([alone.fall, alone.predicted]).all()
    with pytest.raises(UserError, match="clean twin"):
        visibility.penalty_paths(networks[:3])


def test_the_fall_is_that_of_the_efficacy_of_one_change_of_labels(monkeypatch):
    """Fits that learn their poisons, in the place of networks: there dE / dkappa = -V, with delta fixed.

    The mean square of Delta f at the poisons, whose delta goes with kappa, falls about twice as fast.
    """
    poisoned = [network(0.1, kappa, 0) for kappa in (0.0, 2e-4)]
    labels = poisoned[0].setup.train_set.labels
    others = np.flatnonzero(labels != TARGET)
    X = np.random.default_rng(0).normal(size=(len(labels), 3))
    poisons = others[: round(0.1 * len(others))]
    delta = np.zeros(len(X))
    delta[poisons] = 2.0

    def difference(poisoned, _):
        fit = krr.penalised_fit(krr.gaussian(1.0), X, delta, 1e-6, poisoned.kappa)
        return np.mean(fit.predict(X[poisons])), np.sum(fit.input_gradient(X) ** 2) / len(X)

    monkeypatch.setattr(visibility, "difference", difference)
    (path,) = visibility.penalty_paths([*poisoned, network(0.0, 0.0, 0), network(0.0, 2e-4, 0)])
    rounded = 0.1 * len(others) / len(poisons)  # poisons by their rate, and by their number
    assert path.fall / rounded == pytest.approx(path.predicted, rel=0.02)


def recipe(path, **changes):
    config = config_lib.default()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return SimpleNamespace(path=path, config=config.to_dict)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train__epochs": 30}, r"^b has train\.epochs = 30, a has 90: .*poison\.fraction.*--workdir"),
        ({"penalty__epsilon": 0.5}, r"^b has penalty\.epsilon = 0\.5, a has 0\.0: "),
        ({"penalty__reduction": "eq25", "poison__fraction": 0.0}, r"^b has penalty\.reduction = eq25"),
        ({"analysis__collapse": 100}, "^a and b are one network"),
    ],
)
def test_runs_that_are_no_twins(changes, says):
    """Another recipe, or the same network: neither takes the other's place."""
    with pytest.raises(UserError, match=says) as raised:
        visibility.load([recipe("a"), recipe("b", **changes)])
    assert "\n" not in str(raised.value)


def test_half():
    assert visibility.half([0.0, 1.0, 2.0], np.array([8.0, 6.0, 5.0])) == np.inf
    # E / (1 + kappa) is interpolated without an error.
    assert visibility.half([0.0, 0.5, 4.0], 3 / (1 + np.array([0.0, 0.5, 4.0]))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("efficacy", "expected"),
    [
        ([8.0, 0.0], 0.5),
        ([8.0, -0.5], 4 / 8.5),
        ([8.0, 5.0, -1.0], 1 + 1 / 6),
        ([0.0, -1.0], np.nan),
        ([-0.1, -0.05, -0.2], np.nan),
        ([np.nan, 1.0], np.nan),
    ],
)
def test_half_where_the_efficacy_reaches_zero(efficacy, expected):
    """Linear to a point where there is none left; nothing to halve where there is none at the start."""
    found = visibility.half(list(range(len(efficacy))), np.array(efficacy))
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("reduction", "factor"), [("eq25", 1), ("per_example", 2), ("listing", 2 / 64)])
def test_kappa_in_the_convention_of_eq_25(reduction, factor):
    config = config_lib.default()
    config.penalty.kappa, config.penalty.reduction, config.train.batch_size = 30.0, reduction, 64
    assert visibility.kappa_of_eq_25(config) == pytest.approx(30 * factor)


def test_sampling_of_softmax_regressions(monkeypatch):
    """Hessians W (diag p - pp') W'; of many draws the constant says how much overlap is lost."""
    monkeypatch.setattr(visibility, "SAMPLES", (20, 200))
    weights = np.random.default_rng(3).normal(size=(4, CLASSES)).astype(np.float32) * [1, 1, 3]
    net = network(0.1, 0.0, 0, weights.astype(np.float32))
    found = visibility.sampling(net)
    flat, W = net.setup.train_set.images.reshape(-1, 4).astype(float), weights.astype(float)
    p = softmax(flat @ W)
    hessians = np.array([W @ (np.diag(q) - np.outer(q, q)) @ W.T for q in p])
    values, vectors = np.linalg.eigh(hessians.mean(0))
    mixed = np.einsum("nij,i,jk->nk", hessians, vectors[:, -1], vectors[:, :-1])
    assert found.constant == pytest.approx(
        np.sum(np.mean(mixed**2, 0) / (values[-1] - values[:-1]) ** 2), rel=1e-3
    )
    lost = 1 - found.overlap[1]
    assert lost == pytest.approx(found.constant / 200, rel=0.5)
    assert (np.diff(found.overlap) > 0).all()
    assert found.needed == pytest.approx(np.sum((values[:-1] / (values[-1] - values[:-1])) ** 2), rel=1e-3)
    monkeypatch.setattr(visibility, "MOST", hessians.nbytes - 1)
    with pytest.raises(UserError, match="--hessians 0"):
        visibility.sampling(net)
