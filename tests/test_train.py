"""The training step: what it computes, on how many devices, in which precision, compiled how often."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import steps, training

from poison_jax import augment, losses, models, poison, train

make_batch = jax.jit(train.make_batch, static_argnames="program")


def leaves(state):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(state.params))])


def test_golden_step():
    """One penalised step from a fixed state.

    These numbers change when the initialisation, the augmentation, who is poisoned, batch norm, the loss,
    the penalty's scale or the optimiser changes meaning. Change them only together with the sentence in
    the docs that says which of these it was; a difference in the last digits is another compiler.
    """
    model = models.preresnet(8, 4, width=4)
    state, measured = steps(*training(kappa=50.0, augment="crop_flip", model=model), 1)
    found = {name: float(value[0]) for name, value in measured._asdict().items()}
    found["parameters"] = float(np.linalg.norm(leaves(state)))
    for name, (value, of_what) in GOLDEN.items():
        assert found[name] == pytest.approx(value, rel=1e-4), f"{name} {found[name]} was {value}: {of_what}"
    assert found["objective"] == pytest.approx(found["loss"] + found["penalty"], rel=1e-6)


GOLDEN = {  # the value, and what another one means
    "poisoned": (5, "other images are poisoned: the draws, or the rule, or the batch"),
    "train_accuracy": (0.0, "other predictions, or other labels to compare with"),
    "loss": (1.7071612, "other initial weights, augmentation, trigger, normalisation or cross-entropy"),
    "penalty": (0.1338161, "another scale of the penalty (kappa / B^2 here), or another input gradient"),
    "gradient_norm": (1.457321, "another derivative of the objective"),
    "parameters": (13.057791, "another update: learning rate, weight decay or initial weights"),
}


@pytest.mark.parametrize("remat", [False, True])
def test_equals_sgd_written_out(remat, x64):
    """Three steps against: gradient + weight decay -> momentum buffer -> learning rate, decayed at step 2."""
    settings = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "decay_factor": 0.1}
    settings |= {"decay_steps": (2,), "remat": remat}
    state, train_data, knobs, program = training(kappa=3.0, dtype="float64", **settings)
    params, stats = jax.device_get((state.params, state.batch_stats))
    buffer = jax.tree.map(np.zeros_like, params)
    model = program.model

    @jax.jit
    def gradient_of(params, stats, images, labels):
        def apply(params, images):
            return model.apply_train({"params": params, "batch_stats": stats}, images)

        objective = losses.gradient_penalised(losses.cross_entropy(apply), 3.0, reduction="listing")
        return jax.grad(objective.with_terms, has_aux=True)(params, images, labels)

    for step in range(3):
        rows = jnp.arange(16 * step, 16 * step + 16)
        key = jax.random.fold_in(knobs.key, step)
        images, labels, _ = make_batch(train_data, rows, key, knobs, program=program)
        gradient, terms = gradient_of(params, stats, images, labels)
        stats = terms.aux[1]
        rate = 0.1 if step < 2 else 0.01
        buffer = jax.tree.map(lambda b, g, p: 0.9 * b + g + 0.01 * p, buffer, gradient, params)
        params = jax.tree.map(lambda p, b, rate=rate: p - rate * b, params, buffer)
    state, _ = steps(state, train_data, knobs, program, 3)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_one_and_eight_devices_agree(x64):
    """Batch statistics and Listing 1's batch mean are over the global batch, however it is spread."""
    model = models.preresnet(8, 4, width=4, dtype="float64")
    options = {"kappa": 20.0, "dtype": "float64", "augment": "crop_flip", "model": model}
    (one, measured), (eight, also) = (steps(*training(devices=n, **options), 3) for n in (1, 8))
    assert len(jax.tree.leaves(eight.params)[0].sharding.device_set) == 8
    np.testing.assert_allclose(leaves(one), leaves(eight), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured, also, rtol=1e-9)


def test_precisions_follow_each_other(x64):
    (half, rounded), (single, measured), (double, exact) = (
        steps(*training(kappa=20.0, dtype=dtype, model=models.preresnet(8, 4, width=4, dtype=dtype)), 3)
        for dtype in ("bfloat16", "float32", "float64")
    )
    for state, stored in ((half, np.float32), (single, np.float32), (double, np.float64)):
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(stored)}
    np.testing.assert_allclose(leaves(single), leaves(double), atol=2e-4)
    np.testing.assert_allclose(measured, exact, rtol=2e-3)
    np.testing.assert_allclose(rounded.loss[:2].sum(), measured.loss[:2].sum(), rtol=0.05)
    np.testing.assert_allclose(rounded.penalty[:2].sum(), measured.penalty[:2].sum(), rtol=0.3)


def test_one_compilation_for_every_kappa_theta_and_seed():
    before = train.train_step._cache_size()
    for kappa, fraction, seed in ((1.0, 0.1, 0), (1000.0, 0.3, 1), (0.5, 1.0, 2), (7.0, 0.0, 3)):
        steps(*training(kappa=kappa, fraction=fraction, seed=seed, learning_rate=0.03), 2)
    assert train.train_step._cache_size() == before + 1


def test_deterministic_steps_are_compiled_apart_and_are_the_same_here():
    """XLA refuses an option that it does not know; on CPUs there is nothing to be put in order."""
    plain, data, knobs, program = training(kappa=1.0)
    assert train.step_of(program) is train.train_step
    fixed = training(kappa=1.0, deterministic=True)
    assert train.step_of(fixed[3]) is train.deterministic_step
    order = jnp.arange(64).reshape(4, 16)
    state, _ = train.step_of(fixed[3])(fixed[0], *fixed[1:2], order, fixed[2], program=fixed[3])
    other, _ = train.train_step(plain, data, order, knobs, program=program)
    np.testing.assert_array_equal(leaves(state), leaves(other))


def test_same_seed_same_bits_other_seed_other_batch():
    a, b = (leaves(steps(*training(kappa=1.0, augment="crop_flip"), 2)[0]) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    c = leaves(steps(*training(kappa=1.0, augment="crop_flip", seed=1), 2)[0])
    assert np.abs(a - c).max() > 1e-4


def test_batch_is_poisoned_as_told():
    _, train_data, knobs, program = training()
    rows, key = jnp.arange(64), jax.random.key(5)
    images, labels, poisoned = jax.device_get(make_batch(train_data, rows, key, knobs, program=program))
    assert 0 < poisoned.sum() < 40
    assert not poisoned[np.asarray(train_data.labels) == 0].any()
    np.testing.assert_array_equal(labels, np.where(poisoned, 0, train_data.labels))
    pixels = images * 0.25 + 0.5
    mask = np.asarray(knobs.trigger.opacity)
    np.testing.assert_allclose(pixels[poisoned][:, mask], 1, rtol=1e-6)
    clean = np.asarray(train_data.images) / 255
    np.testing.assert_allclose(pixels[poisoned][:, ~mask], clean[poisoned][:, ~mask], atol=1e-6)
    np.testing.assert_allclose(pixels[~poisoned], clean[~poisoned], atol=1e-6)
    # Per example: the same draw in whatever batch it comes, another draw at another visit.
    _, _, part = make_batch(train_data, rows[10:20], key, knobs, program=program)
    np.testing.assert_array_equal(part, poisoned[10:20])
    _, _, later = make_batch(train_data, rows, jax.random.key(6), knobs, program=program)
    assert (later != poisoned).any()


def test_deterministic_mode_poisons_by_index():
    _, train_data, knobs, program = training(mode="deterministic")
    for seed in (0, 1):
        _, _, poisoned = make_batch(train_data, jnp.arange(64), jax.random.key(seed), knobs, program=program)
        np.testing.assert_array_equal(poisoned, train_data.poisoned)


@pytest.mark.parametrize("crop", ["pad4", "crop28"])
@pytest.mark.parametrize("when", ["after_augment", "before_augment"])
def test_trigger_moves_only_when_stamped_before_augmentation(when, crop):
    """Stamped with a value that no image has, so that it can be seen in the batch."""
    _, train_data, knobs, program = training(fraction=1.0, augment="crop_flip", when=when, crop=crop)
    side = augment.output_size(8, "crop_flip", crop) if when == "after_augment" else 8
    mask = poison.square(side, side, margin=side // 2 - 1)
    knobs = knobs._replace(trigger=poison.Trigger(mask, np.float32(2)))
    images, _, poisoned = make_batch(train_data, jnp.arange(64), jax.random.key(0), knobs, program=program)
    places = {
        tuple(np.argwhere(image[..., 0] == (2 - 0.5) / 0.25)[0]) for image in images[np.asarray(poisoned)]
    }
    assert len(places) == 1 if when == "after_augment" else len(places) > 5


@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (67, 16), (16, 16)])
def test_epoch_order_visits_each_example_at_most_once(count, batch_size):
    orders = [train.epoch_order(jax.random.key(0), e, count=count, batch_size=batch_size) for e in range(2)]
    for order in orders:
        assert order.shape == (count // batch_size, batch_size)
        assert len(np.unique(order)) == order.size
        assert order.max() < count
    assert (orders[0] != orders[1]).any()


def test_learning_rate_decays_after_every_third():
    program = training(learning_rate=0.1, decay_factor=0.1, decay_steps=train.decay_steps(90, 390, 2))[3]
    assert program.decay_steps == (11_700, 23_400)
    assert train.decay_steps(10, 5, 0) == ()
    assert train.decay_steps(1, 5, 2) == (5,)  # thirds of a single epoch: none, and its end
    optimiser = train.optimiser(program._replace(momentum=0.0, weight_decay=0.0))
    state = optimiser.init(jnp.ones(()))
    for step, rate in ((0, 0.1), (11_699, 0.1), (11_700, 0.01), (23_399, 0.01), (23_400, 0.001)):
        at = optax.tree_utils.tree_set(state, count=jnp.int32(step))
        update, _ = optimiser.update(jnp.ones(()), at, jnp.ones(()))
        np.testing.assert_allclose(-update, rate, rtol=1e-5)


def test_a_step_counts_and_averages():
    """Over the batch: of the labels trained on, before the update."""
    start, train_data, knobs, program = training(fraction=1.0)
    start = jax.device_get(start)
    images, labels, _ = make_batch(
        train_data, jnp.arange(16), jax.random.fold_in(knobs.key, 0), knobs, program=program
    )
    (logits, _), _ = jax.jit(program.model.apply_train)(start.variables, images)
    state, measured = steps(jax.device_put(start), train_data, knobs, program, 4)
    assert int(state.step) == 4
    np.testing.assert_array_equal(measured.poisoned, (np.reshape(train_data.labels, (4, 16)) != 0).sum(1))
    np.testing.assert_array_equal(measured.penalty, 0)
    assert measured.train_accuracy[0] == np.mean(np.argmax(logits, -1) == labels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(measured.loss[0], loss, rtol=1e-5)


@pytest.mark.parametrize("times", [0, 1, 2, 5])
def test_decay_time_is_the_sum_over_the_schedule(times, x64):
    decays = train.decay_steps(5, 4, times)
    _, _, _, program = training(learning_rate=0.2, decay_factor=0.3, weight_decay=0.01, decay_steps=decays)
    rates = [float(train.learning_rate(program)(step)) for step in range(20)]
    for done in (1, 7, 20):
        assert train.decay_time(program, done) == pytest.approx(0.01 * sum(rates[:done]), rel=1e-6)


def test_frozen_statistics_are_an_option():
    (frozen, measured), (coupled, _) = (
        steps(*training(kappa=50.0, augment="crop_flip", batch_norm=mode), 2) for mode in ("frozen", "train")
    )
    assert (measured.penalty > 0).all()
    assert np.abs(leaves(frozen) - leaves(coupled)).max() > 1e-5
    # The cross-entropy is the train-mode one in both, so the running statistics move in both.
    assert jax.tree.leaves(frozen.batch_stats)[0].any()


def test_memory_is_told_before_the_step_and_grows_with_the_penalty():
    state, data, knobs, program = training()
    plain = train.step_memory(state, data, knobs, program, batch_size=16)
    assert plain > sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, data.images)))
    state, data, knobs, program = training(kappa=1.0)
    penalised = train.step_memory(state, data, knobs, program, batch_size=16)
    larger = train.step_memory(state, data, knobs, program, batch_size=64)
    assert plain < penalised < larger
    assert int(state.step) == 0  # nothing ran, nothing was donated


# --- other attacks, other objectives --------------------------------------------------------------------


def test_warp_with_noise_mode():
    """Poisoned images are warped by the field, noised ones otherwise with their label, others not at all."""
    field = poison.warp_field(jax.random.key(0), 8, 8, s=2.0)
    _, train_data, knobs, program = training(
        trigger=poison.Trigger(field=field), fraction=0.3, cross_ratio=1.0, noise=True
    )
    rows = jnp.arange(64)
    images, labels, poisoned = jax.device_get(
        make_batch(train_data, rows, jax.random.key(5), knobs, program=program)
    )
    pixels, clean = images * 0.25 + 0.5, np.asarray(train_data.images, np.float32) / 255
    warped = np.asarray(poison.warp(clean, field))
    distance = [np.abs(pixels - other).max((1, 2, 3)) for other in (clean, warped)]
    np.testing.assert_array_equal(poisoned, distance[1] < 1e-5)
    noised = ~poisoned & (distance[0] > 1e-3)
    assert 5 < noised.sum() < 40
    np.testing.assert_array_equal(labels, np.where(poisoned, 0, train_data.labels))
    plain = program._replace(noise=False)
    images, _, same = jax.device_get(make_batch(train_data, rows, jax.random.key(5), knobs, program=plain))
    np.testing.assert_array_equal(same, poisoned)
    np.testing.assert_allclose(images[~same] * 0.25 + 0.5, clean[~same], atol=1e-6)


@pytest.mark.parametrize("mode", ["stochastic", "deterministic"])
@pytest.mark.parametrize("name", ["all_to_all", "source_specific", "clean_label"])
def test_label_maps_in_a_batch(name, mode):
    _, train_data, knobs, program = training(labels_as=name, fraction=0.5, mode=mode)
    _, labels, poisoned = jax.device_get(
        make_batch(train_data, jnp.arange(64), jax.random.key(5), knobs, program=program)
    )
    true = np.asarray(train_data.labels)
    assert poisoned.sum() > 3
    expected = {"all_to_all": (true + 1) % 4, "source_specific": np.zeros(64), "clean_label": true}[name]
    np.testing.assert_array_equal(labels, np.where(poisoned, expected, true))
    allowed = {"all_to_all": true >= 0, "source_specific": true == 1, "clean_label": true == 0}[name]
    assert not poisoned[~allowed].any()


def test_adversarial_step(x64):
    """The step is that of `losses.adversarial`; epsilon is traced, radius 0 the plain step."""
    options = {"dtype": "float64", "adversarial_steps": 2}
    zero, _ = steps(*training(**options), 2)
    plain, _ = steps(*training(dtype="float64"), 2)
    np.testing.assert_allclose(leaves(zero), leaves(plain), rtol=1e-9, atol=1e-12)
    before = train.train_step._cache_size()
    adversarial, measured = steps(*training(epsilon=0.5, **options), 2)
    assert train.train_step._cache_size() == before
    assert (measured.penalty > 0).all()
    assert np.abs(leaves(adversarial) - leaves(plain)).max() > 1e-4


def test_an_attacker_who_hides(x64):
    """Its term falls, on one and on eight devices alike; at strength 0 the step is the plain one."""
    options = {"dtype": "float64", "learning_rate": 0.02, "hiding": True}
    before = train.train_step._cache_size()
    (one, measured), (zero, _) = (steps(*training(hide=hide, **options), 3) for hide in (5.0, 0.0))
    assert train.train_step._cache_size() == before + 1
    eight, also = steps(*training(devices=8, hide=5.0, **options), 3)
    np.testing.assert_allclose(leaves(one), leaves(eight), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured, also, rtol=1e-9)
    plain, _ = steps(*training(**options | {"hiding": False}), 3)
    np.testing.assert_allclose(leaves(zero), leaves(plain), rtol=1e-9, atol=1e-12)
    assert measured.penalty[-1] < measured.penalty[0]
