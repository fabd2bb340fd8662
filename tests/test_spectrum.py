"""The input Hessian of a network against the dense one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch, network

from poison_jax import spectrum, train
from poison_jax.errors import UserError
from poison_jax.losses import cross_entropy
from poison_jax.spectrum import input_hessian

KEY = jax.random.key(3)


def dense(apply_fn, variables, images, labels):
    shape = images.shape[1:]

    def f(delta):
        return cross_entropy(apply_fn)(variables, images + delta.reshape(shape), labels).mean()

    return jax.jit(jax.hessian(f))(jnp.zeros(int(np.prod(shape)), images.dtype))


def check_all_eigenpairs(apply_fn, variables, python_loop, batch_size):
    """Eleven images: batches of 4 leave a ragged one of 3; 64 exceeds them."""
    images, labels = batch(11, dtype=np.float64)
    H = np.asarray(dense(apply_fn, variables, images, labels))
    pairs = input_hessian(
        apply_fn,
        variables,
        images,
        labels,
        k=36,
        num_iters=36,
        key=KEY,
        batch_size=batch_size,
        python_loop=python_loop,
    )
    scale = np.abs(H).max()
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(H)[::-1], atol=1e-9 * scale)
    np.testing.assert_allclose(pairs.vectors @ H, pairs.vectors * pairs.values[:, None], atol=1e-8 * scale)
    np.testing.assert_allclose(pairs.smallest_value, np.linalg.eigvalsh(H)[0], atol=1e-9 * scale)
    assert pairs.smallest_value < 0 < pairs.values[0]


@pytest.mark.parametrize("batch_size", [4, 11, 64])
def test_all_eigenpairs_equal_the_dense_hessians(batch_size, x64):
    """A network with batch norm, at running statistics."""
    model, variables = network(dtype="float64")
    check_all_eigenpairs(model.apply, variables, True, batch_size)


def two_layers(variables, images):
    return jnp.tanh(images.reshape(len(images), -1) @ variables["in"]) @ variables["out"]


@pytest.mark.parametrize("python_loop", [True, False])
def test_the_compiled_loop_does_the_same(python_loop, x64):
    rng = np.random.default_rng(0)
    variables = {"in": rng.standard_normal((36, 20)), "out": rng.standard_normal((20, 3))}
    check_all_eigenpairs(two_layers, variables, python_loop, 4)


def test_float32_agrees_with_float64(x64):
    images, labels = batch(8, dtype=np.float64)
    values = {}
    for dtype in ("float32", "float64"):
        model, variables = network(dtype=dtype)
        real = np.dtype(dtype)
        variables = jax.tree.map(lambda leaf, real=real: jnp.asarray(leaf, real), network(dtype="float64")[1])
        values[dtype] = input_hessian(
            model.apply, variables, images.astype(real), labels, k=3, num_iters=20, key=KEY, batch_size=8
        ).values
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-3)


def test_closed_form_of_a_linear_softmax(x64):
    """Hess_x L_i = W (diag p_i - p_i p_i') W'; any function of variables and images will do."""
    W = np.random.default_rng(0).standard_normal((36, 3))
    images, labels = batch(7, dtype=np.float64)

    def apply(W, images):
        return images.reshape(len(images), -1) @ W

    p = jax.nn.softmax(apply(W, images))
    H = np.mean([W @ (np.diag(q) - np.outer(q, q)) @ W.T for q in p], axis=0)
    pairs = input_hessian(apply, W, images, labels, k=4, num_iters=10, key=KEY, batch_size=3)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(H)[::-1][:4], atol=1e-12)


@pytest.mark.parametrize("python_loop", [True, False])
def test_a_mesh_changes_nothing(python_loop, x64):
    rng = np.random.default_rng(0)
    variables = {"in": rng.standard_normal((36, 20)), "out": rng.standard_normal((20, 3))}
    images, labels = batch(19, dtype=np.float64)
    options = {"k": 4, "num_iters": 12, "key": KEY, "batch_size": 8, "python_loop": python_loop}
    mesh = train.make_mesh()
    assert mesh.size == 8
    alone = input_hessian(two_layers, variables, images, labels, **options)
    spread = input_hessian(two_layers, train.replicate(variables, mesh), images, labels, mesh=mesh, **options)
    np.testing.assert_allclose(alone.values, spread.values, rtol=1e-9)
    np.testing.assert_allclose(alone.vectors, spread.vectors, atol=1e-6)


@pytest.mark.parametrize(("memory", "compiled"), [(0, (1, 0, 0)), (2**31, (0, 1, 1))])
def test_compiles_once_for_many_networks(memory, compiled):
    model, variables = network()
    images, labels = batch(8)
    functions = spectrum._batch_product, spectrum._linearise, spectrum._apply
    products = []
    before = [function._cache_size() for function in functions]
    for scale in (1.0, 1.1):
        scaled = jax.tree.map(lambda leaf, s=scale: leaf * s, variables)
        input_hessian(
            model.apply,
            scaled,
            images,
            labels,
            k=2,
            num_iters=5,
            key=KEY,
            batch_size=4,
            on_product=lambda: products.append(1),
            memory=memory,
        )
    after = [function._cache_size() for function in functions]
    assert tuple(np.subtract(after, before)) == compiled
    assert len(products) == 2 * (5 + 2 + 1)


def test_memory_changes_nothing(x64):
    """None, one or all of five batches linearised, the last of them ragged."""
    rng = np.random.default_rng(0)
    variables = {"in": rng.standard_normal((36, 20)), "out": rng.standard_normal((20, 3))}
    images, labels = batch(19, dtype=np.float64)
    batches = list(zip(*spectrum._batches(images, labels, 4, None), strict=True))
    size = sum(
        leaf.nbytes for leaf in jax.tree.leaves(spectrum._linearise(two_layers, variables, batches[0]))
    )
    found = []
    for memory, kept in ((0, 0), (1.5 * size, 1), (5 * size, 5)):
        products = spectrum._batch_products(two_layers, variables, batches, memory)
        assert sum(product.func is spectrum._apply for product in products) == kept
        options = {"k": 3, "num_iters": 8, "key": KEY, "batch_size": 4, "python_loop": True}
        found.append(input_hessian(two_layers, variables, images, labels, memory=memory, **options))
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, rtol=1e-10)
        np.testing.assert_allclose(other.vectors, found[0].vectors, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(3, int)}, "N labels"),
        ({"images": np.zeros((0, 6, 6, 1), np.float32), "labels": np.zeros(0, int)}, "N labels"),
        ({"images": np.zeros((8, 6, 6, 1), np.uint8)}, "uint8: scale and normalise"),
        ({"k": 6}, "raise num_iters"),
        ({"num_iters": 37}, "exceeds the dimension 36"),
        ({"images": np.full((8, 6, 6, 1), np.nan, np.float32)}, "not finite"),
        ({"mesh": "all", "batch_size": 12}, "multiple of the mesh"),
    ],
)
def test_bad_input(change, says):
    model, variables = network()
    images, labels = batch(8)
    arguments = {"images": images, "labels": labels, "k": 2, "num_iters": 5, "batch_size": 8} | change
    if change.get("mesh"):
        arguments["mesh"] = train.make_mesh()
    with pytest.raises(UserError, match=says):
        input_hessian(
            model.apply, variables, arguments.pop("images"), arguments.pop("labels"), key=KEY, **arguments
        )
