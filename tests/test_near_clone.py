"""The theory's quantities in a network: against closed forms, dense Jacobians, and the law itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.spatial.distance import cdist, pdist

from poison_jax import krr, models
from poison_jax.errors import UserError
from poison_jax.mesh import make_mesh, replicate
from poison_jax.models import Features
from poison_jax.near_clone import NEAR, Slope, log_slope, measure

D, F = 6, 4  # pixels and features of the analytic networks
POINTS = ("score", "clean_score", "efficacy", "spike", "clean_spike", "softmax_spike")
PAIRS = ("distance", "spike_factor", "law", "alignment")


def flat(images):
    return images.reshape(len(images), -1)


def linear_features(variables, images):
    """Linear features and logits."""
    phi = flat(images) @ variables["W"]
    return phi @ variables["V"], Features(phi, phi)


def preresnet(dtype):
    """As initialised: the running statistics of `toys.network` leave few features alive."""
    model = models.preresnet(8, 3, width=4, dtype=dtype)
    return model, model.init(jax.random.key(0), (6, 6, 1))


def tanh_features(variables, images):
    phi = jnp.tanh(flat(images) @ variables["W"])
    return jnp.sin(phi @ variables["V"]), Features(phi, phi)


def lawful(variables, images):
    """Log-odds `c k(., zeta)` exactly, for the first of two classes."""
    phi = flat(images) @ variables["W"]
    k = jnp.exp(-jnp.sum((phi - variables["zeta"]) ** 2, 1) / 2 / variables["l"] ** 2)
    return jnp.stack([variables["c"] * k, jnp.zeros_like(k)], 1), Features(phi, phi)


def weights(classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"W": rng.standard_normal((D, F)), "V": rng.standard_normal((F, classes))}


def groups(counts=(7, 7, 5, 9), *, shape=(2, 3, 1), seed=1, dtype=np.float64):
    """Clean and triggered test images, poisons, clean training images."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, *shape)).astype(dtype) for count in counts]


def test_linear_features_in_closed_form(x64):
    """J_phi = W', so R_k = |W (phi0 - phi_zeta)|^2 / l^4, and the logits' Jacobian is (W V)'."""
    v, (x, x0, poisons, train) = weights(), groups()
    W, V = v["W"], v["V"]
    found = measure(linear_features, v, x, x0, poisons, train, 1, batch_size=3, hessian_points=0)

    phi, zeta, reference = (flat(images) @ W for images in (x0, poisons, train))
    length = np.median(pdist(reference))
    nearest = zeta[cdist(phi, zeta).argmin(1)]
    np.testing.assert_allclose(found["lengthscale"], length, rtol=1e-12)
    np.testing.assert_allclose(found["input_lengthscale"], np.median(pdist(flat(train))), rtol=1e-12)
    np.testing.assert_allclose(found["distance"], np.linalg.norm(phi - nearest, axis=1), rtol=1e-12)
    for end, suffix in ((nearest, ""), (zeta.mean(0), "_mean")):
        R = np.sum(((phi - end) @ W.T) ** 2, 1) / length**4
        np.testing.assert_allclose(found["spike_factor" + suffix], R, rtol=1e-10)
        np.testing.assert_allclose(found["law" + suffix], R * found["efficacy"] ** 2, rtol=1e-10)
    logits = {kind: flat(images) @ W @ V for kind, images in (("clean_", x), ("", x0))}
    for kind, z in logits.items():
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(found[kind + "score"], np.log(p[:, 1] / (1 - p[:, 1])), rtol=1e-10)
        slopes = -p / (1 - p[:, [1]])
        slopes[:, 1] = 1
        np.testing.assert_allclose(found[kind + "spike"], np.sum((slopes @ (W @ V).T) ** 2, 1), rtol=1e-10)
    whole = [W @ V @ (np.diag(q) - np.outer(q, q)) @ (W @ V).T for q in p]
    np.testing.assert_allclose(found["softmax_spike"], np.linalg.eigvalsh(whole)[:, -1], rtol=1e-10)
    clean_distance = cdist(flat(x) @ W, reference).min(1)
    np.testing.assert_allclose(found["clean_distance"], clean_distance, rtol=1e-12)
    np.testing.assert_allclose(found["input_distance"], cdist(flat(x0), flat(poisons)).min(1), rtol=1e-12)
    from_mean = np.linalg.norm(flat(x0) - flat(poisons).mean(0), axis=1)
    np.testing.assert_allclose(found["input_distance_mean"], from_mean, rtol=1e-12)
    np.testing.assert_allclose(found["efficacy"], found["score"] - found["clean_score"])


def law_abiding(c, seed=1):
    """A network that obeys the law, some images (the clean ones where k is zero), and what is measured."""
    v, (x, x0, poisons, train) = weights(), groups(seed=seed)
    x, poisons = x + 1e4, poisons[:1]
    length = np.median(pdist(flat(train) @ v["W"]))
    v |= {"zeta": (flat(poisons) @ v["W"])[0], "l": length, "c": c}
    return v, x0, poisons, measure(lawful, v, x, x0, poisons, train, 0, batch_size=4, hessian_points=0)


@pytest.mark.parametrize("c", [3.0, -2.0])
def test_the_law_holds_for_a_multiple_of_the_kernel(c, x64):
    """Theorem 3.4 without its assumption, f = c k(., zeta); with k and R_k as `krr` has them."""
    v, x0, poisons, found = law_abiding(c)
    for suffix in ("", "_mean"):  # of one poison
        np.testing.assert_allclose(found["spike"] / found["law" + suffix], 1, rtol=1e-9)
        np.testing.assert_allclose(found["alignment" + suffix], np.sign(c), rtol=1e-9)
    kernel = krr.deep(lambda W, X: X @ W, v["W"], krr.gaussian(v["l"]))
    at = [krr.trigger(kernel, x, flat(poisons)[0]) for x in flat(x0)]
    np.testing.assert_allclose(found["spike_factor"], [a.spike_factor for a in at], rtol=1e-9)
    np.testing.assert_allclose(found["efficacy"], [c * a.k_0 for a in at], rtol=1e-9)
    for key in ("ratio", "ratio_low", "ratio_high", "rank_correlation"):
        np.testing.assert_allclose(found[key], 1, rtol=1e-9)


def test_slope_two_over_networks(x64):
    """Ten efficacies, one R_k for each point: exactly the paper's exponent."""
    runs = [law_abiding(c)[-1] for c in np.geomspace(0.1, 100, 10)]
    medians = [[run["median_" + key] for run in runs] for key in ("efficacy", "spike")]
    np.testing.assert_allclose(log_slope(*medians), (2, 2, 2, 10), rtol=1e-6)


def dense(apply_fn, v, images, target):
    """Jacobians `[n, K, d]`, `[n, F, d]`, `[n, d]` of logits, features and log-odds, and these themselves."""

    def outputs(x):
        logits, features = apply_fn(v, x.reshape(1, *images.shape[1:]))
        p = jax.nn.softmax(logits[0])
        value = logits[0], features.pre_fc[0], jnp.log(p[target] / (1 - p[target]))
        return value, value

    jacobians, values = jax.jit(jax.vmap(jax.jacfwd(outputs, has_aux=True)))(jnp.asarray(flat(images)))
    return [*map(np.asarray, jacobians + values)]


def check_against_dense(apply_fn, v, images, target, batch_sizes):
    _, x0, poisons, _ = images
    n, suffixes = len(x0), ("", "_mean")
    J, J_phi, g, logits, phi, score = dense(apply_fn, v, np.concatenate(images), target)
    zeta, reference = phi[2 * n : 2 * n + len(poisons)], phi[2 * n + len(poisons) :]
    expected = {
        "clean_score": score[:n],
        "score": score[n : 2 * n],
        "clean_spike": np.sum(g[:n] ** 2, 1),
        "spike": np.sum(g[n : 2 * n] ** 2, 1),
    }
    J, J_phi, g, logits, phi = (part[n : 2 * n] for part in (J, J_phi, g, logits, phi))
    nearest = zeta[cdist(phi, zeta).argmin(1)]
    for end, suffix in zip((nearest, zeta.mean(0)), suffixes, strict=True):
        # Lemma C.1, divided by k_0.
        k = -np.einsum("nfd,nf->nd", J_phi, phi - end) / np.median(pdist(reference)) ** 2
        expected["spike_factor" + suffix] = np.sum(k**2, 1)
        cosine = np.sum(k * g, 1) / np.linalg.norm(k, axis=1) / np.linalg.norm(g, axis=1)
        expected["alignment" + suffix] = cosine
    p = np.asarray(jax.nn.softmax(logits))
    newton = [j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(J, p, strict=True)]
    expected["softmax_spike"] = np.linalg.eigvalsh(newton)[:, -1]
    assert all((np.abs(value) > 1e-6).all() for value in expected.values())  # a network with life in it
    for batch_size, points in zip(batch_sizes, (3, 0), strict=False):
        found = measure(apply_fn, v, *images, target, batch_size=batch_size, hessian_points=points)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-12, err_msg=key)
        assert len(found["hessian"]) == points
        assert (found["hessian_residual"] < 1e-5 * np.abs(found["hessian"])).all()
        if points:
            whole = found["hessian"]
    return whole, expected["softmax_spike"][:3]


def test_network_against_dense_jacobians(x64):
    """At inference the network is piecewise linear: the whole Hessian is the Gauss-Newton matrix."""
    model, v = preresnet("float64")
    images = groups((5, 5, 3, 5), shape=(6, 6, 1))
    whole, gauss_newton = check_against_dense(model.apply, v, images, 2, batch_sizes=(3,))
    np.testing.assert_allclose(whole, gauss_newton, rtol=1e-8)


def test_smooth_network_against_dense_jacobians(x64):
    """Here the second term of eq. 4 counts."""
    v, images = weights(), groups()

    def loss(x):
        return -jax.nn.log_softmax(tanh_features(v, x[None])[0][0])[0]

    whole, gauss_newton = check_against_dense(tanh_features, v, images, 0, batch_sizes=(4, 64))
    H = jax.jit(jax.vmap(jax.hessian(loss)))(flat(images[1][:3]))
    np.testing.assert_allclose(whole, np.linalg.eigvalsh(H)[:, -1], rtol=1e-8)
    assert (np.abs(whole / gauss_newton - 1) > 0.01).any()


def test_float32_agrees_with_float64(x64):
    images = groups((4, 4, 4, 4), shape=(6, 6, 1), dtype=np.float32)  # the same numbers for both
    found = {}
    for dtype in ("float32", "float64"):
        real = np.dtype(dtype)
        model, _ = preresnet(dtype)
        v = jax.tree.map(lambda leaf, real=real: jnp.asarray(leaf, real), preresnet("float64")[1])
        arrays = [part.astype(real) for part in images]
        found[dtype] = measure(model.apply, v, *arrays, 0, batch_size=4, hessian_points=0)
    for key in (*POINTS, "distance", "spike_factor", "law_mean", "alignment", "lengthscale"):
        expected = found["float64"][key]
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(found["float32"][key], expected, atol=1e-4 * scale, err_msg=key)


def test_a_sure_network_keeps_its_spike(x64):
    """The softmax's Gauss-Newton term of logits s z vanishes as e^-s, the score's spike grows as s^2."""
    v, images = weights(2), groups()
    near, sure = (
        measure(linear_features, v | {"V": s * v["V"]}, *images, 0, batch_size=8, hessian_points=0)
        for s in (1.0, 30.0)
    )
    np.testing.assert_allclose(sure["spike"], 900 * near["spike"], rtol=1e-9)
    # Of two classes p (1 - p) |grad f|^2, also where 1 - p is far below rounding.
    p = 1 / (1 + np.exp(-np.abs(sure["score"])))
    q = np.exp(-np.abs(sure["score"])) * p
    np.testing.assert_allclose(sure["softmax_spike"], p * q * sure["spike"], rtol=1e-8)


def test_what_is_measured_and_how_often(x64):
    a = measure(linear_features, weights(), *groups(), 1, batch_size=8, hessian_points=2)
    of_point = {*POINTS, *PAIRS, *(key + "_mean" for key in PAIRS), "clean_distance"}
    of_point |= {"input_distance", "input_distance_mean", "input_clean_distance"}
    expected = dict.fromkeys(of_point, (7,)) | {"hessian": (2,), "hessian_residual": (2,)}
    assert {key: value.shape for key, value in a.items() if value.ndim} == expected
    assert {value.dtype for value in a.values()} == {np.dtype(np.float64)}
    for key in ("efficacy", "spike", "clean_spike", "softmax_spike", "alignment", "alignment_mean"):
        assert a["median_" + key] == np.median(a[key])
    for key in ("", "clean_"):
        for space in ("", "input_"):
            r = np.median(a[f"{space}{key}distance"])
            assert a[f"{space}{key}r_over_l"] == r / a[f"{space}lengthscale"]
    assert a["near_share"] == np.mean(a["distance"] < NEAR * a["lengthscale"])
    for suffix in ("", "_mean"):
        law = a["law" + suffix]
        assert a["ratio" + suffix] == np.median(a["spike"] / law)
        assert a["ratio_low" + suffix] == np.quantile(a["spike"] / law, 0.1)
        assert a["ratio_high" + suffix] == np.quantile(a["spike"] / law, 0.9)
        ranks = np.corrcoef(np.argsort(np.argsort(law)), np.argsort(np.argsort(a["spike"])))[0, 1]
        assert a["rank_correlation" + suffix] == pytest.approx(ranks)
    slope = a["slope"], a["slope_low"], a["slope_high"], a["slope_count"]
    assert slope == log_slope(a["efficacy"], a["spike"])


def test_variables_may_be_on_several_devices(x64):
    v, images = weights(), groups()
    mesh = make_mesh()
    assert mesh.size == 8
    alone, spread = (
        measure(tanh_features, where, *images, 0, batch_size=4, hessian_points=1)
        for where in (v, replicate(v, mesh))
    )
    for key, value in alone.items():
        if key != "hessian_residual":
            np.testing.assert_allclose(spread[key], value, rtol=1e-9, err_msg=key)


def test_one_point_upon_a_poison(x64):
    """r = 0: R_k = 0, the law says 0, and there is no direction to compare."""
    x, _, poisons, train = groups((1, 1, 1, 9))
    found = measure(linear_features, weights(), x, poisons, poisons, train, 0, batch_size=8, hessian_points=1)
    for key in ("distance", "spike_factor", "law", "distance_mean", "spike_factor_mean", "law_mean"):
        np.testing.assert_array_equal(found[key], [0.0])
    assert np.isnan(found["alignment"]).all()
    assert found["spike"] > 0
    assert found["near_share"] == 1
    for key in ("ratio", "ratio_high_mean", "rank_correlation", "median_alignment", "slope"):
        assert np.isnan(found[key])


def test_a_network_that_says_the_same_everywhere(x64):
    """Constant logits, features that are not: no spike, no efficacy."""
    v = weights() | {"V": np.zeros((F, 3))}
    found = measure(linear_features, v, *groups(), 0, batch_size=8, hessian_points=1)
    for key in ("efficacy", "spike", "clean_spike", "softmax_spike", "law", "hessian"):
        np.testing.assert_allclose(found[key], 0, atol=1e-12)
    assert (found["spike_factor"] > 0).all()
    assert np.isnan(found["slope"])
    assert found["slope_count"] == 0


def zero(images):
    return np.zeros_like(images)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"poisons": zero(groups()[2])[:0]}, "poisons .* give at least one"),
        ({"poisons": groups(shape=(3, 2, 1))[2]}, "poisons .* not images of the shape"),
        ({"clean": groups()[0][:3]}, "not n images each"),
        ({"clean": groups()[0][:0], "triggered": groups()[0][:0]}, "clean .* give at least one"),
        ({"train_clean": groups()[3][:1]}, "train_clean: 1 image, 2 or more"),
        ({"train_clean": zero(groups()[3])}, "between features of clean training images is 0.0: no l"),
        (
            {"variables": {"W": np.full((D, F), np.nan), "V": np.ones((F, 3))}},
            "logits or features are not finite",
        ),
        ({"triggered": groups()[1] * np.inf}, "triggered hold values that are not finite"),
        ({"poisons": zero(groups()[2]).astype(np.uint8)}, "uint8"),
        ({"target": 3}, r"target = 3: the network has 3 class\(es\)"),
        ({"target": -1}, "target = -1"),
        ({"variables": weights(1), "target": 0}, r"1 class\(es\), and there must be another"),
        ({"batch_size": 0}, "at least 1"),
        ({"variables": weights() | {"name": "linear"}}, r"variables\['name'\] is of type str, no array"),
        (
            {"triggered": groups()[1] * 1e300, "variables": {k: 1e9 * v for k, v in weights().items()}},
            "finite",
        ),
    ],
)
def test_bad_input(change, says, x64):
    names = ("clean", "triggered", "poisons", "train_clean")
    arguments = {"variables": weights(), **dict(zip(names, groups(), strict=True)), "target": 0}
    arguments |= {"batch_size": 4} | change
    with pytest.raises(UserError, match=says):
        measure(linear_features, **arguments)


@pytest.mark.parametrize("count", [3, 4, 40])
def test_slope_and_interval_against_statsmodels(count):
    rng = np.random.default_rng(count)
    efficacy = np.exp(rng.normal(size=count))
    spike = np.exp(2 * np.log(efficacy) + rng.normal(size=count))
    model = sm.OLS(np.log(spike), sm.add_constant(np.log(efficacy))).fit()
    expected = (model.params[1], *model.conf_int(0.05)[1], count)
    np.testing.assert_allclose(log_slope(efficacy, spike), expected, rtol=1e-10)


def test_slope_leaves_out_what_has_no_logarithm():
    efficacy = np.array([1, 2, 3, 5, -1, 0, 4, np.nan, np.inf, 6])
    spike = np.array([1, 5, 8, 20, 1, 1, 0, 1, 1, np.inf])
    assert log_slope(efficacy, spike) == log_slope(efficacy[:4], spike[:4])
    assert log_slope(efficacy, spike).count == 4


@pytest.mark.parametrize(
    ("efficacy", "spike", "count"), [([], [], 0), ([1, 2], [1, 4], 2), ([3, 3, 3], [1, 2, 3], 3)]
)
def test_no_slope(efficacy, spike, count):
    np.testing.assert_equal(log_slope(efficacy, spike), Slope(np.nan, np.nan, np.nan, count))
    with pytest.raises(UserError, match="not m numbers each"):
        log_slope([1.0, 2.0], [1.0])
