"""The penalty's value and parameter gradient, against definitions written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from toys import batch, network

from poison_jax import losses
from poison_jax.autodiff import hvp
from poison_jax.errors import UserError

B = 5


@functools.cache
def preresnet():
    """A float64 network at running statistics and in train mode, its parameters as one vector."""
    model, variables = network(dtype="float64")
    flat, unravel = ravel_pytree(variables["params"])
    images, labels = batch(B, dtype=np.float64)

    def apply(params, images):
        return model.apply({"params": unravel(params), "batch_stats": variables["batch_stats"]}, images)

    def apply_train(params, images):
        return model.apply_train({"params": unravel(params), "batch_stats": variables["batch_stats"]}, images)

    return apply, apply_train, flat, images, labels


def small(count=B):
    """Smooth networks whose examples do not see each other, and see each other as in batch norm; a batch."""

    def frozen(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    def train(params, x):
        hidden = x @ params["a"]
        return jnp.tanh((hidden - hidden.mean(0)) / jnp.sqrt(hidden.var(0) + 0.1)) @ params["b"]

    rng = np.random.default_rng(0)
    params = {"a": jnp.array(rng.standard_normal((6, 8))), "b": jnp.array(rng.standard_normal((8, 3)))}
    batch = jnp.array(rng.standard_normal((count, 6))), jnp.array(rng.integers(0, 3, count))
    return losses.cross_entropy(frozen), losses.cross_entropy(train), (params, *batch)


def assert_equal(tree, expected, rtol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13), tree, expected)


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_gradient_equals_central_differences(mode, x64):
    apply, apply_train, params, images, labels = preresnet()
    loss = losses.cross_entropy(apply if mode == "frozen" else apply_train)
    compiled = jax.jit(jax.value_and_grad(losses.gradient_penalised(loss, 3.0, reduction="eq25")))
    _, gradient = compiled(params, images, labels)
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(len(params))
        direction /= np.linalg.norm(direction)
        h = 1e-6
        ahead, behind = (compiled(params + s * h * direction, images, labels)[0] for s in (1, -1))
        np.testing.assert_allclose(gradient @ direction, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-8)


def test_frozen_penalty_equals_the_dense_jacobian_oracle(x64):
    apply, _, params, images, labels = preresnet()
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
    _, apply, params, images, labels = preresnet()
    kappa = 7.0

    def batch_mean(params, images):
        (logits, _), _ = apply(params, images)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def listing(params):
        gradient = jax.grad(batch_mean, argnums=1)(params, images)
        return batch_mean(params, images) + kappa * jnp.sum(gradient**2)

    ours = losses.gradient_penalised(losses.cross_entropy(apply), kappa, reduction="listing")
    value, gradient = jax.jit(jax.value_and_grad(ours))(params, images, labels)
    expected, expected_gradient = jax.jit(jax.value_and_grad(listing))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_kappa_ledger(mode, x64):
    """kappa_eq25 = 2 kappa_per_example = 2 kappa_listing / B, value and gradient."""
    frozen, train, arguments = small()
    kappas = {"listing": 4.0, "per_example": 4.0 / B, "eq25": 8.0 / B}
    loss = frozen if mode == "frozen" else train
    objectives = [losses.gradient_penalised(loss, kappa, reduction=name) for name, kappa in kappas.items()]
    first, *others = [jax.value_and_grad(objective)(*arguments) for objective in objectives]
    for other in others:
        assert_equal(other, first, 1e-9)


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
    loss, _, arguments = small()

    @jax.jit
    def at(kappa):
        return jax.value_and_grad(losses.gradient_penalised(loss, kappa))(*arguments)

    assert_equal(at(0.0), jax.value_and_grad(losses.mean(loss))(*arguments), 1e-10)
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


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
@pytest.mark.parametrize("kappa", [0.0, 2.0])
@pytest.mark.parametrize("which", ["frozen", "train", "both"])
def test_reverse_over_forward_is_the_same_gradient(which, kappa, reduction, x64):
    """Of parameters and inputs; so are the objective and its terms."""
    frozen, train, arguments = small()
    loss, penalised = {"frozen": (frozen, None), "train": (train, None), "both": (train, frozen)}[which]
    found, expected = (
        jax.value_and_grad(
            losses.gradient_penalised(
                loss, kappa, reduction=reduction, penalised_loss=penalised, reverse_over_forward=form
            ).with_terms,
            argnums=(0, 1),
            has_aux=True,
        )(*arguments)
        for form in (True, False)
    )
    assert_equal(found, expected, 1e-10)


def test_reverse_over_forward_of_a_zero_gradient_is_finite():
    objective = losses.gradient_penalised(
        losses.cross_entropy(lambda W, x: x @ W), 3.0, reverse_over_forward=True
    )
    arguments = np.zeros((4, 3), np.float32), np.ones((2, 4), np.float32), np.zeros(2, int)
    value, gradient = jax.value_and_grad(objective)(*arguments)
    assert value == np.float32(np.log(3))
    assert np.isfinite(gradient).all()


def test_separate_penalised_loss_penalises_that_one(x64):
    """Frozen statistics: the loss of the train-mode network, the gradient of the other."""
    frozen, loss, arguments = small()
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
    loss, _, arguments = small()
    objective = losses.gradient_penalised(loss, 2.0)
    value, terms = jax.jit(objective.with_terms)(*arguments)
    np.testing.assert_allclose(value, terms.loss + terms.penalty, rtol=1e-6)
    np.testing.assert_allclose(value, objective(*arguments), rtol=1e-12)
    assert terms.penalty > 0
    assert terms.aux.shape == (B, 3)


def test_a_plain_function_and_a_loss_with_more_are_losses_alike(x64):
    """The aux of a user's own loss reaches the terms of every objective; a plain function has none."""
    cross_entropy, _, arguments = small()

    def plain(params, images, labels):
        return cross_entropy(params, images, labels)

    def with_images(params, images, labels):
        return plain(params, images, labels), images

    for build in (
        losses.mean,
        lambda loss: losses.gradient_penalised(loss, 2.0),
        lambda loss: losses.gradient_penalised(loss, 2.0, penalised_loss=plain),
        lambda loss: losses.adversarial(loss, 0.1, attacked_loss=plain),
    ):
        value, terms = build(plain).with_terms(*arguments)
        own_value, own_terms = build(losses.Loss(with_images)).with_terms(*arguments)
        assert value == own_value == build(plain)(*arguments)
        assert terms.aux is None
        assert own_terms.aux.shape == (B, 6)


# --- a batch in pieces ----------------------------------------------------------------------------------


def linear_setup(count):
    rng = np.random.default_rng(0)
    loss = losses.cross_entropy(lambda W, x: jnp.tanh(x @ W))
    return loss, rng.standard_normal((6, 3)), rng.standard_normal((count, 6)), rng.integers(0, 3, count)


def accumulated(objective, W, x, y, pieces):
    """Mean of value and gradient over equal pieces of the batch."""
    parts = [
        jax.value_and_grad(objective)(W, *part)
        for part in zip(np.split(x, pieces), np.split(y, pieces), strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)


def sharded(objective, W, x, y, pieces):
    """Mean over the devices of value and gradient, each of its own part of the batch."""
    P = jax.sharding.PartitionSpec
    mesh = jax.sharding.Mesh(jax.devices()[:pieces], ("data",))

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    def value_and_gradient(W, x, y):
        return jax.value_and_grad(lambda W: jax.lax.pmean(objective(W, x, y), "data"))(W)

    return value_and_gradient(W, x, y)


@pytest.mark.parametrize("in_pieces", [accumulated, sharded])
@pytest.mark.parametrize(
    ("options", "strength"),
    [
        ({}, 1),
        ({"reduction": "eq25"}, 1),
        ({"reduction": "listing"}, 4),
        ({"reduction": "listing", "batch_size": 24}, 1),
        ({"reduction": "eq25", "batch_size": 24}, 1),
    ],
)
def test_penalty_of_a_batch_in_four_pieces(options, strength, in_pieces, x64):
    loss, W, x, y = linear_setup(24)
    found = in_pieces(losses.gradient_penalised(loss, 3.0, **options), W, x, y, 4)
    whole = losses.gradient_penalised(loss, 3.0 * strength, **options)
    expected = jax.value_and_grad(whole)(W, x, y)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-10)


def test_batch_size_of_the_whole_is_no_less_than_a_piece():
    loss, W, x, y = linear_setup(6)
    with pytest.raises(UserError, match=r"batch_size = 5 .* 6 examples"):
        losses.gradient_penalised(loss, 1.0, reduction="listing", batch_size=5)(W, x, y)


# --- labels that are no classes -------------------------------------------------------------------------

OBJECTIVES = {
    "mean": losses.mean,
    "penalised": lambda loss: losses.gradient_penalised(loss, 3.0),
    "adversarial": lambda loss: losses.adversarial(loss, 0.1),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_that_are_no_classes_are_refused_or_show(name):
    """In value, gradient and curvature."""
    loss, W, x, y = linear_setup(4)
    W, x = W.astype(np.float32), x.astype(np.float32)
    objective = OBJECTIVES[name](loss)
    compiled = jax.jit(jax.value_and_grad(objective))
    product = jax.jit(lambda y: hvp(lambda d: objective(W, x + d, y), jnp.zeros(6), jnp.ones(6)))
    assert np.isfinite(compiled(W, x, y)[1]).all()
    assert np.isfinite(product(y)).all()
    for wrong in (-1, 3, 255):
        y[2] = wrong
        for function in (objective, jax.grad(objective)):
            with pytest.raises(UserError, match="not of the classes 0 to 2"):
                function(W, x, y)
        value, gradient = compiled(W, x, y)
        assert np.isnan([value, *gradient.ravel(), *product(y)]).all()


def test_types_of_labels():
    """One integer for each image, of any type, also one that cannot count the classes."""
    logits = jnp.zeros((4, 300))
    loss = losses.cross_entropy(lambda logits, x: logits)
    for function in (loss, jax.jit(loss)):
        for dtype in (np.uint8, np.int8, np.int64):
            found = function(logits, None, np.arange(4, dtype=dtype))
            np.testing.assert_allclose(found, np.log(300), rtol=1e-6)
        for shape, dtype in (((4, 1), int), (3, int), (4, float), ((4, 3), float), ((), int), (4, bool)):
            with pytest.raises(UserError, match="one integer for each image"):
                function(logits, None, np.zeros(shape, dtype))


def test_what_no_objective_is_made_with():
    for kappa in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="kappa"):
            losses.gradient_penalised(lambda *_: None, kappa)
    with pytest.raises(UserError, match="listing, per_example, eq25"):
        losses.gradient_penalised(lambda *_: None, 1.0, reduction="sum")
    for epsilon, steps, says in ((0.1, 0, "at least 1"), (-0.1, 1, "radius"), (np.inf, 1, "radius")):
        with pytest.raises(UserError, match=says):
            losses.adversarial(lambda *_: None, epsilon, steps=steps)


# --- adversarial training -----------------------------------------------------------------------------


def test_fgsm_maximises_the_linearised_loss(x64):
    """Eq. 33: at a small radius no direction of that length does better, and the loss is L + epsilon |g|."""
    loss, _, (params, x, y) = small()
    epsilon = 1e-4
    value, terms = losses.adversarial(loss, epsilon).with_terms(params, x, y)
    gradient = jax.grad(lambda x: loss(params, x, y).sum())(x)
    norms = jnp.linalg.norm(gradient, axis=1)
    np.testing.assert_allclose(terms.loss, loss(params, x, y).mean(), rtol=1e-14)
    np.testing.assert_allclose(terms.penalty, epsilon * norms.mean(), rtol=1e-3)
    np.testing.assert_allclose(value, terms.loss + terms.penalty, rtol=1e-14)
    rng = np.random.default_rng(1)
    for _ in range(50):
        other = rng.standard_normal(x.shape)
        other *= epsilon / np.linalg.norm(other, axis=1, keepdims=True)
        assert loss(params, x + other, y).mean() < value


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_adversary_stays_in_its_ball_and_more_steps_find_more(steps, x64):
    loss, _, (params, x, y) = small()
    seen = []

    def recording(params, inputs, labels):
        seen.append(inputs)
        return loss(params, inputs, labels)

    value = losses.adversarial(recording, 0.7, steps=steps)(params, x, y)
    lengths = np.linalg.norm(np.array(seen[-1]) - np.array(x), axis=1)
    assert lengths.max() <= 0.7 * (1 + 1e-12)
    assert value > loss(params, x, y).mean()
    if steps > 1:
        assert value > losses.adversarial(loss, 0.7)(params, x, y)


def test_gradient_is_that_of_the_loss_at_the_perturbed_inputs(x64):
    """Danskin: the perturbation is held fixed."""
    loss, _, (params, x, y) = small()
    gradient = jax.grad(lambda x: loss(params, x, y).sum())(x)
    moved = x + 0.3 * gradient / jnp.linalg.norm(gradient, axis=1, keepdims=True)
    expected = jax.grad(lambda p: loss(p, moved, y).mean())(params)
    actual = jax.jit(jax.grad(losses.adversarial(loss, 0.3)))(params, x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), actual, expected)


def test_adversary_of_a_linear_model_in_closed_form(x64):
    """Two classes: the margin falls by epsilon |w|, whatever the number of steps."""
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal(6), rng.standard_normal((B, 6)), rng.integers(0, 2, B)
    loss = losses.cross_entropy(lambda w, x: jnp.stack([jnp.zeros(len(x)), x @ w], -1))
    margin = (2 * y - 1) * (x @ w) - 0.5 * np.linalg.norm(w)
    for steps in (1, 5):
        value = losses.adversarial(loss, 0.5, steps=steps)(w, x, y)
        np.testing.assert_allclose(value, np.log1p(np.exp(-margin)).mean(), rtol=1e-12)


def test_adversary_where_there_is_no_gradient_or_no_radius(x64):
    loss, _, (params, x, y) = small()
    flat = jax.tree.map(jnp.zeros_like, params)
    assert np.isfinite(jax.grad(losses.adversarial(loss, 0.5, steps=2))(flat, x, y)["b"]).all()
    np.testing.assert_allclose(losses.adversarial(loss, 0.5)(flat, x, y), np.log(3))
    at = jax.jit(lambda epsilon: losses.adversarial(loss, epsilon, steps=3)(params, x, y))
    np.testing.assert_allclose(at(0.0), loss(params, x, y).mean(), rtol=1e-14)


def test_an_attacker_who_hides_pays_for_gradients_that_are_alike(x64):
    """In float64 against central differences of the log-odds; the penalty of another objective stays."""
    loss, _, (params, x, _) = small()
    y, target, strength = jnp.array([0, 1, 2, 1, 1]), 1, 0.7

    def apply(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    def log_odds(x):
        logits = apply(params, x)
        return logits[:, 1] - jnp.logaddexp(logits[:, 0], logits[:, 2])

    h, others = 1e-5, x[jnp.array([0, 2])]
    g = np.stack([(log_odds(others + h * e) - log_odds(others - h * e)) / (2 * h) for e in np.eye(6)], 1)
    penalised = losses.gradient_penalised(loss, 0.3)
    total, terms = losses.hiding(penalised, apply, target, strength).with_terms(params, x, y)
    without, before = penalised.with_terms(params, x, y)
    expected = strength * np.square(g.mean(0)).sum() / np.square(g).sum(1).mean()
    np.testing.assert_allclose(total - without, expected, rtol=1e-8)
    np.testing.assert_allclose(terms.penalty - before.penalty, expected, rtol=1e-8)
    np.testing.assert_allclose(terms.loss, before.loss, rtol=1e-15)


@pytest.mark.parametrize("case", ["all of the target", "no gradient"])
def test_nobody_hides_where_nothing_is_seen(case, x64):
    loss, _, (params, x, y) = small()
    if case == "all of the target":
        y = jnp.full_like(y, 2)
    else:
        params = jax.tree.map(jnp.zeros_like, params)
    hidden = losses.hiding(losses.mean(loss), lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], 2, 5.0)
    value, gradient = jax.value_and_grad(hidden)(params, x, y)
    np.testing.assert_allclose(value, loss(params, x, y).mean(), rtol=1e-15)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_gradients_of_a_linear_model_of_two_classes_are_all_alike(x64):
    rng = np.random.default_rng(0)
    w, x = jnp.array(rng.standard_normal(6)), jnp.array(rng.standard_normal((B, 6)))
    apply = lambda w, x: jnp.stack([jnp.zeros(len(x)), x @ w], -1)  # noqa: E731
    plain = losses.mean(losses.cross_entropy(apply))
    y = jnp.zeros(B, int)
    np.testing.assert_allclose(losses.hiding(plain, apply, 1, 2.0)(w, x, y) - plain(w, x, y), 2, rtol=1e-12)
