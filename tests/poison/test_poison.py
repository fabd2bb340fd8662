"""Triggers, stamping, and who is poisoned."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_jax import poison
from poison_jax.errors import UserError


def listing_2(size_img, margin, size):
    """Listing 2 before its normalisation, one channel."""
    mask = np.zeros((size_img, size_img))
    ys = slice(margin, margin + size)
    xs = slice(size_img - margin - size, size_img - margin)
    cy = (ys.start + ys.stop - 1) // 2
    cx = (xs.start + xs.stop - 1) // 2
    mask[ys, cx] = 1.0
    mask[cy, xs] = 1.0
    return mask


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_img", [8, 28, 32, 33])
@pytest.mark.parametrize(("margin", "size"), [(3, 2), (0, 1), (0, 2), (1, 3), (2, 4), (0, 8), (3, 5)])
def test_l_is_listing_2(size_img, margin, size):
    mask = poison.l_trigger(size_img, size_img, margin=margin, size=size)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, listing_2(size_img, margin, size))


def test_corners():
    """The L upper right, the square lower right, also in an oblong image."""
    assert np.argwhere(poison.l_trigger(32, 32)).tolist() == [[3, 27], [3, 28], [4, 27]]  # the paper's
    assert np.argwhere(poison.l_trigger(10, 20)).tolist() == [[3, 15], [3, 16], [4, 15]]
    mnist = poison.square(28, 28)
    assert mnist.dtype == bool
    assert np.argwhere(mnist).tolist() == [[26, 26], [26, 27], [27, 26], [27, 27]]
    assert np.argwhere(poison.square(4, 6, margin=1, size=1)).tolist() == [[2, 4]]


@pytest.mark.parametrize("trigger", [poison.l_trigger, poison.square])
@pytest.mark.parametrize(("margin", "size"), [(-1, 2), (3, 0), (7, 2), (0, 9), (9, 1)])
def test_trigger_outside_the_image(trigger, margin, size):
    trigger(9, 9, margin=0, size=9)
    for shape in [(8, 8), (8, 20), (20, 8)]:
        with pytest.raises(UserError, match=f"outside the {shape[0]}x{shape[1]} image"):
            trigger(*shape, margin=margin, size=size)


@pytest.fixture
def mask_file(tmp_path):
    """A function that writes a user's mask and returns its name."""

    def write(mask):
        np.save(tmp_path / "mask.npy", mask)
        return str(tmp_path / "mask.npy")

    return write


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_load_mask(mask_file, shape, dtype):
    mask = np.random.default_rng(0).random(shape) < 0.3
    loaded = poison.load_mask(mask_file(mask.astype(dtype)), 4, 5, 3)
    assert loaded.dtype == bool
    np.testing.assert_array_equal(loaded, mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((5, 4)), r"is \(5, 4\), the image \(4, 5, 3\)"),
        (np.ones((4, 5, 1)), r"is \(4, 5, 1\), the image \(4, 5, 3\)"),
        (np.ones(20), r"is \(20,\)"),
        (np.zeros((4, 5)), "marks no pixel"),
        (np.full((4, 5), {}), "is not a readable .npy file"),  # pickled
        (np.full((4, 5), "x"), "holds <U1, not all of them finite numbers"),
        (np.full((4, 5), np.nan), "holds float64, not all of them finite numbers"),
    ],
    ids=["transposed", "channels", "flat", "empty", "pickled", "text", "nan"],
)
def test_malformed_mask(mask_file, mask, message):
    with pytest.raises(UserError, match=rf"\A.*poison.mask: .*mask.npy' {message}.*\Z"):
        poison.load_mask(mask_file(mask), 4, 5, 3)


UNREADABLE = {
    "absent": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("0 1 1 0"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "header": lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"(")),
    "npz": lambda path: (np.savez(f"{path}.npz", mask=np.ones((4, 5))), os.replace(f"{path}.npz", path)),
    "truncated-npz": lambda path: path.write_bytes(b"PK\3\4"),
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_mask(mask_file, damage):
    name = mask_file(np.ones((4, 5)))
    damage(Path(name))
    with pytest.raises(UserError, match=r"\A.*mask.npy' is not a readable .npy file.*\Z"):
        poison.load_mask(name, 4, 5, 3)


def test_trigger_by_name(mask_file):
    mask = np.eye(9, dtype=bool)
    named = {
        "l": poison.l_trigger(9, 9, margin=1, size=3),
        "square": poison.square(9, 9, margin=1, size=3),
        "mask": mask,
        "none": np.zeros((9, 9)),
    }
    for name, expected in named.items():
        actual = poison.trigger_mask(name, 9, 9, 3, margin=1, size=3, path=mask_file(mask))
        np.testing.assert_array_equal(actual, expected, err_msg=name)
    with pytest.raises(UserError, match="unknown trigger 'blob': use l, square, mask or none"):
        poison.trigger_mask("blob", 9, 9, 3, margin=1, size=3)


# --- stamping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize("channels_in_mask", [False, True])
@pytest.mark.parametrize("value_shape", [(), (3,), (5, 6, 3)], ids=["scalar", "colour", "picture"])
def test_stamp_sets_the_pixels_under_the_mask(batch, channels_in_mask, value_shape):
    rng = np.random.default_rng(0)
    images = rng.random((*batch, 5, 6, 3), np.float32)
    mask = rng.random((5, 6, 3) if channels_in_mask else (5, 6)) < 0.4
    value = rng.random(value_shape, np.float32)
    everywhere = np.broadcast_to(mask if channels_in_mask else mask[..., None], images.shape)

    stamped = np.asarray(jax.jit(poison.stamp)(images, mask, value))

    assert stamped.dtype == np.float32
    picture = np.broadcast_to(value, images.shape)
    np.testing.assert_array_equal(stamped[everywhere], picture[everywhere])  # nothing of the image is left
    np.testing.assert_array_equal(stamped[~everywhere], images[~everywhere])
    np.testing.assert_array_equal(poison.stamp(stamped, mask, value), stamped)


def test_stamp_is_white_and_keeps_the_dtype():
    stamped = poison.stamp(jnp.full((32, 32, 3), 0.7, jnp.bfloat16), poison.l_trigger(32, 32))
    assert stamped.dtype == jnp.bfloat16
    assert np.argwhere(stamped[..., 0] == 1).tolist() == [[3, 27], [3, 28], [4, 27]]


@pytest.mark.parametrize("attack", ["stamp", "blend", "warp", "function"])
@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.full((2, 8, 8, 1), 200, np.uint8), "images are uint8: .* divide them by 255"),
        (np.zeros((2, 8, 8, 1), np.int64), "images are int64"),
        (np.zeros((2, 8, 8, 1), bool), "images are bool"),
        (np.full((2, 8, 8, 1), 200, np.float32), r"run from 200 to 200: .* images in \[0, 1\]"),
        (np.linspace(-1.9, 2.1, 128, dtype=np.float32).reshape(2, 8, 8, 1), "before normalisation"),
        (np.full((2, 8, 8, 1), np.nan, np.float32), "run from nan"),
        (np.zeros((8, 8), np.float32), "height, width, channels"),
    ],
    ids=["uint8", "int64", "bool", "255", "normalised", "nan", "no channels"],
)
def test_images_that_are_not_in_the_unit_interval(attack, images, says):
    """Set to 1 of 255 a pixel would be black; refused in NumPy, in JAX, and (by type) where it is traced."""
    mask, field = np.eye(8, dtype=bool), poison.warp_field(jax.random.key(0), 8, 8)
    attacks = {
        "stamp": lambda images: poison.stamp(images, mask),
        "blend": lambda images: poison.blend(images, 0.5 * mask, np.ones(1)),
        "warp": lambda images: poison.warp(images, field),
        "function": lambda images: poison.apply(images, poison.own_trigger(lambda x: 1 - x, (8, 8, 1))),
    }
    by_type = images.dtype != np.float32 or images.ndim < 3
    given = images.astype(np.int32) if images.dtype == np.int64 else images
    for function in (attacks[attack], *([jax.jit(attacks[attack])] if by_type else [])):
        for form in (images, jnp.asarray(given)):
            with pytest.raises(UserError, match=says.replace("64", "(32|64)")):
                function(form)


@pytest.mark.parametrize(
    "images", [jnp.linspace(-0.1, 1.1, 64).reshape(1, 8, 8, 1), np.zeros((0, 8, 8, 1), np.float32)]
)
def test_images_a_little_outside_the_unit_interval_and_no_images_are_attacked(images):
    assert poison.stamp(images, np.eye(8, dtype=bool)).shape == images.shape
    assert poison.warp(images, poison.warp_field(jax.random.key(0), 8, 8)).shape == images.shape


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": np.ones((6, 6), bool)}, r"a mask \(6, 6\) does not fit .*give \(8, 8\) or \(8, 8, 3\)"),
        ({"mask": np.ones((8, 8, 2), bool)}, "a mask"),
        ({"mask": np.ones((2, 8, 8, 3), bool)}, "a mask"),
        ({"mask": np.full((8, 8), 255, np.uint8)}, "opacity runs from 255 to 255"),
        ({"value": 255}, "value runs from 255 to 255"),
        ({"value": np.full((8, 8, 3), 200, np.uint8)}, "value runs from 200"),
        ({"value": np.nan}, "value runs from nan"),
        ({"value": np.ones(2)}, r"a value \(2,\) does not fit"),
        ({"value": np.ones((2, 8, 8, 3))}, "a value"),
        # Three numbers would broadcast a grey image to three channels.
        ({"value": np.ones(3), "images": np.zeros((2, 8, 8, 1), np.float32)}, "a value"),
    ],
)
def test_triggers_that_do_not_fit(change, says):
    arguments = {"images": np.zeros((2, 8, 8, 3), np.float32), "mask": np.ones((8, 8), bool), "value": 1}
    with pytest.raises(UserError, match=says):
        poison.stamp(**arguments | change)


# --- who is poisoned, deterministically -----------------------------------------------------------

IDS = np.random.default_rng(0).permutation(50_000)[:3000]
LABELS = np.random.default_rng(1).integers(0, 10, 3000)
ALL_TO_ONE = poison.label_map("all_to_one", 10, target=7)


@pytest.mark.parametrize("theta", [0.001, 0.1, 0.5])
def test_deterministic_rule_is_listing_3(theta):
    listing_3 = [
        label != 7 and np.random.RandomState(seed=idx + 42).rand() < theta
        for idx, label in zip(IDS, LABELS, strict=True)
    ]
    np.testing.assert_array_equal(poison.select_deterministic(IDS, LABELS, theta, 7), listing_3)


def test_documented_draws():
    draws = poison.deterministic_draws(np.arange(300))
    np.testing.assert_allclose(draws[:3], [0.374540, 0.115055, 0.834842], atol=5e-7)
    np.testing.assert_array_equal(poison.deterministic_draws(np.arange(1, 301), seed=41), draws)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31 - 43), st.integers(0, 9))
def test_deterministic_sets_are_nested_in_theta(a, b, first_id, target):
    ids, labels = first_id + np.arange(40), np.arange(40) % 10
    smaller, larger = (poison.select_deterministic(ids, labels, f, target) for f in sorted((a, b)))
    assert not np.any(smaller & ~larger)
    assert not np.any(larger & (labels == target))


def test_deterministic_extremes():
    assert not poison.select_deterministic(IDS, LABELS, 0.0, 7).any()
    np.testing.assert_array_equal(poison.select_deterministic(IDS, LABELS, 1.0, 7), LABELS != 7)
    assert not poison.select_deterministic(IDS, np.full(3000, 7), 1.0, 7).any()


@pytest.mark.parametrize(
    "labels", [LABELS[:, None], LABELS[:-1], LABELS[None], LABELS * 1.0], ids=["N1", "short", "1N", "float"]
)
def test_labels_that_are_not_one_for_each_example(labels):
    """`[N, 1]` would broadcast to N x N choices."""
    calls = [
        lambda: poison.select_deterministic(IDS, labels, 0.1, 7),
        lambda: poison.select_with_noise(np.zeros(3000), labels, 0.1, 0.0, ALL_TO_ONE),
    ]
    if len(labels) != 2999:
        calls.append(lambda: poison.select_stochastic(jax.random.key(0), np.float32(labels), 0.1, 7))
    if labels.ndim == 2:
        calls.append(lambda: jax.jit(poison.select_stochastic)(jax.random.key(0), labels, 0.1, 7))
    for call in calls:
        with pytest.raises(UserError, match=r"labels are"):
            call()


@pytest.mark.parametrize("theta", [-0.1, 1.1, np.nan, np.inf, 10.0])
@pytest.mark.parametrize(
    "select",
    [
        lambda theta: poison.select_deterministic(IDS, LABELS, theta, 7),
        lambda theta: poison.select_stochastic(jax.random.key(0), LABELS, theta, 7),
        lambda theta: poison.select_with_noise(np.zeros(3000), LABELS, theta, 0.0, ALL_TO_ONE),
    ],
)
def test_a_fraction_outside_the_unit_interval_where_it_is_not_traced(select, theta):
    with pytest.raises(UserError, match=r"is not in \[0, 1\]"):
        select(theta)


# --- who is poisoned, stochastically --------------------------------------------------------------


def example_keys(seed, ids):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), ids)


@pytest.fixture(params=["one key", "a key for each example"])
def make_key(request):
    """A function of seed and number of examples."""
    if request.param == "one key":
        return lambda seed, count: jax.random.key(seed)
    return lambda seed, count: example_keys(seed, np.arange(count))


@pytest.mark.parametrize("theta", [0.001, 0.1, 0.7])
def test_stochastic_rate(make_key, theta):
    labels = np.arange(100_000) % 10
    selected = np.asarray(poison.select_stochastic(make_key(0, 100_000), labels, theta, 7))
    assert selected.dtype == bool
    assert not selected[labels == 7].any()
    for label in set(range(10)) - {7}:  # 5 standard deviations of Binomial(10,000, theta)
        assert abs(selected[labels == label].sum() - 1e4 * theta) < 5 * np.sqrt(1e4 * theta * (1 - theta))


def test_stochastic_extremes(make_key):
    labels = np.arange(10_000) % 10
    key = make_key(0, 10_000)
    assert not poison.select_stochastic(key, labels, 0.0, 7).any()
    np.testing.assert_array_equal(poison.select_stochastic(key, labels, 1.0, 7), labels != 7)


def test_stochastic_draws_are_fresh_for_every_key_and_the_same_for_one(make_key):
    labels = np.zeros(1000, int)
    one, two, again = (poison.select_stochastic(make_key(s, 1000), labels, 0.5, 7) for s in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert 0.4 < np.mean(one != two) < 0.6  # independent draws differ half of the time


def test_per_example_draws_do_not_depend_on_the_batch():
    keys, labels = example_keys(0, IDS), LABELS
    whole = poison.select_stochastic(keys, labels, 0.3, 7)
    batch = np.random.default_rng(2).permutation(3000)[:128]
    np.testing.assert_array_equal(poison.select_stochastic(keys[batch], labels[batch], 0.3, 7), whole[batch])


def test_theta_and_target_are_traced():
    traces = []

    @jax.jit
    def select(key, labels, theta, target):
        traces.append(theta)
        return poison.select_stochastic(key, labels, theta, target)

    key = jax.random.key(0)
    for theta, target in [(0.0, 1), (0.3, 7), (1.0, 0)]:
        np.testing.assert_array_equal(
            select(key, LABELS, theta, target), poison.select_stochastic(key, LABELS, theta, target)
        )
    assert len(traces) == 1


def test_select_stochastic_takes_old_style_keys():
    labels = np.arange(100) % 10
    for many in (lambda key: key, lambda key: jax.random.split(key, 100)):
        keys = many(jax.random.key(0)), many(jax.random.PRNGKey(0))
        new, old = (poison.select_stochastic(key, labels, 0.5, 0) for key in keys)
        np.testing.assert_array_equal(new, old)


# --- blended and user pictures ------------------------------------------------------------------------


def test_blend_is_a_convex_combination_and_exact_at_its_ends():
    images = np.float32(np.random.default_rng(0).random((2, 5, 4, 3)))
    opacity = np.zeros(images.shape[1:3], np.float32)
    opacity[0], opacity[1] = 1, 0.25
    picture = np.float32(np.random.default_rng(3).random(images.shape[1:]))
    out = np.asarray(poison.blend(images, opacity, picture))
    np.testing.assert_array_equal(out[:, 0], np.broadcast_to(picture[0], out[:, 0].shape))
    np.testing.assert_allclose(out[:, 1], 0.75 * images[:, 1] + 0.25 * picture[1], rtol=1e-6)
    np.testing.assert_array_equal(out[:, 2:], images[:, 2:])


def picture_file(folder, array, mode):
    path = folder / "picture.png"
    PIL.Image.fromarray(array, mode=None).convert(mode).save(path)
    return str(path)


def test_small_picture_lies_in_the_lower_right(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 3), np.uint8)
    path = picture_file(tmp_path, pixels, "RGB")
    picture, opacity = poison.load_picture(path, 8, 9, 3, margin=1)
    assert opacity.sum() == 6
    np.testing.assert_allclose(picture[4:7, 6:8], pixels / 255, rtol=1e-6)
    assert opacity[4:7, 6:8].all()


def test_picture_of_the_images_size_ignores_the_margin_and_keeps_its_transparency(tmp_path):
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[:4, :, 3] = 51
    picture, opacity = poison.load_picture(picture_file(tmp_path, pixels, "RGBA"), 8, 8, 1, margin=3)
    assert picture.shape == (8, 8, 1)
    np.testing.assert_allclose(opacity[:4], 0.2, rtol=1e-6)
    assert (opacity[4:] == 1).all()


def test_a_picture_of_16_bits_keeps_its_values(tmp_path):
    """Pillow's conversion to 8 bits clips at 255: nearly all would be white."""
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    PIL.Image.fromarray(values).save(tmp_path / "deep.png")
    for channels in (1, 3):
        picture, _ = poison.load_picture(str(tmp_path / "deep.png"), 8, 8, channels, margin=0)
        expected = np.broadcast_to(values[..., None] / 65535, (8, 8, channels))
        np.testing.assert_allclose(picture, expected, rtol=1e-12)


def test_bad_pictures(tmp_path):
    path = picture_file(tmp_path, np.zeros((8, 8, 3), np.uint8), "RGB")
    with pytest.raises(UserError, match="too large for the 6x9 image"):
        poison.load_picture(path, 6, 9, 3, margin=0)
    with pytest.raises(UserError, match="1 or 3"):
        poison.load_picture(path, 8, 8, 2, margin=0)
    with pytest.raises(UserError, match="transparent"):
        poison.load_picture(picture_file(tmp_path, np.zeros((2, 2, 4), np.uint8), "RGBA"), 8, 8, 3, margin=0)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "absent.png", ""):
        with pytest.raises(UserError, match=r"poison\.picture"):
            poison.load_picture(str(tmp_path / name), 8, 8, 3, margin=0)


# --- label maps ---------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.data())
def test_label_maps(num_classes, data):
    target = data.draw(st.integers(0, num_classes - 1))
    classes = np.arange(num_classes)
    one = poison.label_map("all_to_one", num_classes, target=target)
    assert (one.aim == target).all()
    np.testing.assert_array_equal(one.eligible, classes != target)
    everyone = poison.label_map("all_to_all", num_classes, target=target)
    assert sorted(everyone.aim) == list(classes)  # a permutation without fixed points
    assert ((everyone.aim != classes) == everyone.eligible).all()
    clean = poison.label_map("clean_label", num_classes, target=target)
    assert list(np.flatnonzero(clean.eligible)) == [target]
    assert (clean.aim[clean.eligible] == classes[clean.eligible]).all()  # no label changes
    if num_classes > 1:
        source = data.draw(st.sampled_from([c for c in classes.tolist() if c != target]))
        specific = poison.label_map("source_specific", num_classes, target=target, source=source)
        assert (
            list(np.flatnonzero(specific.aim != classes))
            == [source]
            == list(np.flatnonzero(specific.eligible))
        )
        assert specific.aim[source] == target


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("some_to_one", 3, 0, 1), "unknown label map"),
        (("all_to_one", 3, 3, 1), r"poison\.target = 3"),
        (("source_specific", 3, 0, 5), r"poison\.source = 5"),
        (("source_specific", 3, 1, 1), "both 1"),
    ],
)
def test_bad_label_maps(arguments, words):
    name, count, target, source = arguments
    with pytest.raises(UserError, match=words):
        poison.label_map(name, count, target=target, source=source)


def test_a_source_that_is_not_asked_for_need_not_exist():
    """Data of one class have none beside the target."""
    assert poison.label_map("all_to_one", 1, target=0, source=1).aim.tolist() == [0]


@given(st.floats(0, 1), st.floats(0, 3), st.integers(0, 99))
def test_poisoned_and_crossed_never_meet(fraction, ratio, seed):
    rng = np.random.default_rng(seed)
    draws, labels = rng.random(200), rng.integers(0, 4, 200)
    map_ = poison.label_map("all_to_one", 4, target=2)
    poisoned, noised = poison.select_with_noise(draws, labels, fraction, ratio, map_)
    assert not (poisoned & noised).any()
    np.testing.assert_array_equal(poisoned, (draws < fraction) & (labels != 2))
    np.testing.assert_array_equal(noised, (draws >= fraction) & (draws < fraction * (1 + ratio)))
    assert not poison.select_with_noise(draws, labels, fraction, 0, map_)[1].any()
