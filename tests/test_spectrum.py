"""The input Hessian of a network against the dense one."""

import functools
import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch, network

from poison_jax import lanczos, spectrum
from poison_jax.errors import UserError
from poison_jax.losses import cross_entropy
from poison_jax.mesh import make_mesh, replicate
from poison_jax.spectrum import input_hessian

KEY = jax.random.key(3)


def dense(apply_fn, variables, images, labels):
    shape = images.shape[1:]

    def f(delta):
        return cross_entropy(apply_fn)(variables, images + delta.reshape(shape), labels).mean()

    return jax.jit(jax.hessian(f))(jnp.zeros(int(np.prod(shape)), images.dtype))


@functools.cache
def dense_of_network():
    model, variables = network(dtype="float64")
    return np.asarray(dense(model.apply, variables, *batch(11, dtype=np.float64)))


def check_all_eigenpairs(apply_fn, variables, H, python_loop, batch_size):
    """Eleven images: batches of 4 leave a ragged one of 3; 64 exceeds them."""
    options = {"k": 36, "num_iters": 36, "key": KEY, "batch_size": batch_size, "python_loop": python_loop}
    pairs = input_hessian(apply_fn, variables, *batch(11, dtype=np.float64), **options)
    scale = np.abs(H).max()
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(H)[::-1], atol=1e-9 * scale)
    np.testing.assert_allclose(pairs.vectors @ H, pairs.vectors * pairs.values[:, None], atol=1e-8 * scale)
    np.testing.assert_allclose(pairs.smallest_value, np.linalg.eigvalsh(H)[0], atol=1e-9 * scale)
    assert pairs.smallest_value < 0 < pairs.values[0]


@pytest.mark.parametrize("batch_size", [4, 64])
def test_all_eigenpairs_equal_the_dense_hessians(batch_size, x64):
    """A network with batch norm, at running statistics."""
    model, variables = network(dtype="float64")
    check_all_eigenpairs(model.apply, variables, dense_of_network(), True, batch_size)


SMALL = (3, 3, 1)


def two_layers(variables, images):
    return jnp.tanh(images.reshape(len(images), -1) @ variables["in"]) @ variables["out"]


def toy_weights(dtype=np.float64, pixels=9):
    rng = np.random.default_rng(0)
    shapes = {"in": (pixels, 20), "out": (20, 3)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def softmax_layer(W, images):
    return images.reshape(len(images), -1) @ W


@pytest.mark.parametrize("python_loop", [True, False])
def test_the_compiled_loop_does_the_same(python_loop, x64):
    variables = toy_weights(pixels=36)
    H = np.asarray(dense(two_layers, variables, *batch(11, dtype=np.float64)))
    check_all_eigenpairs(two_layers, variables, H, python_loop, 4)


def test_float32_agrees_with_float64(x64):
    images, labels = batch(8, dtype=np.float64)
    values = {}
    for dtype in ("float32", "float64"):
        model, _ = network(dtype=dtype)
        real = np.dtype(dtype)
        variables = jax.tree.map(lambda leaf, real=real: jnp.asarray(leaf, real), network(dtype="float64")[1])
        options = {"k": 3, "num_iters": 20, "key": KEY, "batch_size": 4}
        values[dtype] = input_hessian(model.apply, variables, images.astype(real), labels, **options).values
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-3)


@pytest.mark.parametrize(("count", "k"), [(7, 4), (1, 5)])
def test_closed_form_of_a_linear_softmax(count, k, x64):
    """Hess_x L_i = W (diag p_i - p_i p_i') W', of rank 2; any function of variables and images will do."""
    W = np.random.default_rng(0).standard_normal((9, 3))
    images, labels = batch(count, dtype=np.float64, shape=SMALL)
    p = jax.nn.softmax(softmax_layer(W, images))
    H = np.mean([W @ (np.diag(q) - np.outer(q, q)) @ W.T for q in p], axis=0)
    pairs = input_hessian(softmax_layer, W, images, labels, k=k, key=KEY, batch_size=3)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(H)[::-1][:k], atol=1e-12)
    with pytest.raises(UserError, match="num_iters"):  # more pairs than pixels
        input_hessian(softmax_layer, W, images, labels, k=10)


def test_a_second_start_finds_a_repeated_eigenvalue(x64):
    """Two logits, half of them zero: at a black image the Hessian is diagonal, its top eigenvalue double."""
    weights = np.r_[3.0, 3.0, 2.0, np.linspace(0, 1, 33)]

    def apply(weights, images):
        squares = images.reshape(len(images), -1) ** 2 @ weights
        return jnp.stack([squares, jnp.zeros_like(squares)], -1)

    images, options = np.zeros((2, 6, 6, 1)), {"k": 2, "num_iters": 12, "key": KEY, "batch_size": 2}
    for starts, values in ((1, [3, 2]), (2, [3, 3])):
        pairs = input_hessian(apply, weights, images, np.ones(2, int), starts=starts, **options)
        np.testing.assert_allclose(pairs.values, values, rtol=1e-6)


@pytest.mark.parametrize("python_loop", [True, False])
def test_a_mesh_changes_nothing(python_loop, x64):
    variables = toy_weights(pixels=36)
    images, labels = batch(19, dtype=np.float64)
    options = {"k": 4, "num_iters": 12, "key": KEY, "batch_size": 8, "python_loop": python_loop}
    mesh = make_mesh()
    assert mesh.size == 8
    alone = input_hessian(two_layers, variables, images, labels, **options)
    spread = input_hessian(two_layers, replicate(variables, mesh), images, labels, mesh=mesh, **options)
    np.testing.assert_allclose(alone.values, spread.values, rtol=1e-9)
    np.testing.assert_allclose(alone.vectors, spread.vectors, atol=1e-6)


@pytest.mark.parametrize(("memory", "compiled"), [(0, (1, 0, 0)), (2**31, (0, 1, 1))])
def test_compiles_once_for_many_networks(memory, compiled):
    def apply(variables, images):
        return two_layers(variables, images)

    images, labels = batch(8, shape=SMALL)
    functions = spectrum._batch_product, spectrum._linearise, spectrum._apply
    products = []
    before = [function._cache_size() for function in functions]
    for scale in (1.0, 1.1):
        scaled = jax.tree.map(lambda leaf, s=scale: leaf * np.float32(s), toy_weights(np.float32))
        options = {"on_product": lambda: products.append(1), "memory": memory, "key": KEY, "batch_size": 4}
        input_hessian(apply, scaled, images, labels, k=2, num_iters=5, **options)
    after = [function._cache_size() for function in functions]
    assert tuple(np.subtract(after, before)) == compiled
    assert len(products) == 2 * (5 + 2 + 1)


def test_memory_changes_nothing(x64):
    """None, one or all of five batches linearised, the last of them ragged."""
    variables = toy_weights(pixels=36)
    images, labels = batch(19, dtype=np.float64)
    parts = list(zip(*spectrum._weighted(images, labels, 4), strict=True))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(spectrum._linearise(two_layers, variables, parts[0])))
    found = []
    for memory, kept in ((0, 0), (1.5 * size, 1), (5 * size, 5)):
        products = spectrum._batch_products(two_layers, variables, parts, memory)
        assert sum(product.func is spectrum._apply for product in products) == kept
        options = {"k": 3, "num_iters": 8, "key": KEY, "batch_size": 4, "python_loop": True}
        found.append(input_hessian(two_layers, variables, images, labels, memory=memory, **options))
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, rtol=1e-10)
        np.testing.assert_allclose(other.vectors, found[0].vectors, atol=1e-7)


@pytest.mark.parametrize("python_loop", [True, False])
def test_the_images_are_on_the_devices_once(python_loop, monkeypatch):
    (images, labels), variables, grown = batch(32), toy_weights(np.float32, pixels=36), []

    def held():
        return sum(array.nbytes for array in jax.live_arrays())

    monkeypatch.setattr(spectrum, "top_eigenpairs", lambda *_, **__: grown.append(held() - before))
    gc.collect()
    before = held()
    options = {"k": 1, "batch_size": 8, "memory": 0, "python_loop": python_loop}
    input_hessian(two_layers, variables, images, labels, **options)
    assert images.nbytes <= grown[0] < 1.5 * images.nbytes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(3, int)}, "N labels"),
        ({"labels": np.arange(8) % 4}, "labels run from 0 to 3, the 3 classes from 0 to 2"),
        ({"images": np.zeros((0, 6, 6, 1), np.float32), "labels": np.zeros(0, int)}, "at least one"),
        ({"batch_size": 0}, "at least 1"),
        ({"images": np.zeros((8, 6, 6, 1), np.uint8)}, "uint8: scale and normalise"),
        ({"k": 6}, "raise num_iters"),
        ({"num_iters": 37}, "exceeds the dimension 36"),
        ({"images": np.full((8, 6, 6, 1), np.nan, np.float32)}, "not finite"),
        ({"mesh": "all", "batch_size": 12}, "multiple of the mesh"),
    ],
)
def test_bad_input(change, says):
    images, labels = batch(8)
    arguments = {"images": images, "labels": labels, "k": 2, "num_iters": 5, "batch_size": 8} | change
    if change.get("mesh"):
        arguments["mesh"] = make_mesh()
    with pytest.raises(UserError, match=says):
        input_hessian(two_layers, toy_weights(np.float32, 36), **arguments)


def test_defaults(x64):
    """2 k + 20 steps (or as many as pixels), batches of 128, key 0, an integer or a key."""
    variables = toy_weights(pixels=36)
    images, labels = batch(11, dtype=np.float64)
    steps = []
    pairs = input_hessian(two_layers, variables, images, labels, k=2, on_product=lambda: steps.append(1))
    assert len(steps) == 24 + 2 + 1
    for key in (0, np.int64(0), jax.random.key(0)):
        options = {"k": 2, "num_iters": 24, "key": key, "batch_size": 128}
        explicit = input_hessian(two_layers, variables, images, labels, **options)
        np.testing.assert_array_equal(pairs.vectors, explicit.vectors)
    assert len(input_hessian(two_layers, variables, images, labels, k=36).values) == 36
    spread = input_hessian(two_layers, variables, images, labels, k=2, mesh=make_mesh())
    np.testing.assert_allclose(spread.values, pairs.values, rtol=1e-9)


def test_a_leaf_that_is_no_array_is_named():
    images, labels = batch(8, shape=SMALL)
    kinds = "PjitFunction|function|jit", "str", "ndarray"
    for leaf, kind in zip((jnp.tanh, "tanh", np.array(["x"])), kinds, strict=True):
        variables = toy_weights(np.float32) | {"nested": [1.0, {"act": leaf}]}
        said = rf"variables\['nested'\]\[1\]\['act'\] is of type ({kind}), no array"
        with pytest.raises(UserError, match=said):
            input_hessian(two_layers, variables, images, labels, k=1, num_iters=2)


def test_logits_of_another_shape():
    images, labels = batch(8, shape=SMALL)
    for shape in ((8,), (1, 3), (8, 1, 3)):
        with pytest.raises(UserError, match=re.escape(f"logits {shape} of 8 images")):
            input_hessian(lambda v, x, s=shape: jnp.zeros(s), {}, images, labels, k=1, num_iters=2)


def test_a_network_of_one_class_has_no_curvature():
    """Its softmax is 1 whatever the image."""
    images, labels = batch(5, shape=SMALL, num_classes=1)
    one = toy_weights(np.float32) | {"out": np.ones((20, 1), np.float32)}
    pairs = input_hessian(two_layers, one, images, labels, k=2, num_iters=4)
    np.testing.assert_array_equal(pairs.values, 0)


def test_a_train_mode_network_depends_on_the_batch(x64):
    """As the docstring says; the same network on images one by one does not."""
    images, labels = batch(8, dtype=np.float64, shape=SMALL)

    def train_mode(variables, images):
        return two_layers(variables, images / jnp.sqrt((images**2).mean(0)))

    def top(apply_fn, batch_size):
        options = {"k": 1, "num_iters": 9, "batch_size": batch_size}
        return input_hessian(apply_fn, toy_weights(), images, labels, **options).values[0]

    assert abs(top(train_mode, 4) / top(train_mode, 8) - 1) > 0.01
    np.testing.assert_allclose(top(two_layers, 4), top(two_layers, 8), rtol=1e-9)


def direction_only(variables, images):
    """Not finite at an image of zeros."""
    flat = images.reshape(len(images), -1)
    return two_layers(variables, flat / jnp.linalg.norm(flat, axis=1, keepdims=True))


@pytest.mark.parametrize("python_loop", [True, False])
def test_what_fills_up_a_batch_need_not_be_harmless(python_loop, x64):
    """Zeros of weight zero would make NaN of everything where the network divides by an image's norm."""
    images, labels = batch(7, dtype=np.float64, shape=SMALL)
    options = {"k": 3, "num_iters": 9, "python_loop": python_loop}
    ragged = input_hessian(direction_only, toy_weights(), images, labels, batch_size=4, **options)
    whole = input_hessian(direction_only, toy_weights(), images, labels, batch_size=7, **options)
    np.testing.assert_allclose(ragged.values, whole.values, rtol=1e-9)


@pytest.mark.parametrize("python_loop", [True, False])
@pytest.mark.parametrize("devices", [1, 8])
def test_the_hessian_is_the_mean_of_the_classes_weighted_by_size(python_loop, devices, x64):
    """All their eigenpairs, put together again; 19 images in classes of unequal sizes, one without images."""
    images, _ = batch(19, dtype=np.float64, shape=SMALL)
    labels = np.repeat([0, 2, 1], [3, 11, 5])
    mesh = make_mesh() if devices > 1 else None
    variables = toy_weights() if mesh is None else replicate(toy_weights(), mesh)
    options = {"key": KEY, "batch_size": 8, "mesh": mesh, "python_loop": python_loop}
    pairs = spectrum.per_class(two_layers, variables, images, labels, 4, k=9, num_iters=9, **options)
    hessians = np.einsum("kai,ka,kaj->kij", pairs.vectors, pairs.values, pairs.vectors)
    H = np.asarray(dense(two_layers, toy_weights(), images, labels))
    np.testing.assert_allclose(np.einsum("k,kij->ij", [3, 5, 11], hessians[:3]) / 19, H, atol=1e-9)
    assert pairs.values.shape == pairs.residuals.shape == (4, 9)
    assert pairs.smallest_value.shape == pairs.smallest_residual.shape == (4,)
    assert all(np.isnan(part[3]).all() for part in pairs)
    own = labels == 1
    alone = input_hessian(two_layers, variables, images[own], labels[own], k=3, num_iters=9, **options)
    np.testing.assert_allclose(pairs.values[1][:3], alone.values, rtol=1e-9)


@pytest.mark.parametrize("python_loop", [True, False])
@pytest.mark.parametrize(("scale", "sure"), [(1, False), (30, True)])
def test_a_network_too_sure_for_its_precision(scale, sure, python_loop):
    """p = 1 in float32: the products are rounding, not even symmetric, and the residual shows it."""

    def apply(scale, images):
        return scale * two_layers(toy_weights(np.float32), images)

    image, _ = batch(1, shape=SMALL)
    label = np.asarray(apply(1, image)).argmax(1)
    options = {"k": 1, "num_iters": 9, "key": KEY, "batch_size": 1, "python_loop": python_loop}
    pairs = input_hessian(apply, np.float32(scale), image, label, **options)
    assert (pairs.residuals[0] >= 0.01 * abs(pairs.values[0])) == sure


@pytest.mark.parametrize("python_loop", [True, False])
def test_one_compilation_serves_all_classes(python_loop):
    def apply(variables, images):
        return two_layers(variables, images)

    images, _ = batch(40, shape=SMALL)
    labels = np.repeat([0, 1, 2], [3, 10, 27])
    functions = spectrum._linearise, spectrum._apply, lanczos._compiled_loop
    before = [function._cache_size() for function in functions]
    products = []
    options = {"python_loop": python_loop, "on_product": lambda: products.append(1), "batch_size": 4}
    variables = toy_weights(np.float32)
    pairs = spectrum.per_class(apply, variables, images, labels, 3, k=2, num_iters=5, key=KEY, **options)
    assert np.isfinite(pairs.values).all()
    after = [function._cache_size() for function in functions]
    assert tuple(np.subtract(after, before)) == ((1, 1, 0) if python_loop else (0, 0, 1))
    assert len(products) == (3 * (5 + 2 + 1) if python_loop else 0)


def test_labels_that_are_no_classes():
    images, labels = batch(8, shape=SMALL)
    for wrong in (labels + 3, labels - 3):
        with pytest.raises(UserError, match="the 3 classes from 0 to 2"):
            spectrum.per_class(two_layers, toy_weights(), images, wrong, 3, k=1, num_iters=2)
