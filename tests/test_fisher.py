"""The input Fisher against dense oracles, the training penalty and Bartlett's identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch, network

from poison_jax import fisher, losses, spectrum
from poison_jax.errors import UserError
from poison_jax.mesh import make_mesh, replicate

KEY = jax.random.key(3)


def dense(apply_fn, variables, images, labels):
    """Gradients `[N, d]` one example at a time, and F."""

    def loss(image, label):
        out = apply_fn(variables, image[None])
        logits = out[0] if isinstance(out, tuple) else out
        return -jax.nn.log_softmax(logits[0])[label]

    gradients = jax.jit(jax.vmap(jax.grad(loss)))(images, jnp.asarray(labels))
    gradients = np.asarray(gradients).reshape(len(images), -1)
    return gradients, gradients.T @ gradients / len(images)


def two_layers(variables, images):
    hidden = jnp.tanh(images.reshape(len(images), -1) @ variables["in"] + variables["shift"])
    return hidden @ variables["out"] + variables["bias"]


def weights(dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = {"in": (36, 20), "shift": 20, "out": (20, 3), "bias": 3}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def test_a_network_against_the_dense_fisher(x64):
    """Batch norm at running statistics; eleven images: batches of 4 leave a ragged one."""
    model, variables = network(dtype="float64")
    images, labels = batch(11, dtype=np.float64)
    gradients, F = dense(model.apply, variables, images, labels)
    scale = np.abs(F).max()
    found = fisher.input_gradients(model.apply, variables, images, labels, batch_size=4)
    assert found.shape == (11, 36)
    np.testing.assert_allclose(found, gradients, atol=1e-12 * np.abs(gradients).max())
    options = {"k": 36, "num_iters": 36, "key": KEY, "batch_size": 4}
    pairs = fisher.input_fisher(model.apply, variables, images, labels, **options)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(F)[::-1], atol=1e-10 * scale)
    np.testing.assert_allclose(pairs.vectors @ F, pairs.vectors * pairs.values[:, None], atol=1e-9 * scale)
    assert np.abs(pairs.values[11:]).max() < 1e-10 * scale < pairs.values[0]  # its rank is at most 11


def test_float32_agrees_with_the_dense_fisher_in_float64(x64):
    images, labels = batch(40, dtype=np.float64)
    _, F = dense(two_layers, weights(), images, labels)
    single = jax.tree.map(np.float32, weights())
    options = {"k": 3, "num_iters": 20, "key": KEY, "batch_size": 16}
    pairs = fisher.input_fisher(two_layers, single, images.astype(np.float32), labels, **options)
    eps = np.finfo(np.float32).eps
    values, vectors = np.linalg.eigh(F)
    assert pairs.values.dtype == pairs.vectors.dtype == np.float32
    np.testing.assert_allclose(pairs.values, values[::-1][:3], rtol=100 * eps)
    assert pairs.residuals.max() < 100 * eps * values[-1]
    np.testing.assert_allclose(np.abs(pairs.vectors[0] @ vectors[:, -1]), 1, rtol=100 * eps)


def test_bartletts_identity(x64):
    """Averaged over labels drawn from the network's own p(y|x), Fisher and Hessian are the same matrix."""
    variables, p = weights(), np.array([0.5, 0.25, 0.25])
    variables["bias"] = np.log(p) - np.tanh(variables["shift"]) @ variables["out"]
    images, labels = np.zeros((4, 6, 6, 1)), np.array([0, 0, 1, 2])
    options = {"k": 4, "num_iters": 12, "key": KEY, "batch_size": 4}
    of_fisher = fisher.input_fisher(two_layers, variables, images, labels, **options)
    of_hessian = spectrum.input_hessian(two_layers, variables, images, labels, **options)
    np.testing.assert_allclose(of_fisher.values, of_hessian.values, atol=1e-12 * of_hessian.values[0])
    np.testing.assert_allclose(of_fisher.vectors[:2], of_hessian.vectors[:2], atol=1e-10)
    assert of_hessian.values[1] > 0.01 * of_hessian.values[0]


@pytest.mark.parametrize(("reduction", "factor"), [("per_example", 1), ("eq25", 1 / 2), ("listing", 1 / 4)])
def test_the_penalty_is_kappa_times_the_trace(reduction, factor, x64):
    """Eq. 34, in batches of 4, for a network whose examples do not see each other (frozen statistics)."""
    images, labels = batch(12, dtype=np.float64)
    objective = losses.gradient_penalised(losses.cross_entropy(two_layers), 3.0, reduction=reduction)
    parts = ((jnp.asarray(images[i : i + 4]), labels[i : i + 4]) for i in range(0, 12, 4))
    penalty = np.mean([objective.with_terms(weights(), *part)[1].penalty for part in parts])
    gradients = fisher.input_gradients(two_layers, weights(), images, labels, batch_size=5)
    np.testing.assert_allclose(penalty, 3 * factor * fisher.trace(gradients), rtol=1e-12)


def test_energies_are_quadratic_forms(x64):
    images, labels = batch(9, dtype=np.float64)
    gradients, F = dense(two_layers, weights(), images, labels)
    directions = np.random.default_rng(1).standard_normal((4, 36))
    directions[2] = 0
    found = fisher.energies(jnp.asarray(gradients), directions)
    rest = directions[[0, 1, 3]]
    expected = np.einsum("mi,ij,mj->m", rest, F, rest) / np.sum(rest**2, axis=1)
    np.testing.assert_allclose(found[[0, 1, 3]], expected, rtol=1e-12)
    assert np.isnan(found[2])
    np.testing.assert_allclose(fisher.energies(gradients, 5 * directions), found, rtol=1e-12)
    axes = fisher.energies(gradients, np.eye(36))
    np.testing.assert_allclose([axes.sum(), np.trace(F)], fisher.trace(gradients), rtol=1e-12)
    pairs = fisher.input_fisher(
        two_layers, weights(), images, labels, k=2, num_iters=36, key=KEY, batch_size=9
    )
    np.testing.assert_allclose(fisher.energies(gradients, pairs.vectors), pairs.values, rtol=1e-10)


def test_a_mesh_changes_nothing(x64):
    images, labels = batch(19, dtype=np.float64)
    mesh = make_mesh()
    assert mesh.size == 8
    spread = replicate(weights(), mesh)
    options = {"k": 4, "num_iters": 12, "key": KEY, "batch_size": 8}
    alone = fisher.input_fisher(two_layers, weights(), images, labels, **options)
    together = fisher.input_fisher(two_layers, spread, images, labels, mesh=mesh, **options)
    np.testing.assert_allclose(alone.values, together.values, rtol=1e-12)
    np.testing.assert_allclose(alone.vectors, together.vectors, atol=1e-9)


def test_defaults_are_those_of_the_hessian(x64):
    images, labels = batch(11, dtype=np.float64)
    pairs = fisher.input_fisher(two_layers, weights(), images, labels, k=2)
    explicit = fisher.input_fisher(
        two_layers, weights(), images, labels, k=2, num_iters=24, key=jax.random.key(0), batch_size=11
    )
    np.testing.assert_array_equal(pairs.values, explicit.values)


def flat(variables, images):
    return jnp.zeros((len(images), 3)) + 0 * images.sum()


def test_a_network_without_gradients():
    """Constant logits; a single class, whose softmax is 1 whatever the image."""
    images, labels = batch(5)
    one = weights(np.float32) | {"out": np.ones((20, 1), np.float32), "bias": np.zeros(1, np.float32)}
    assert fisher.trace(fisher.input_gradients(two_layers, one, images, 0 * labels, batch_size=2)) == 0
    gradients = fisher.input_gradients(flat, {}, images, labels, batch_size=2)
    assert fisher.trace(gradients) == 0
    np.testing.assert_array_equal(fisher.energies(gradients, np.eye(36)[:2]), 0)
    pairs = fisher.input_fisher(flat, {}, images, labels, k=3, num_iters=6, key=KEY, batch_size=2)
    np.testing.assert_array_equal(pairs.values, 0)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3), atol=1e-6)


def test_compiles_once_for_many_networks_and_image_counts():
    before = fisher._batch_gradients._cache_size()
    for count, scale in ((8, 1.0), (7, 1.1), (13, 1.2)):
        scaled = jax.tree.map(lambda leaf, s=scale: np.float32(s * leaf), weights())
        fisher.input_gradients(two_layers, scaled, *batch(count), batch_size=4)
    assert fisher._batch_gradients._cache_size() == before + 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fisher.energies(np.ones((3, 4)), np.ones((2, 5))), "do not fit"),
        (lambda: fisher.energies(np.ones((3, 4)), np.ones(4)), "do not fit"),
        (lambda: run(labels=np.arange(8) % 4), "labels run from 0 to 3, the 3 classes from 0 to 2"),
        (lambda: run(images=np.full((8, 6, 6, 1), np.nan, np.float32)), "not finite"),
        (lambda: run(mesh=make_mesh(), batch_size=12), "multiple of the mesh"),
        (lambda: run(k=6), "raise num_iters"),
        (lambda: run(num_iters=37), "exceeds the dimension 36"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(UserError, match=says):
        call()


def run(**changes):
    images, labels = batch(8)
    arguments = {"images": images, "labels": labels, "k": 2, "num_iters": 5, "batch_size": 8} | changes
    return fisher.input_fisher(two_layers, weights(np.float32), key=KEY, **arguments)


# --- how many images a test needs -----------------------------------------------------------------


def sampled_overlap(eigenvalue, background, images, draws):
    """Squared overlap of the mean outer product's top eigenvector with the poison's, its mean and error."""
    scale, found = np.sqrt(np.r_[eigenvalue, background]), []
    for seed in range(draws):
        gradients = np.random.default_rng(seed).normal(size=(images, len(scale))) * scale
        found.append(np.linalg.eigh(gradients.T @ gradients)[1][0, -1] ** 2)
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(draws)


@pytest.mark.parametrize(("eigenvalue", "multiple"), [(1.5, 60), (3.0, 150)])
def test_the_overlap_expected_of_a_sample(eigenvalue, multiple):
    """Theorem F within 4.5 standard errors; these are so small that a law off by 1% fails."""
    background = np.r_[np.linspace(0.1, 1, 40), np.zeros(3)]
    images = int(multiple * fisher.images_needed(eigenvalue, background))
    mean, error = sampled_overlap(eigenvalue, background, images, 80)
    law = fisher.expected_overlap(eigenvalue, background, images)
    assert error < 0.01 * law / 4.5
    assert abs(mean - law) < 4.5 * error


def test_what_too_few_images_show():
    background = np.linspace(0.1, 1, 60)
    needed = fisher.images_needed(1.5, background)
    assert sampled_overlap(1.5, background, int(needed / 8), 10)[0] < 0.1
    np.testing.assert_array_equal(fisher.expected_overlap(1.5, background, needed * np.array([0.1, 1])), 0)
    assert fisher.images_needed(1.0, background) == np.inf  # the background reaches it
    assert fisher.expected_overlap(0.9, background, 1e9) == 0
    assert sampled_overlap(0.9, background, 4000, 3)[0] < 0.1


def test_images_needed_by_the_slope_of_the_sample_eigenvalue():
    """psi(alpha) = alpha (1 + sum_j lambda_j / (alpha - lambda_j) / N): psi' by differences."""
    background, alpha, images, step = np.random.default_rng(0).uniform(0, 1, 30), 1.7, 200.0, 1e-6

    def psi(a):
        return a * (1 + np.sum(background / (a - background)) / images)

    slope = (psi(alpha + step) - psi(alpha - step)) / (2 * step)
    assert 1 - fisher.images_needed(alpha, background) / images == pytest.approx(slope, rel=1e-6)
    expected = alpha * slope / psi(alpha)
    assert fisher.expected_overlap(alpha, background, images) == pytest.approx(expected, rel=1e-6)


def test_the_sampling_constant():
    """1 - C / N by samples of heavy-tailed matrices; and the Gaussian value that theory gives."""
    rng = np.random.default_rng(0)
    scale = np.sqrt(np.r_[4.0, np.linspace(0.5, 1.5, 9)])
    gradients = rng.normal(size=(20_000, 10)) * scale
    outer = np.einsum("ni,nj->nij", gradients, gradients)
    assert fisher.sampling_constant(outer) == pytest.approx(
        np.sum(4 * scale[1:] ** 2 / (4 - scale[1:] ** 2) ** 2), rel=0.05
    )
    heavy = outer[:2000] * rng.exponential(size=(2000, 1, 1)) ** 2
    top, constant, images = np.linalg.eigh(heavy.mean(0))[1][:, -1], fisher.sampling_constant(heavy), 1000
    lost = [
        1 - (np.linalg.eigh(heavy[rng.integers(2000, size=images)].mean(0))[1][:, -1] @ top) ** 2
        for _ in range(400)
    ]
    assert np.mean(lost) == pytest.approx(constant / images, rel=0.15)
    assert constant > 3 * fisher.sampling_constant(outer)
    assert fisher.sampling_constant(np.eye(3)[None]) == np.inf
    assert fisher.sampling_constant(np.ones((4, 1, 1))) == 0


def test_a_mean_shows_what_a_variance_does_not():
    """Theorem G's threshold: the statistic's clean deviation, and its mean at three of them."""
    background, images = np.linspace(0.2, 2, 40), 25
    shift = float(fisher.visible_mean(background, images))
    rng = np.random.default_rng(0)
    means = rng.normal(size=(60_000, 40)) * np.sqrt(background / images)  # of the images' gradients
    clean = np.sum(means**2, 1) - background.sum() / images
    assert clean.std() == pytest.approx(shift / 3, rel=0.02)
    means[:, 3] += np.sqrt(shift)
    assert np.mean(np.sum(means**2, 1)) - background.sum() / images == pytest.approx(shift, rel=0.02)
    assert fisher.visible_mean(background, 4 * images, deviations=6) == pytest.approx(shift / 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fisher.images_needed(0.0, np.ones(3)), "eigenvalue = 0.0"),
        (lambda: fisher.images_needed(1.0, np.array([0.5, -0.1])), "background has an eigenvalue of -0.1"),
        (lambda: fisher.expected_overlap(2.0, np.ones(3), 0), "images = 0"),
        (lambda: fisher.visible_mean(np.ones(3), np.array([4, -1])), "images = -1"),
        (lambda: fisher.images_needed(1.0, np.ones((2, 2))), "background is"),
    ],
)
def test_no_threshold_without_a_spectrum(call, says):
    with pytest.raises(UserError, match=says):
        call()
