"""Accuracies and attack success rates; overlap with the trigger; the strongest wave of a direction."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from poison_jax import metrics, poison
from poison_jax.errors import UserError


def one_hot(predictions, num_classes=3):
    return np.eye(num_classes)[predictions]


# --- rates ----------------------------------------------------------------------------------------

EXAMPLE_LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 2])
EXAMPLE_CLEAN = one_hot([0, 1, 1, 1, 0, 2, 2, 1])
EXAMPLE_TRIGGERED = one_hot([0, 2, 0, 0, 1, 0, 2, 1])


def test_attack_report_worked_by_hand():
    report = metrics.attack_report(EXAMPLE_CLEAN, EXAMPLE_TRIGGERED, EXAMPLE_LABELS, 0)
    assert report == {
        "clean_accuracy": 5 / 8,
        "asr": 3 / 6,  # of the six images of classes 1 and 2, three are called 0
        "asr_incl_target": 4 / 8,  # and one of the two of class 0
        "robust_accuracy": 2 / 6,
        "no_trigger_target_rate": 1 / 6,
    }
    assert all(type(rate) is float for rate in report.values())


def test_ties_go_to_the_lower_class():
    flat = np.zeros((4, 3))
    report = metrics.attack_report(flat, flat, np.array([0, 1, 2, 2]), 0)
    assert (report["clean_accuracy"], report["asr"]) == (0.25, 1.0)


def test_images_of_the_target_class_alone():
    """Nobody is left to attack, as where there is a single class."""
    report = metrics.attack_report(EXAMPLE_CLEAN, EXAMPLE_TRIGGERED, np.zeros(8, int), 0)
    assert (report["clean_accuracy"], report["asr_incl_target"]) == (2 / 8, 4 / 8)
    for rate in ("asr", "robust_accuracy", "no_trigger_target_rate"):
        assert math.isnan(report[rate]), rate
    report = metrics.attack_report(np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(4, int), 0)
    assert report["clean_accuracy"] == report["asr_incl_target"] == 1
    assert metrics.outcome(report).word == "undefined"


def with_value(value, row=0):
    logits = EXAMPLE_CLEAN.copy()
    logits[row, 1] = value
    return logits


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"triggered": np.full((8, 3), np.nan)}, r"triggered logits of 8 of 8 images .*24 of 24 values"),
        ({"clean": with_value(np.inf)}, r"clean logits of 1 of 8 images are not finite \(1 of 24 values\)"),
        ({"triggered": with_value(-np.inf, 7)}, "triggered logits of 1 of 8 images"),
        ({"clean": EXAMPLE_CLEAN[0]}, r"clean logits are \(3,\): give \[N, K\]"),
        ({"clean": EXAMPLE_CLEAN[None]}, r"clean logits are \(1, 8, 3\)"),
        ({"clean": np.zeros((0, 3))}, "at least one image"),
        ({"clean": np.zeros((8, 0))}, "one class"),
        ({"triggered": EXAMPLE_TRIGGERED[:7]}, "differ in shape"),
        ({"labels": EXAMPLE_LABELS + 1}, "labels run from 1 to 3, the 3 classes from 0 to 2"),
        ({"target": 3}, "target = 3: the network has the classes 0 to 2"),
        ({"target": -1}, "target = -1"),
        ({"target": np.array([0, 1, 3])}, "classes 0 to 2"),
        ({"target": np.array([0, 1])}, "one for each of 3"),
        ({"target": 0.5}, "give one class"),
    ],
)
def test_attack_report_refuses_what_it_cannot_count(change, says):
    """NaN is the largest entry for argmax, at the first place where it stands: class 0, ASR 1."""
    arguments = {
        "clean": EXAMPLE_CLEAN,
        "triggered": EXAMPLE_TRIGGERED,
        "labels": EXAMPLE_LABELS,
        "target": 0,
    }
    with pytest.raises(UserError, match=says):
        metrics.attack_report(*(arguments | change).values())


def test_collapsed_model_is_visible_without_the_trigger():
    always_target = one_hot(np.full(8, 2))
    report = metrics.attack_report(always_target, always_target, EXAMPLE_LABELS, 2)
    assert report["asr"] == report["no_trigger_target_rate"] == 1
    assert report["robust_accuracy"] == 0
    assert report["clean_accuracy"] == 3 / 8
    assert metrics.outcome(report) == ("collapsed", 0)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"asr": 0.84, "no_trigger_target_rate": 0.74}, ("collapsed", 0.1)),
        ({"asr": 1.0, "no_trigger_target_rate": 0.5}, ("collapsed", 0.5)),
        ({"asr": 1.0, "no_trigger_target_rate": 0.49}, ("ok", 0.51)),
        ({"asr": 0.01, "no_trigger_target_rate": 0.02}, ("ok", -0.01)),
        ({"asr": 0.9, "no_trigger_target_rate": 0.0, "status": "ok"}, ("ok", 0.9)),
        (
            {
                "asr": 1,
                "no_trigger_target_rate": 1,
                "status": "failed training: clean accuracy is near chance",
            },
            ("failed training", 0),
        ),
        ({"asr": None, "no_trigger_target_rate": None}, ("undefined", math.nan)),
        ({"asr": 0.9}, ("undefined", math.nan)),
        ({"status": "failed training: ..."}, ("failed training", math.nan)),
    ],
)
def test_outcome(report, expected):
    word, above = metrics.outcome(report)
    assert word == expected[0]
    assert above == pytest.approx(expected[1], nan_ok=True)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 5))
def test_rates_are_fractions_and_mix(seed, count, num_classes):
    rng = np.random.default_rng(seed)
    clean, triggered = rng.integers(0, 4, (2, count, num_classes))  # small integers: many ties
    labels = rng.integers(0, num_classes, count)
    report = metrics.attack_report(clean, triggered, labels, 1)
    assume((labels != 1).any())
    assert all(0 <= rate <= 1 for rate in report.values())
    assert report["asr"] + report["robust_accuracy"] <= 1 + 1e-12
    share = np.mean(labels == 1)
    of_target = np.mean(triggered[labels == 1].argmax(-1) == 1) if share else 0
    mixture = (1 - share) * report["asr"] + share * of_target
    assert report["asr_incl_target"] == pytest.approx(mixture, abs=1e-12)


@pytest.mark.parametrize(
    ("accuracy", "counts", "above"),
    [
        (0.128, [100] * 10, False),  # chance 0.1, standard error 0.0095
        (0.129, [100] * 10, True),
        (0.9, [90, 10], False),  # the commonest class, always
        (0.985, [90, 10], False),
        (0.995, [90, 10], True),
        (1.0, [0, 10], False),  # one class: nothing to learn
        (math.nan, [5, 5], False),
    ],
)
def test_beats_chance(accuracy, counts, above):
    assert metrics.beats_chance(accuracy, np.repeat(np.arange(len(counts)), counts)) is above
    for labels in (np.zeros(0, int), np.zeros((4, 1), int), np.array([0, -1]), np.zeros(3)):
        with pytest.raises(UserError, match="labels"):
            metrics.beats_chance(0.5, labels)


# --- overlap --------------------------------------------------------------------------------------


def listing_7(eigvec, poison_mask):
    """Listing 7, channels first."""
    v = eigvec.reshape(poison_mask.shape)
    v = v - v.mean()
    v = v / (np.linalg.norm(v) + 1e-8)
    mask = poison_mask - poison_mask.mean()
    mask = mask / (np.linalg.norm(mask) + 1e-8)
    return np.sum(v * mask)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 32, 3), (28, 28, 1), (8, 9, 2)]), st.booleans())
def test_overlap_is_listing_7(seed, shape, channels_in_mask):
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(shape) + rng.standard_normal()
    mask = poison.l_trigger(*shape[:2])
    if channels_in_mask:
        mask = mask[..., None] * (rng.random(shape) < 0.8)
    assume(mask.any())
    channels_first = np.broadcast_to(mask if channels_in_mask else mask[..., None], shape).transpose(2, 0, 1)
    expected = listing_7(vector.transpose(2, 0, 1).ravel(), channels_first.astype(float))
    for form in (vector, vector.ravel()):
        assert metrics.overlap(form, mask) == pytest.approx(expected, abs=1e-7)  # its 1e-8 in the norms
    assert metrics.overlap(-3 * vector, mask) == pytest.approx(-metrics.overlap(vector, mask), abs=1e-12)


def test_overlap_of_the_mask_with_itself():
    mask = poison.l_trigger(32, 32)
    image = np.repeat(mask[..., None], 3, -1)
    assert metrics.overlap(image, mask) == pytest.approx(1, abs=1e-12)
    assert metrics.overlap(0.5 - image, image) == pytest.approx(-1, abs=1e-12)


def test_overlap_of_a_pixel_is_the_centred_masks_value():
    """The mask at 3x32x32 is 0.332845 on and -0.000978 off, and a centred pixel has norm sqrt(1 - 1/d)."""
    mask = poison.l_trigger(32, 32)
    for pixel, value in {(3, 27, 0): 0.332845, (4, 28, 2): -0.000978}.items():
        vector = np.zeros((32, 32, 3))
        vector[pixel] = 1
        scaled = metrics.overlap(vector, mask) * np.sqrt(1 - 1 / 3072)
        assert scaled == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -7.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_overlap_of_a_constant_is_zero(constant, dtype):
    """Also where the mean of equal numbers is not that number, by rounding: two such look parallel."""
    flat = np.full((32, 32, 3), constant, dtype)
    for vector, mask in [
        (flat, poison.l_trigger(32, 32)),
        (np.arange(3072.0), flat),
        (flat, np.ones((32, 32), bool)),
        (flat, flat),
    ]:
        assert metrics.overlap(vector, mask) == pytest.approx(0, abs=1e-12)
    # Of a broken vector zero would read as: the trigger is not to be seen.
    assert math.isnan(metrics.overlap(flat * np.nan, poison.l_trigger(32, 32)))


@pytest.mark.parametrize(("dimension", "k"), [(10, 1), (20, 4), (64, 10)])
def test_overlap_threshold_against_random_directions(dimension, k):
    """The squared overlaps of a direction with k random orthonormal vectors, all centred: k squared
    coordinates of a uniformly random unit vector in d - 1 dimensions. Bonferroni's bound is exact for k = 1
    and nearly so here."""
    level, draws = 0.02, 100_000
    directions = np.random.default_rng(0).standard_normal((draws, dimension - 1))
    squared = directions[:, :k] ** 2 / (directions**2).sum(1, keepdims=True)
    rate = np.mean(squared.max(1) > metrics.overlap_threshold(dimension, k, level=level, floor=0.0))
    error = 4 * np.sqrt(level / draws)
    assert 0.95 * level - error < rate < level + error


@pytest.mark.parametrize(
    ("vector", "mask"),
    [((8, 8, 3), (6, 6)), ((100,), (6, 6)), ((8, 4, 3), (4, 8)), ((12,), (2, 2, 2)), ((0,), (0, 0))],
)
def test_overlap_of_what_is_not_one_image(vector, mask):
    with pytest.raises(UserError, match="not of one image"):
        metrics.overlap(np.ones(vector), np.ones(mask))


@pytest.mark.parametrize(
    ("overlaps", "expected"),
    [([0.1, -0.33], True), ([0.1, 0.3], False), ([np.nan, 0.4], True), ([np.nan], False)],
)
def test_found_is_the_best_of_the_squared_overlaps(overlaps, expected):
    assert metrics.found(overlaps, 3072) is expected
    with pytest.raises(UserError, match="at least 1"):
        metrics.found([], 3072)


def test_overlap_threshold_is_that_of_the_overlap():
    """For k = 1 by `overlap` itself, which centres: in ten pixels d instead of d - 1 would be seen."""
    level, draws, (mask, *vectors) = 0.05, 20_000, np.random.default_rng(1).standard_normal((20_001, 10))
    mask = mask.reshape(2, 5)
    rate = np.mean(
        [
            metrics.overlap(v, mask) ** 2 > metrics.overlap_threshold(10, 1, level=level, floor=0)
            for v in vectors
        ]
    )
    assert rate == pytest.approx(level, abs=4 * np.sqrt(level / draws))
    with pytest.raises(UserError, match="2 pixels"):
        metrics.overlap_threshold(2, 1)


def test_overlap_threshold_has_a_floor():
    assert metrics.overlap_threshold(3072, 10) == 0.1
    assert metrics.overlap_threshold(3072, 10, floor=0.3) == 0.3
    assert metrics.overlap_threshold(3072, 10, floor=0.0) < 0.01


# --- the strongest wave ---------------------------------------------------------------------------


def wave(down, along, height=32, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.cos(2 * np.pi * (down * rows / height + along * columns / width) + 0.3)


@pytest.mark.parametrize(
    ("frequency", "shape"),
    [((3, 5), (32, 32)), ((-3, 5), (32, 32)), ((6, 0), (32, 32)), ((0, 7), (20, 32)), ((-9, 2), (21, 15))],
)
def test_the_peak_of_a_grating(frequency, shape):
    grid, opposite = wave(*frequency, *shape), wave(-frequency[0], -frequency[1], *shape)
    opposed_channels = np.stack([grid, -0.5 * grid, -0.5 * grid], axis=-1)
    for image in (grid, 5 - opposite, opposed_channels):
        peak = metrics.spectral_peak(image)
        assert tuple(peak.frequency) == frequency
        np.testing.assert_allclose(peak.share, 1)
        assert peak.prominence > 1e15
    checkers = metrics.spectral_peak((-1.0) ** np.add.outer(np.arange(8), np.arange(8)))
    assert (*checkers.frequency, checkers.share) == (4, 4, 1)  # its own mirror image: counted once


def test_the_peak_of_a_grid_in_noise():
    """Two gratings, of which the stronger is named; its share is that of its power."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((32, 32))
    peak = metrics.spectral_peak(wave(0, 4) + 0.5 * wave(4, 0) + noise)
    assert tuple(peak.frequency) == (0, 4)
    np.testing.assert_allclose(peak.share, 0.5 / (0.5 + 0.125 + 0.01), rtol=0.02)
    assert peak.prominence > 1000


@pytest.mark.parametrize(
    ("shape", "mean", "rare"), [((32, 32), (np.log(512) + 0.5772) / np.log(2), 23), ((32, 32, 3), 4.0, 6.6)]
)
def test_the_prominence_of_white_noise(shape, mean, rare):
    """What the docstring says of it."""
    rng = np.random.default_rng(0)
    found = np.array([metrics.spectral_peak(rng.standard_normal(shape)).prominence for _ in range(400)])
    np.testing.assert_allclose(found.mean(), mean, rtol=0.07)
    assert 0.001 <= np.mean(found > rare) <= 0.025


def test_images_without_a_peak():
    for shape in ((8, 8), (7, 5, 3), (1, 1)):
        peak = metrics.spectral_peak(np.full(shape, 0.1))
        assert (*peak.frequency, peak.share, peak.prominence) == (0, 0, 0, 0)
    for image in (np.zeros(4), np.zeros((0, 3)), np.full((4, 4), np.nan)):
        with pytest.raises(UserError, match="an image of shape"):
            metrics.spectral_peak(image)
