"""Hessian-vector products against dense derivatives; input gradients are tested with the penalty."""

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.autodiff import hvp, linearised_hvp


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
    """By forward over reverse mode, linearised, and under vmap."""
    rng = np.random.default_rng(0)
    W, V, x = rng.standard_normal((9, 20)), rng.standard_normal((20, 3)), rng.standard_normal((5, 9))

    def f(delta):
        return jax.nn.logsumexp(jnp.tanh((x + delta) @ W) @ V, axis=1).mean()

    zero, dense = jnp.zeros(9), jax.hessian(f)(jnp.zeros(9))
    for product in (lambda v: hvp(f, zero, v), lambda v: linearised_hvp(f, zero)(v)[0]):
        np.testing.assert_allclose(jax.jit(jax.vmap(product))(jnp.eye(9)), dense, rtol=1e-9, atol=1e-12)
