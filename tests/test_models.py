"""PreResNet: sizes, shapes, modes, precision."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from poison_jax import losses, models
from poison_jax.errors import UserError


@pytest.mark.parametrize(
    ("depth", "block", "classes", "count"),
    [
        (110, "bottleneck", 10, 1_146_842),  # the common public PreResNet110
        (110, "basic", 10, 1_730_522),  # He et al.
        (110, "bottleneck", 100, 1_146_842 + 90 * 257),
        (20, "basic", 10, 272_282),
    ],
)
def test_parameter_counts(depth, block, classes, count):
    model = models.preresnet(depth, classes, block=block)
    variables = jax.eval_shape(
        lambda key: model.module.init(key, jnp.zeros((1, 32, 32, 3))), jax.random.key(0)
    )
    assert models.parameter_count(variables) == count
    assert models.rough_parameter_count(depth, block, 16) == pytest.approx(count, rel=0.08)


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        *[("basic", shape) for shape in ((28, 28, 1), (7, 9, 2), (4, 4, 3))],
        *[("bottleneck", shape) for shape in ((8, 8, 1), (7, 9, 2))],
    ],
)
def test_any_input_size_and_channels(block, shape):
    depth = {"basic": 8, "bottleneck": 11}[block]
    model = models.preresnet(depth, 5, block=block, width=4)
    variables = model.init(jax.random.key(0), shape)
    images = jax.random.normal(jax.random.key(1), (3, *shape))
    logits, features = jax.jit(model.apply)(variables, images)
    width = {"basic": 16, "bottleneck": 64}[block]
    side = [-(-size // 4) for size in shape[:2]]
    assert logits.shape == (3, 5)
    assert features.pre_fc.shape == (3, width)
    assert features.last_map.shape == (3, *side, width)
    np.testing.assert_allclose(features.pre_fc, features.last_map.mean((1, 2)), rtol=1e-5, atol=1e-6)
    fc = variables["params"]["fc"]
    np.testing.assert_allclose(logits, features.pre_fc @ fc["kernel"] + fc["bias"], rtol=1e-4, atol=1e-5)


def test_inference_sees_one_example_at_a_time_and_training_the_batch():
    model = models.preresnet(8, 3, width=4)
    variables = model.init(jax.random.key(0), (8, 8, 1))
    images = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
    apply, apply_train = jax.jit(model.apply), jax.jit(model.apply_train)
    whole, _ = apply(variables, images)
    half, _ = apply(variables, images[:3])
    np.testing.assert_allclose(whole[:3], half, rtol=1e-4, atol=1e-5)
    (whole, _), _ = apply_train(variables, images)
    (half, _), _ = apply_train(variables, images[:3])
    assert np.abs(whole[:3] - half).max() > 1e-3


def test_bfloat16_is_close_to_float32():
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    single, half = (models.preresnet(8, 3, width=4, dtype=dtype) for dtype in ("float32", "bfloat16"))
    variables = single.init(jax.random.key(0), (8, 8, 1))
    exact, _ = jax.jit(single.apply)(variables, images)
    rounded, features = jax.jit(half.apply)(variables, images)
    assert rounded.dtype == jnp.float32
    assert features.last_map.dtype == jnp.bfloat16
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_a_key_is_the_same_network_in_every_precision(x64):
    drawn = {
        dtype: models.preresnet(8, 3, width=4, dtype=dtype).init(jax.random.key(0), (8, 8, 1))
        for dtype in ("float32", "bfloat16", "float64")
    }
    for dtype, stored in (("bfloat16", np.float32), ("float64", np.float64)):
        for a, b in zip(*map(jax.tree.leaves, (drawn["float32"], drawn[dtype])), strict=True):
            assert (a.dtype, b.dtype) == (np.float32, stored)
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"depth": 21}, "nearest is 20"),
        ({"depth": 110, "block": "bottle"}, "basic or bottleneck"),
        ({"depth": 21, "block": "bottleneck"}, "nearest is 20"),
        ({"depth": 2}, "nearest is 8"),
        ({"depth": -4}, "nearest is 8"),
        ({"dtype": "int8"}, "dtype"),
        ({"width": 0}, "width"),
    ],
)
def test_illegal_architecture(change, says):
    with pytest.raises(UserError, match=says):
        models.preresnet(**{"depth": 8, "num_classes": 10} | change)


def test_equal_settings_are_one_model():
    assert models.preresnet(8, 10, width=4) is models.preresnet(8, 10, width=4)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_is_flax_batch_norm(train, x64):
    """Value, running statistics, and the derivatives of both orders, at statistics that are not 0 and 1."""
    types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    ours = models.BatchNorm(not train, **types)
    theirs = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False, **types)
    keys = jax.random.split(jax.random.key(0), 5)
    x = 3 + 2 * jax.random.normal(keys[0], (4, 5, 6, 7), jnp.float64)
    params = {"scale": jax.random.normal(keys[1], (7,)), "bias": jax.random.normal(keys[2], (7,))}
    stats = {"mean": jax.random.normal(keys[3], (7,)), "var": jax.random.uniform(keys[4], (7,)) + 0.5}

    def penalty(module):
        def f(params, x):
            y, new = module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.tanh(y) ** 2), (y, new)

        def squared_gradient(params):
            gradient, aux = jax.grad(f, argnums=1, has_aux=True)(params, x)
            return jnp.sum(gradient**2), aux

        return jax.value_and_grad(squared_gradient, has_aux=True)(params)

    a, b = penalty(ours), penalty(theirs)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def _penalised_gradient(model, images, labels, **options):
    loss = losses.cross_entropy(
        lambda params, x: model.apply_train({"params": params, "batch_stats": variables["batch_stats"]}, x)
    )
    variables = model.init(jax.random.key(0), images.shape[1:])
    objective = losses.gradient_penalised(loss, 10.0, reduction="listing", **options)
    return jax.jit(jax.value_and_grad(objective))(variables["params"], images, labels)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_what_is_computed_again_changes_no_gradient(block, x64):
    images = jax.random.normal(jax.random.key(1), (4, 9, 8, 3), jnp.float64)
    network = {"depth": 8 if block == "basic" else 11, "block": block, "width": 5, "dtype": "float64"}
    kept, again = (
        _penalised_gradient(
            models.preresnet(num_classes=3, remat=remat, **network),
            images,
            jnp.arange(4) % 3,
            reverse_over_forward=remat,
        )
        for remat in (False, True)
    )
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_what_is_computed_again_is_not_kept(capsys):
    """A penalised gradient keeps the inputs of the blocks and their tangents: a third of what it did."""

    def kept(remat):
        model = models.preresnet(20, 3, remat=remat)
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), (16, 16, 3)))
        stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), variables["batch_stats"])
        loss = losses.cross_entropy(lambda p, x: model.apply_train({"params": p, "batch_stats": stats}, x))
        print_saved_residuals(
            losses.gradient_penalised(loss, 1.0, reverse_over_forward=remat),
            variables["params"],
            np.ones((8, 16, 16, 3), np.float32),
            np.zeros(8, int),
        )
        shapes = re.findall(r"^f32\[([\d,]+)\]", capsys.readouterr().out, re.MULTILINE)
        return sum(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)

    assert kept(True) < kept(False) / 3


def test_the_kernels_change_no_gradient(x64):
    """Double backprop through the whole network, against XLA's own convolutions."""
    images = jax.random.normal(jax.random.key(1), (4, 9, 8, 3), jnp.float64)
    labels = jnp.arange(4) % 3
    fast, native = (
        _penalised_gradient(
            models.preresnet(8, 3, width=5, dtype="float64", convolutions=choice), images, labels
        )
        for choice in ("auto", "xla")
    )
    for one, other in zip(jax.tree.leaves(fast), jax.tree.leaves(native), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
