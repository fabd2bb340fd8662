"""The laws on real images, on a few digits: against dense refits in NumPy."""

import functools

import numpy as np
import pytest

from poison_jax import data, poison
from poison_jax.errors import UserError
from poison_jax.theory import images

# Few shapes, each of which compiles: 40 clean points and 0, 1 or 4 poisons, 8 points to look at.
TARGET, POINTS, TRIGGERED, CLONES, RIDGE = 3, 40, 8, np.array([1, 4]), 0.1
MASK = poison.square(8, 8, margin=1, size=2)


def load(name="digits", **changes):
    arguments = {
        "data_dir": None,
        "num_points": POINTS,
        "num_triggered": TRIGGERED,
        "mask_of": functools.partial(poison.trigger_mask, "square", margin=1, size=2),
        "value": 1.0,
        "target": TARGET,
    }
    return images.load(str(name), **(arguments | changes))


@pytest.fixture(scope="module")
def problem():
    return load()


def gram(X, Z, length):
    return np.exp(-((X[:, None] - Z) ** 2).sum(-1) / (2 * length**2))


def slopes(x, X, alpha, length):
    """grad f(x)."""
    return -(gram(x[None], X, length)[0] * alpha) @ (x - X) / length**2


def curvature(x, X, alpha, length, y):
    """Dense Hessian of (f - y)^2 / 2 at x, by hand."""
    k, d = gram(x[None], X, length)[0] * alpha, x - X
    hessian = np.einsum("a,ai,aj->ij", k, d, d) / length**4 - k.sum() * np.eye(len(x)) / length**2
    gradient = slopes(x, X, alpha, length)
    return np.outer(gradient, gradient) + (k.sum() - y) * hessian


def dense(K, y):
    return np.linalg.solve(K + RIDGE * np.eye(len(K)), y)


# The problem


def test_images_as_points(problem):
    digits = {split: data.load("digits", split) for split in ("train", "test")}
    flat = {split: part.images.reshape(len(part.labels), -1) / 255.0 for split, part in digits.items()}
    assert problem.name == "digits"
    assert all(part.dtype == np.float64 for part in problem if isinstance(part, np.ndarray))
    assert problem.zeta.shape == (64,)
    assert problem.cluster.shape == problem.triggered.shape == (TRIGGERED, 64)
    np.testing.assert_allclose(problem.X, flat["train"][:POINTS], atol=1e-7)
    np.testing.assert_array_equal(problem.y, np.where(digits["train"].labels[:POINTS] == TARGET, 1, -1))
    np.testing.assert_allclose(problem.test, flat["test"][:2000], atol=1e-7)
    np.testing.assert_array_equal(problem.test_y, np.where(digits["test"].labels[:2000] == TARGET, 1, -1))
    distances = np.sqrt(((problem.X[:, None] - problem.X) ** 2).sum(-1))[np.triu_indices(POINTS, 1)]
    assert problem.median_distance == pytest.approx(np.median(distances))
    np.testing.assert_array_equal(problem.mask, MASK.ravel())

    # Poisons: training images behind the clean ones, trigger points: test images; none of the target class.
    poisons = np.vstack([problem.zeta, problem.cluster])
    for points, split, first in ((poisons, "train", POINTS), (problem.triggered, "test", 0)):
        labels = digits[split].labels
        chosen = [i for i in range(first, len(labels)) if labels[i] != TARGET][: len(points)]
        expected = flat[split][chosen]
        expected[:, MASK.ravel()] = 1
        np.testing.assert_allclose(points, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": 10}, r"^poison\.target = 10: digits has classes 0 to 9$"),
        ({"num_points": 1439}, r"^digits has 1438 training images, 1439 are needed: lower krr\.num_points"),
        ({"num_points": 1438}, "^digits has 0 non-target training images, 9 are needed"),
        ({"num_triggered": 340}, r"^digits has \d+ non-target test images, 340 are needed"),
    ],
)
def test_what_cannot_be_loaded(changes, says):
    with pytest.raises(UserError, match=says):
        load(**changes)


def test_images_that_are_all_alike(tmp_path):
    path = tmp_path / "grey.npz"
    np.savez(path, images=np.full((60, 8, 8), 9, np.uint8), labels=np.arange(60) % 4)
    with pytest.raises(UserError, match="most of the first 40 training images are equal"):
        load(path, num_triggered=2, target=0)


# The laws


def test_sweep_equals_dense_refits_and_both_laws(problem):
    """Measured by solves with and without clones; the exact law is the measurement, the paper's is not."""
    steps = []
    swept = images.sweep(problem, (0.7,), (RIDGE,), CLONES, lambda: steps.append(1))
    assert len(steps) == 1
    length, x0 = 0.7 * problem.median_distance, problem.triggered
    X, y, zeta = problem.X, problem.y, problem.zeta[None]
    clean = dense(gram(X, X, length), y)
    before = np.array([slopes(x, X, clean, length) for x in x0])
    np.testing.assert_allclose(swept["clean_score"][0, 0], gram(x0, X, length) @ clean, rtol=1e-9)
    np.testing.assert_allclose(swept["clean_curvature"][0, 0], np.sum(before**2, 1), rtol=1e-8)
    assert swept["clean_at_zeta"][0, 0] == pytest.approx((gram(zeta, X, length) @ clean)[0], rel=1e-9)
    accuracy = np.mean(np.sign(gram(problem.test, X, length) @ clean) == problem.test_y)
    assert swept["clean_accuracy"][0, 0] == pytest.approx(accuracy)
    for i, m in enumerate(CLONES):
        points = np.vstack([X, np.repeat(zeta, m, 0)])
        alpha = dense(gram(points, points, length), np.r_[y, np.ones(m)])
        shift = gram(x0, points, length) @ alpha - gram(x0, X, length) @ clean
        gradient = np.array([slopes(x, points, alpha, length) for x in x0]) - before
        np.testing.assert_allclose(swept["efficacy"][0, 0, i], shift, rtol=1e-8)
        np.testing.assert_allclose(swept["spike"][0, 0, i], np.sum(gradient**2, 1), rtol=1e-8)
        k_0, gain = gram(x0, zeta, length)[:, 0], m / (RIDGE + m)
        r2 = np.sum((x0 - zeta) ** 2, 1)
        np.testing.assert_allclose(swept["paper_efficacy"][0, 0, i], k_0 * gain, rtol=1e-9)
        np.testing.assert_allclose(
            swept["paper_spike"][0, 0, i], r2 / length**4 * (k_0 * gain) ** 2, rtol=1e-9
        )
    for key in ("efficacy", "spike"):
        np.testing.assert_allclose(swept[f"exact_{key}"], swept[key], rtol=1e-8)
        assert np.abs(swept[f"paper_{key}"] / swept[key] - 1).min() > 0.01
    cross = gram(X, zeta, length)[:, 0]
    assert swept["open_at_zeta"][0, 0] == pytest.approx(
        1 - cross @ dense(gram(X, X, length), cross), rel=1e-8
    )
    np.testing.assert_allclose(swept["k_zeta"], 1)
    np.testing.assert_allclose(swept["distances"], np.linalg.norm(x0 - zeta, axis=1))
    assert swept["efficacy"].shape == (1, 1, 2, TRIGGERED)
    assert list(swept["points"]) == [POINTS, 64]

    (row,) = images.summary(swept)
    assert (row["lengthscale"], row["ridge"]) == (0.7, RIDGE)
    assert row["worst_error_of_exact_law"] < 1e-8
    assert row["efficacy"] == pytest.approx(np.median(swept["efficacy"][0, 0, -1]))
    assert row["explained_of_k_zeta"] == pytest.approx(1 - swept["open_at_zeta"][0, 0])


def test_summary_by_hand():
    """Four trigger points, m = 1, 10, 100: when half of them flip, when half of them show."""
    efficacy = np.array([[0.5, 0.5, 0.5, 0.5], [2.0, 0.5, 0.5, 2.0], [4.0, 2.0, 2.0, 0.5]])[None, None]
    spike = np.array([[0.1, 0.1, 0.1, 9.0], [0.1, 0.1, 0.1, 9.0], [9.0, 9.0, 0.1, 0.1]])[None, None]
    arrays = {
        "efficacy": efficacy,
        "spike": spike,
        "exact_efficacy": efficacy * 1.01,
        "exact_spike": spike,
        "paper_efficacy": efficacy / 2,
        "paper_spike": np.full_like(spike, 0.5),
        "clean_score": np.full((1, 1, 4), -1.0),
        "clean_curvature": np.ones((1, 1, 4)),
        "lengthscales": np.array([0.5]),
        "ridges": np.array([0.1]),
        "clones": np.array([1, 10, 100]),
        "points": np.array([40, 64]),
        "clean_accuracy": np.full((1, 1), 0.9),
        "clean_at_zeta": np.full((1, 1), -0.8),
        "overlap": np.array([0.1, 0.2, 0.4, 0.5])[None, None],
        "open_at_zeta": np.full((1, 1), 0.25),
        "k_zeta": np.ones((1, 1)),
    }
    (row,) = images.summary(arrays)
    assert (row["m_works"], row["m_seen"], row["m_seen_by_law"]) == (10, 100, None)
    assert row["asr"] == 0.75
    assert row["efficacy"] == row["efficacy_of_law"] == 2.0
    factors = np.array([9 / 16, 9 / 4, 0.1 / 4, 0.4]) / (0.5 / np.array([4, 1, 1, 1 / 16]))
    assert row["factor_of_law"] == pytest.approx(np.median(factors))
    assert row["worst_error_of_exact_law"] == pytest.approx(0.01)
    assert row["explained_of_k_zeta"] == 0.75
    assert row["clean_score_at_zeta"] == -0.8
    assert row["overlap"] == pytest.approx(0.3)


# Approach and defence


def test_approach(problem):
    length, m = 0.7 * problem.median_distance, 4
    found = images.approach(problem, 0.7, RIDGE, m, paths=1)
    steps = len(images.STEPS)
    assert {key: value.shape for key, value in found.items()} == {
        **dict.fromkeys(("ratios", "efficacy", "spike", "full", "full_clean"), (1, steps)),
        "limit": (),
        "label": (3,),
    }
    whole = np.linalg.norm(problem.triggered[0] - problem.zeta) / length
    np.testing.assert_allclose(found["ratios"][0], images.STEPS * whole)
    X = np.vstack([problem.X, np.tile(problem.zeta, (m, 1))])
    fits = {
        "full": (X, dense(gram(X, X, length), np.r_[problem.y, np.ones(m)])),
        "full_clean": (problem.X, dense(gram(problem.X, problem.X, length), problem.y)),
    }
    # At the clones themselves, where the ratio is 0.
    shift, slope = (
        np.subtract(*(f(problem.zeta, *fit) for fit in fits.values()))
        for f in (lambda x, X, a: gram(x[None], X, length)[0] @ a, lambda x, X, a: slopes(x, X, a, length))
    )
    assert shift > 0.1
    assert found["limit"] == pytest.approx(slope @ slope, rel=1e-7)
    for i in (0, steps - 1):
        x = problem.zeta + images.STEPS[i] * (problem.triggered[0] - problem.zeta)
        scores = [gram(x[None], *fit[:1], length)[0] @ fit[1] for fit in fits.values()]
        assert found["efficacy"][0, i] == pytest.approx(scores[0] - scores[1], rel=1e-8)
        change = np.subtract(*(slopes(x, *fit, length) for fit in fits.values()))
        assert found["spike"][0, i] == pytest.approx(change @ change, rel=1e-7)
        for key, fit in fits.items():
            top = np.linalg.eigvalsh(curvature(x, *fit, length, 1.0))[-1]
            assert 0.98 * top < found[key][0, i] < top * (1 + 1e-9)  # Ritz values lie below


def test_defence(problem, monkeypatch):
    """At kappa = 0 the unpenalised fit; under the linear kernel the ridge c + n kappa throughout."""
    assert images.KAPPAS[0] == 0
    monkeypatch.setattr(images, "KAPPAS", np.array([0.0, 0.02, 1e3]))
    m, count, length = 4, POINTS, 0.7 * problem.median_distance
    found = images.defend(problem, 0.7, RIDGE, m, count)
    np.testing.assert_array_equal(found["kappas"], images.KAPPAS)
    names = ("df", "accuracy", "score", "asr", "at_zeta", "efficacy", "visibility")
    series = {f"{k}_{p}_{n}" for k in ("gaussian", "linear") for p in ("clones", "cluster") for n in names}
    assert found.keys() == {"kappas", "label", "always_rest"} | series
    assert found["always_rest"] == np.mean(problem.test_y == -1)
    assert {found[key].shape for key in series} == {(3,)}
    y, delta = np.r_[problem.y[:count], np.ones(m)], np.r_[np.zeros(count), 2 * np.ones(m)]
    for kind, poisons in (("clones", np.tile(problem.zeta, (m, 1))), ("cluster", problem.cluster[:m])):
        X = np.vstack([problem.X[:count], poisons])
        rows = [("gaussian", 0, gram(X, X, length), lambda Z, X=X: gram(Z, X, length), RIDGE)]
        rows += [
            ("linear", i, X @ X.T, lambda Z, X=X: Z @ X.T, RIDGE + len(X) * kappa)
            for i, kappa in enumerate(found["kappas"])
        ]
        for kernel, i, K, section, ridge in rows:
            smoother = np.linalg.inv(K + ridge * np.eye(len(K)))
            scores = section(problem.triggered) @ smoother @ y
            expected = {
                "df": np.trace(K @ smoother),
                "accuracy": np.mean((section(problem.test) @ smoother @ y > 0) == (problem.test_y > 0)),
                "score": scores.mean(),
                "asr": np.mean(scores > 0),
                "at_zeta": (section(problem.zeta[None]) @ smoother @ y)[0],
                "efficacy": delta @ K @ smoother @ delta,
            }
            got = {name: found[f"{kernel}_{kind}_{name}"][i] for name in expected}
            assert got == pytest.approx(expected, rel=1e-6), (kernel, kind, i)
            if kernel == "linear":  # one ridge more: -dE / dkappa by hand
                seen = len(X) * delta @ K @ smoother @ smoother @ delta
                assert found[f"linear_{kind}_visibility"][i] == pytest.approx(seen, rel=1e-6)
        for kernel in ("gaussian", "linear"):
            assert (np.diff(found[f"{kernel}_{kind}_df"]) < 0).all()
