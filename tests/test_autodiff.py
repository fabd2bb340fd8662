"""Hessian-vector products and input gradients against dense derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
from toys import batch, network

from poison_jax.autodiff import hvp, value_and_input_gradient
from poison_jax.losses import cross_entropy


def test_hvp_of_a_quadratic_is_exact(x64):
    A = np.random.default_rng(0).standard_normal((7, 7))
    A = A + A.T
    x, v = np.random.default_rng(1).standard_normal((2, 7))
    np.testing.assert_allclose(hvp(lambda x: 0.5 * x @ A @ x, x, v), A @ v, rtol=1e-14)


def test_hvp_takes_pytrees(x64):
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    out = hvp(lambda t: t["b"] * (t["a"] ** 2).sum(), x, {"a": jnp.array([1.0, 0.0]), "b": jnp.array(1.0)})
    np.testing.assert_allclose(out["a"], [6 + 2, 4])
    np.testing.assert_allclose(out["b"], 2)


def test_hvp_of_a_network_equals_its_dense_hessian(x64):
    model, variables = network(dtype="float64")
    images, labels = batch(5, dtype=np.float64)

    def f(delta):
        return cross_entropy(model.apply)(variables, images + delta.reshape(6, 6, 1), labels).mean()

    dense = jax.jit(jax.hessian(f))(jnp.zeros(36))
    v = jax.random.normal(jax.random.key(0), (36,))
    product = jax.jit(lambda v: hvp(f, jnp.zeros(36), v))
    np.testing.assert_allclose(product(v), dense @ v, rtol=1e-9, atol=1e-12)
    # The compositions that the project uses: under vmap, and differentiated once more.
    columns = jax.vmap(product)(jnp.eye(36))
    np.testing.assert_allclose(columns, dense, rtol=1e-9, atol=1e-12)


def test_input_gradient_is_each_examples_own_in_inference_mode(x64):
    model, variables = network(dtype="float64")
    images, labels = batch(4, dtype=np.float64)
    loss = cross_entropy(model.apply).with_aux
    own_of = jax.jit(jax.value_and_grad(lambda x, label: loss(variables, x, label)[0].sum()))
    both = jax.jit(lambda *args: value_and_input_gradient(loss, *args))
    (losses, _), gradient = both(variables, images, labels)
    for i in range(4):
        one = slice(i, i + 1)
        value, own = own_of(images[one], labels[one])
        np.testing.assert_allclose(losses[i], value, rtol=1e-12)
        np.testing.assert_allclose(gradient[one], own, rtol=1e-10, atol=1e-14)
