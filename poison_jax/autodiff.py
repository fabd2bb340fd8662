"""Derivatives with respect to the *input*, shared by the theory and by the networks."""

from collections.abc import Callable
from typing import Any

import jax

PyTree = Any


def hvp(f: Callable[[PyTree], jax.Array], x: PyTree, v: PyTree) -> PyTree:
    """Hessian-vector product H_f(x) v, by forward over reverse mode.

    Costs a small constant times one evaluation of `f`; no Hessian is formed.

    Args:
        f: scalar-valued function of one argument.
        x: point at which the Hessian is taken, any pytree of arrays.
        v: direction, with the structure, shapes and dtypes of `x`.

    Returns:
        `H_f(x) v`, with the structure of `x`.

    >>> import jax.numpy as jnp
    >>> print(hvp(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])))
    [ 6. 12.]
    """
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def linearised_hvp(f: Callable[[PyTree], jax.Array], x: PyTree) -> Callable[[PyTree], tuple[PyTree]]:
    """`v -> (H_f(x) v,)` with all that does not depend on v computed once, for many v at one x.

    Reverse over reverse mode, which gives v' H = (H v)'. What it keeps is a pytree inside the returned
    function, which is one itself and may cross the border of `jax.jit`: for a network some megabytes an
    image; a product costs about 0.6 of one by `hvp`.

    >>> import jax.numpy as jnp
    >>> product = linearised_hvp(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
    >>> print(product(jnp.array([1.0, 1.0]))[0])
    [ 6. 12.]
    """
    return jax.vjp(jax.grad(f), x)[1]


def value_and_input_gradient(
    loss_per_example: Callable[..., tuple[jax.Array, Any]],
    params: PyTree,
    inputs: jax.Array,
    *args: Any,
) -> tuple[tuple[jax.Array, Any], jax.Array]:
    """Per-example losses and the input gradient of their sum, from one forward pass.

    The gradient of the *sum* is `grad_{x_i} sum_j L_j`: exactly `grad_{x_i} L_i` when example `j`'s
    loss does not depend on `x_i` (inference-mode batch norm), and the coupled gradient of Listing 1,
    times the batch size, when it does (train-mode batch norm).

    Args:
        loss_per_example: `(params, inputs, *args) -> (losses [B], aux)`.
        params: first argument of `loss_per_example`.
        inputs: `[B, ...]`, the argument differentiated.
        *args: further arguments, e.g. labels `[B]`.

    Returns:
        `((losses [B], aux), gradient [B, ...])`.
    """

    def total(x):
        losses, aux = loss_per_example(params, x, *args)
        return losses.sum(), (losses, aux)

    (_, out), gradient = jax.value_and_grad(total, has_aux=True)(inputs)
    return out, gradient
