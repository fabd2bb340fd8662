"""The penalty's value and parameter gradient, against definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from toys import batch, network

from poison_jax import losses
from poison_jax.errors import UserError

B = 5


def frozen_setup():
    """A float64 network at running statistics, its parameters as one vector."""
    model, variables = network(dtype="float64")
    flat, unravel = ravel_pytree(variables["params"])
    images, labels = batch(B, dtype=np.float64)

    def apply(params, images):
        return model.apply({"params": unravel(params), "batch_stats": variables["batch_stats"]}, images)

    def apply_train(params, images):
        return model.apply_train({"params": unravel(params), "batch_stats": variables["batch_stats"]}, images)

    return apply, apply_train, flat, images, labels


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_gradient_equals_central_differences(mode, x64):
    apply, apply_train, params, images, labels = frozen_setup()
    loss = losses.cross_entropy(apply if mode == "frozen" else apply_train)
    objective = jax.jit(losses.gradient_penalised(loss, 3.0, reduction="eq25"))
    gradient = jax.jit(jax.grad(objective))(params, images, labels)
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(len(params))
        direction /= np.linalg.norm(direction)
        h = 1e-6
        ahead, behind = (objective(params + s * h * direction, images, labels) for s in (1, -1))
        np.testing.assert_allclose(gradient @ direction, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-8)


def test_frozen_penalty_equals_the_dense_jacobian_oracle(x64):
    apply, _, params, images, labels = frozen_setup()
    kappa = 3.0

    def own_gradient(params, image, label):  # grad_x L_i, alone
        def loss(x):
            return -jax.nn.log_softmax(apply(params, x[None])[0])[0, label]

        return jax.grad(loss)(image).ravel()

    value_of, jacobian_of = jax.jit(own_gradient), jax.jit(jax.jacrev(own_gradient))
    value, slope = 0.0, 0.0
    for i in range(B):
        g = value_of(params, images[i], labels[i])
        jacobian = jacobian_of(params, images[i], labels[i])  # [d, P]
        value += kappa * g @ g / B
        slope += kappa * 2 * g @ jacobian / B

    loss = losses.cross_entropy(apply)
    penalised = losses.gradient_penalised(loss, kappa, reduction="per_example")
    plain = losses.mean(loss)
    arguments = (params, images, labels)
    a, b = (jax.jit(jax.value_and_grad(objective))(*arguments) for objective in (penalised, plain))
    np.testing.assert_allclose(a[0] - b[0], value, rtol=1e-10)
    np.testing.assert_allclose(a[1] - b[1], slope, rtol=1e-8, atol=1e-10)


def test_train_mode_equals_listing_1(x64):
    """Two forward passes, the gradient of the batch mean, its squares summed over the batch."""
    _, apply, params, images, labels = frozen_setup()
    kappa = 7.0

    def batch_mean(params, images):
        (logits, _), _ = apply(params, images)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def listing(params):
        gradient = jax.grad(batch_mean, argnums=1)(params, images)
        return batch_mean(params, images) + kappa * jnp.sum(gradient**2)

    ours = losses.gradient_penalised(losses.cross_entropy(apply), kappa)
    value, gradient = jax.jit(jax.value_and_grad(ours))(params, images, labels)
    expected, expected_gradient = jax.jit(jax.value_and_grad(listing))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_kappa_ledger(mode, x64):
    """kappa_eq25 = 2 kappa_per_example = 2 kappa_listing / B, value and gradient."""
    apply, apply_train, params, images, labels = frozen_setup()
    loss = losses.cross_entropy(apply if mode == "frozen" else apply_train)
    kappas = {"listing": 4.0, "per_example": 4.0 / B, "eq25": 8.0 / B}
    results = [
        jax.jit(jax.value_and_grad(losses.gradient_penalised(loss, kappa, reduction=reduction)))(
            params, images, labels
        )
        for reduction, kappa in kappas.items()
    ]
    for value, gradient in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-13)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-9, atol=1e-13)


def test_closed_form_of_a_linear_softmax(x64):
    """grad_x L_i = W (p_i - e_{y_i}), so eq. 25's penalty is kappa / 2 mean_i |W (p_i - e_i)|^2."""
    rng = np.random.default_rng(0)
    W, X, y = rng.standard_normal((6, 3)), rng.standard_normal((B, 6)), rng.integers(0, 3, B)
    p = np.exp(X @ W) / np.exp(X @ W).sum(1, keepdims=True)
    gradients = (p - np.eye(3)[y]) @ W.T
    expected = -np.log(p[np.arange(B), y]).mean() + 0.5 * 2.0 * (gradients**2).sum(1).mean()
    loss = losses.cross_entropy(lambda W, x: x @ W)
    np.testing.assert_allclose(losses.gradient_penalised(loss, 2.0, reduction="eq25")(W, X, y), expected)


def test_kappa_zero_is_the_plain_mean_and_may_be_traced(x64):
    apply, _, params, images, labels = frozen_setup()
    loss = losses.cross_entropy(apply)

    @jax.jit
    def at(kappa):
        return jax.value_and_grad(losses.gradient_penalised(loss, kappa))(params, images, labels)

    value, gradient = at(0.0)
    plain, plain_gradient = jax.jit(jax.value_and_grad(losses.mean(loss)))(params, images, labels)
    np.testing.assert_allclose(value, plain, rtol=1e-14)
    np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-10, atol=1e-14)
    at(5.0)
    assert at._cache_size() == 1


def test_one_forward_pass_serves_both():
    calls = []

    def apply(W, x):
        calls.append(1)
        return x @ W

    arguments = np.ones((4, 3), np.float32), np.ones((2, 4), np.float32), np.zeros(2, int)
    jax.jit(jax.grad(losses.gradient_penalised(losses.cross_entropy(apply), 1.0))).lower(*arguments)
    assert len(calls) == 1


def test_separate_penalised_loss_penalises_that_one(x64):
    """Frozen statistics: the loss of the train-mode network, the gradient of the other."""
    apply, apply_train, params, images, labels = frozen_setup()
    loss, frozen = losses.cross_entropy(apply_train), losses.cross_entropy(apply)
    arguments = (params, images, labels)
    both = losses.gradient_penalised(loss, 2.0, reduction="eq25", penalised_loss=frozen)(*arguments)
    penalty = losses.gradient_penalised(frozen, 2.0, reduction="eq25")(*arguments) - losses.mean(frozen)(
        *arguments
    )
    np.testing.assert_allclose(both, losses.mean(loss)(*arguments) + penalty, rtol=1e-12)


def test_zero_input_gradient_is_harmless():
    """Parameters of zero, and a single class: the gradient vanishes, nothing is NaN."""
    images, labels = batch(4)
    images = images.reshape(4, -1)
    loss = losses.cross_entropy(lambda W, x: x @ W)
    for classes in (3, 1):
        W = jnp.zeros((36, classes))
        value, gradient = jax.value_and_grad(losses.gradient_penalised(loss, 10.0))(
            W, images, labels % classes
        )
        np.testing.assert_allclose(value, np.log(classes), atol=1e-6)
        assert np.isfinite(gradient).all()


def test_terms_add_up(x64):
    apply, _, params, images, labels = frozen_setup()
    loss = losses.cross_entropy(apply, has_aux=True)
    value, terms = jax.jit(losses.gradient_penalised(loss, 2.0, has_aux=True))(params, images, labels)
    np.testing.assert_allclose(value, terms.loss + terms.penalty, rtol=1e-6)
    assert terms.penalty > 0
    assert terms.aux[0].shape == (B, 3)


@pytest.mark.parametrize("kappa", [-1.0, float("nan"), float("inf")])
def test_bad_kappa(kappa):
    with pytest.raises(UserError, match="kappa"):
        losses.gradient_penalised(lambda *_: None, kappa)


def test_bad_reduction():
    with pytest.raises(UserError, match="listing, per_example, eq25"):
        losses.gradient_penalised(lambda *_: None, 1.0, reduction="sum")
