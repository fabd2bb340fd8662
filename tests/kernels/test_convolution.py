"""Convolutions, their transposes and derivatives of any order against XLA's own."""

import functools
import hashlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from poison_jax.errors import UserError
from poison_jax.kernels import convolution
from poison_jax.kernels.convolution import convolve, filter_gradient, input_gradient, keep_whole

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # of the largest number; sums of up to 1000 products


@pytest.fixture(scope="session")
def kernels():
    """Skips where nothing can compile the kernels, or they do not apply."""
    if convolution.chosen() == "xla":
        pytest.skip(convolution._why_not(devices=1))


def ours(images, filters, *, stride=1, padding="SAME", **others):
    others = {"dimension_numbers": DIMENSIONS} | others
    return convolution.conv_general_dilated(images, filters, np.broadcast_to(stride, 2), padding, **others)


def xlas(images, filters, *, stride=1, padding="SAME", convolutions=None, **others):
    others = {"dimension_numbers": DIMENSIONS} | others
    return jax.lax.conv_general_dilated(images, filters, np.broadcast_to(stride, 2), padding, **others)


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def program(f, *args) -> str:
    """What is handed to the compiler."""
    return jax.jit(f).lower(*args).as_text()


def calls(f, *args) -> int:
    """How many kernels a program calls."""
    return program(f, *args).count("custom_call @poison_jax.")


def assert_close(got, expected, tolerance=1e-12):
    """The same trees, up to a fraction of the largest number of each leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max(initial=0)))


def assert_same(got, expected):
    """The same trees, bit by bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, np.asarray(a).tobytes()) == (b.shape, b.dtype, np.asarray(b).tobytes())


def assert_by_kernels(make, *args):
    """`make(ours)` calls kernels and no convolution of XLA's, and computes what `make(xlas)` does."""
    lowered = jax.jit(make(ours)).lower(*args)
    assert "custom_call @poison_jax." in lowered.as_text()
    assert "stablehlo.convolution" not in lowered.as_text()
    assert_close(lowered.compile()(*args), jax.jit(make(xlas))(*args))


def test_a_compiler_is_all_that_is_needed():
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    assert convolution.slow_because() is None


# The three kernels, over shapes.


@st.composite
def geometries(draw):
    """Images, filters, stride and padding of which the padded images are not smaller than the filters."""
    taps = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3)]))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    size = [
        draw(st.integers(max(1, t - padding[2 * i] - padding[2 * i + 1]), 11)) for i, t in enumerate(taps)
    ]
    channels, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    batch = draw(st.one_of(st.integers(1, 5), st.sampled_from([17, 35])))
    return (batch, *size, channels), (*taps, channels, outputs), draw(st.integers(1, 3)), padding


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=8, deadline=None)
@given(geometries())
@example(((1, 1, 1, 1), (1, 1, 1, 1), 1, (0, 0, 0, 0)))
@example(((2, 1, 1, 3), (3, 3, 3, 2), 2, (1, 1, 1, 1)))  # one pixel
@example(((0, 5, 4, 3), (3, 3, 3, 2), 1, (1, 1, 1, 1)))  # no image
@example(((3, 7, 6, 5), (1, 1, 5, 9), 3, (0, 0, 0, 0)))  # pixels that no filter sees
@example(((40, 4, 4, 16), (3, 3, 16, 16), 1, (1, 1, 1, 1)))  # whole vectors; parts of a sum that are uneven
@example(((2, 6, 5, 4), (3, 2, 4, 40), 2, (0, 2, 2, 0)))
@example(((2, 3, 4, 2), (2, 2, 2, 3), 3, (2, 0, 0, 2)))  # a stride longer than the filter
@example(((2, 5, 4, 0), (3, 3, 0, 2), 1, (1, 1, 1, 1)))  # no channels
@example(((2, 5, 4, 2), (3, 3, 2, 0), 1, (1, 1, 1, 1)))
@example(((17, 1, 1, 1), (1, 1, 1, 1), 2, (0, 0, 1, 0)))  # padding alone
def test_value_and_gradients_equal_xlas(kernels, dtype, geometry):
    shape, taps, stride, padding = geometry
    with jax.enable_x64(dtype == "float64"):
        images, filters = normal(*shape, dtype=dtype), normal(*taps, dtype=dtype, seed=1)
        options = {"stride": stride, "padding": (padding[:2], padding[2:])}
        out = jax.eval_shape(functools.partial(xlas, **options), images, filters)
        gradient = normal(*out.shape, dtype=dtype, seed=2)

        def expected(images, filters, *, stride, padding):
            """XLA's, on padded images: where a filter sees padding alone its own is wrong (see below)."""
            padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
            return xlas(padded, filters, stride=stride, padding=((0, 0), (0, 0)))

        def value_and_gradients(convolution, images, filters, gradient):
            value, transpose = jax.vjp(functools.partial(convolution, **options), images, filters)
            return value, *transpose(gradient)

        both = jax.jit(lambda *args: (value_and_gradients(ours, *args), value_and_gradients(expected, *args)))
        lowered = both.lower(images, filters, gradient)
        assert lowered.as_text().count("custom_call @poison_jax.") == 3
        assert_close(*lowered.compile()(images, filters, gradient), TOLERANCE[dtype])


def test_filters_that_see_padding_alone(kernels):
    """Their gradient is zero; XLA's on the CPU is not (jaxlib 0.10), a 1x1 filter taken for a product."""
    images, filters = jnp.array(normal(17, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    value, transpose = jax.vjp(lambda w: ours(images, w, stride=2, padding=((0, 0), (1, 0))), filters)
    assert not value.any()
    assert not transpose(jnp.ones_like(value))[0].any()


@pytest.mark.parametrize(("padding", "stride"), [("SAME", 2), ("VALID", 1), ("SAME_LOWER", 2), ("same", 1)])
def test_padding_by_name(kernels, x64, padding, stride):
    options = {"padding": padding, "stride": stride}
    assert_by_kernels(
        lambda convolution: functools.partial(convolution, **options), normal(2, 7, 4, 3), normal(2, 3, 3, 5)
    )


def test_not_a_number_goes_where_it_goes_in_xla(kernels):
    images, filters = normal(3, 5, 5, 3, dtype="float32"), normal(3, 3, 3, 5, dtype="float32")
    images[0, 2, 2, 0], images[1, 0, 0, 1], filters[0, 0, 1, 1] = np.nan, np.inf, np.inf
    got, expected = jax.jit(ours)(images, filters), jax.jit(xlas)(images, filters)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(expected))
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))


# Derivatives of any order.


def network(convolution):
    """Two layers, of stride 1 and 2; a mean over the images."""

    def f(filters, images):
        x = jnp.tanh(convolution(images, filters[0]))
        x = convolution(x, filters[1], stride=2, padding=((1, 1), (0, 1)))
        return jax.nn.logsumexp(x.mean((1, 2)), axis=1).mean()

    return f


FILTERS = normal(3, 3, 2, 3), normal(3, 3, 3, 5)
DIRECTION = normal(3, 3, 2, 3, seed=1), normal(3, 3, 3, 5, seed=1)
IMAGES, STEP = normal(3, 6, 5, 2), normal(3, 6, 5, 2, seed=1)


def input_norm(f):
    """The penalty's own pattern: the squared norm of the input gradient, a function of the filters."""
    return lambda filters, images: (jax.grad(f, 1)(filters, images) ** 2).sum()


DERIVATIVES = {
    "grad of grad": lambda f: lambda w, x: jax.grad(input_norm(f), (0, 1))(w, x),
    "jvp of grad": lambda f: lambda w, x: jax.jvp(jax.grad(f, (0, 1)), (w, x), (DIRECTION, STEP)),
    "grad of jvp": lambda f: jax.grad(lambda w, x: jax.jvp(f, (w, x), (DIRECTION, STEP))[1], (0, 1)),
    "linearize": lambda f: lambda w, x: jax.linearize(f, w, x)[1](DIRECTION, STEP),
    "linearize of grad": lambda f: lambda w, x: jax.linearize(jax.grad(f, 1), w, x)[1](DIRECTION, STEP),
    "vjp of grad": lambda f: lambda w, x: jax.vjp(jax.grad(f, 1), w, x)[1](STEP),
    "third order": lambda f: jax.grad(lambda w, x: jax.jvp(input_norm(f), (w, x), (DIRECTION, STEP))[1]),
    "checkpoint": lambda f: jax.grad(input_norm(jax.checkpoint(f))),
    "vmap of grad of grad": lambda f: jax.vmap(jax.grad(input_norm(lambda w, x: f(w, x[None]))), (None, 0)),
    "vmap of hvp": lambda f: (
        lambda w, x: jax.vmap(lambda v: jax.jvp(lambda x: jax.grad(f, 1)(w, x), (x,), (v,))[1])(
            jnp.stack([x, STEP])
        )
    ),
    "hessian": lambda f: lambda w, x: jax.hessian(f, 1)(w, x[:1, :3, :2]),
    "scan of grad": lambda f: (
        lambda w, x: jax.lax.scan(
            lambda w, x: (jax.tree.map(lambda a, b: a - 0.1 * b, w, jax.grad(f)(w, x[None])), f(w, x[None])),
            w,
            x,
        )
    ),
    "grad of scan": lambda f: jax.grad(
        lambda w, x: jax.lax.scan(lambda s, x: (s + f(w, x[None]) ** 2, None), jnp.zeros(()), x)[0], (0, 1)
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_a_network_equal_xlas(kernels, x64, name):
    assert_by_kernels(lambda convolution: DERIVATIVES[name](network(convolution)), FILTERS, IMAGES)


# Batches of them.


def transposes(convolution, images, filters):
    """The value and both gradients, of a gradient that depends on it."""
    value, transpose = jax.vjp(functools.partial(convolution, stride=2), images, filters)
    return value, *transpose(value**2)


@pytest.mark.parametrize(
    ("axes", "out"),
    [((0, None), 0), ((None, -1), 1), ((-1, 3), -1), ((2, 0), 0)],
)
def test_vmap(kernels, x64, axes, out):
    images, filters = normal(3, 2, 6, 5, 3), normal(3, 3, 3, 3, 4)
    arguments = [
        x[0] if axis is None else np.moveaxis(x, 0, axis)
        for x, axis in zip((images, filters), axes, strict=True)
    ]
    assert_by_kernels(
        lambda convolution: jax.vmap(functools.partial(transposes, convolution), axes, out), *arguments
    )


@pytest.mark.parametrize("axes", [((0, None), (None, 0)), ((0, 0), (1, None))])
def test_vmap_of_vmap(kernels, x64, axes):
    shape = [sum(a[i] is not None for a in axes) * (3,) for i in (0, 1)]
    images, filters = normal(*shape[0], 1, 5, 4, 2), normal(*shape[1], 2, 2, 2, 3)
    assert_by_kernels(
        lambda convolution: jax.vmap(jax.vmap(functools.partial(transposes, convolution), axes[1]), axes[0]),
        images,
        filters,
    )


@pytest.mark.parametrize("mapped", ["gradient", "images", "both"])
def test_vmap_of_the_filter_gradient(kernels, x64, mapped):
    images, gradient = normal(3, 2, 5, 4, 2), normal(3, 2, 5, 4, 3)
    axes = (None if mapped == "gradient" else 0, None if mapped == "images" else 0)
    images, gradient = (x if a == 0 else x[0] for x, a in zip((images, gradient), axes, strict=True))

    def make(convolution):
        def f(images, gradient):
            filters = jnp.zeros((3, 3, 2, 3))
            return jax.linear_transpose(lambda w: convolution(images, w), filters)(gradient)[0]

        return jax.vmap(f, axes)

    assert_by_kernels(make, images, gradient)


def test_more_images_under_the_same_filters_are_one_call(kernels):
    images, filters = normal(3, 2, 6, 5, 3, dtype="float32"), normal(3, 3, 3, 4, dtype="float32")
    text = program(jax.vmap(ours, (0, None)), images, filters)
    assert text.count("custom_call @poison_jax.") == 1
    assert "while" not in text


@pytest.mark.parametrize(
    ("images", "filters"),
    [((0, 2, 5, 4, 3), (3, 3, 3, 2)), ((3, 0, 5, 4, 3), (3, 3, 3, 2)), ((3, 2, 5, 4, 0), (3, 3, 0, 2))],
)
def test_vmap_of_nothing(kernels, images, filters):
    images, filters = jnp.ones(images), jnp.ones(filters)
    assert_same(*(jax.vmap(f, (0, None))(images, filters) for f in (ours, xlas)))


# Everything else is XLA's.

USUAL = {"images": (2, 5, 5, 4), "filters": (3, 3, 4, 4)}
ARGUMENTS = {
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "image dilation": {"lhs_dilation": (2, 1), "padding": ((1, 2), (0, 0))},
    "filter dilation": {"rhs_dilation": (1, 2)},
    "groups": {"filters": (3, 3, 2, 4), "feature_group_count": 2},
    "depthwise": {"filters": (3, 3, 1, 4), "feature_group_count": 4},
    "batch groups": {"batch_group_count": 2},
    "unequal strides": {"stride": (1, 2)},
    "negative padding": {"padding": ((-1, 0), (0, 0))},
    "large filters": {"images": (2, 3, 5, 4), "filters": (5, 3, 4, 4), "padding": ((0, 1), (0, 0))},
    "NCHW": {"images": (2, 4, 5, 5), "filters": (4, 4, 3, 3), "dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    "NCHW unsaid": {"images": (2, 4, 5, 5), "filters": (4, 4, 3, 3), "dimension_numbers": None},
    "OHWI": {"filters": (4, 3, 3, 4), "dimension_numbers": ("NHWC", "OHWI", "NHWC")},
    "transposed images": {"dimension_numbers": ("NWHC", "HWIO", "NHWC")},
    "precision": {"precision": "highest"},
    "convolutions": {"convolutions": "xla"},
    "result dtype": {"preferred_element_type": np.dtype("float64")},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_elsewhere_the_result_is_xlas(kernels, x64, name):
    options = USUAL | {"dtype": "float32"} | ARGUMENTS[name]
    dtype = options.pop("dtype")
    arguments = [jnp.array(normal(*options.pop(array)), dtype) for array in ("images", "filters")]

    def make(convolution):
        def loss(images, filters):
            out = convolution(images, filters, **options)
            return out.astype("float32").sum(), out

        return jax.value_and_grad(loss, (0, 1), has_aux=True)

    assert calls(make(ours), *arguments) == 0
    assert_same(jax.jit(make(ours))(*arguments), jax.jit(make(xlas))(*arguments))


def test_one_and_three_dimensions_are_xlas(kernels):
    for shape, taps in [((2, 9, 3), (3, 3, 4)), ((1, 4, 5, 4, 2), (3, 3, 3, 2, 2))]:
        rank = len(shape) - 2
        numbers = ("NHWDC"[: rank + 1] + "C", "HWD"[:rank] + "IO", "NHWDC"[: rank + 1] + "C")
        arguments = normal(*shape, dtype="float32"), normal(*taps, dtype="float32"), (1,) * rank, "SAME"
        got = convolution.conv_general_dilated(*arguments, dimension_numbers=numbers)
        assert_same(got, jax.lax.conv_general_dilated(*arguments, dimension_numbers=numbers))


@pytest.mark.parametrize(
    "options",
    [
        {"lhs_dilation": (1, 1), "rhs_dilation": [1, 1]},
        {"rhs_dilation": np.array([1, 1])},
        {"batch_group_count": 1, "preferred_element_type": None},
        {"dimension_numbers": jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))},
        {"padding": np.array([[1, 0], [2, 1]])},
        {"padding": [(np.int64(1), 0), [2, 1]]},
    ],
)
def test_spelt_otherwise_it_is_still_a_kernel(kernels, x64, options):
    assert_by_kernels(
        lambda convolution: functools.partial(convolution, **options), normal(2, 5, 4, 3), normal(3, 3, 3, 2)
    )


REFUSED = [  # what differs from images (2, 5, 5, 3), filters (3, 3, 3, 2), strides (1, 1) and padding "SAME"
    {"filters": (3, 3, 4, 2)},  # channels that do not agree
    {"images": (2, 5, 5)},
    {"filters": (0, 3, 3, 2), "padding": "VALID"},
    {"strides": (1,)},
    {"strides": (1, 1, 1)},
    {"strides": (0, 0), "padding": ((0, 0), (0, 0))},
    {"strides": (-1, -1), "padding": ((0, 0), (0, 0))},
    {"padding": ((1, 1),)},
    {"padding": ((1, 1, 1), (1,))},
    {"padding": ((0.5, 1), (1, 1))},
    {"padding": 1},
    {"padding": "FULL"},
    {"rhs_dilation": (1,)},
    {"no_such_option": 1},
    {"dimension_numbers": ("NHWC", "HWXO", "NHWC")},
    {"dtypes": ("float32", "bfloat16")},
    {"dtypes": ("float64", "float32")},
]


@pytest.mark.parametrize("change", REFUSED)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_xla_refuses_is_refused_in_its_words(kernels, x64, change):
    options = {"images": (2, 5, 5, 3), "filters": (3, 3, 3, 2), "dimension_numbers": DIMENSIONS}
    options |= {"strides": (1, 1), "padding": "SAME", "dtypes": ("float32", "float32")} | change
    images_type, filters_type = options.pop("dtypes")
    arrays = jnp.ones(options.pop("images"), images_type), jnp.ones(options.pop("filters"), filters_type)
    arguments = *arrays, options.pop("strides"), options.pop("padding")
    with pytest.raises((TypeError, ValueError, RuntimeError)) as theirs:
        jax.lax.conv_general_dilated(*arguments, **options)
    said = re.split(r"\s+at loc", str(theirs.value))[0]
    with pytest.raises(theirs.type, match=re.escape(said)):
        convolution.conv_general_dilated(*arguments, **options)


def test_the_three_refuse_arrays_that_do_not_go_together(kernels):
    """A kernel trusts the shapes that it is given: it would read past the end of an array."""
    images, filters, gradient = jnp.ones((2, 5, 4, 3)), jnp.ones((3, 3, 3, 2)), jnp.ones((2, 5, 4, 2))
    geometry = {"stride": 1, "padding": (1, 1, 1, 1)}
    assert convolve(images, filters, **geometry).shape == gradient.shape
    for bad in (filters[..., :2, :], filters.astype("float16"), filters[0], filters.astype(int)):
        with pytest.raises((TypeError, ValueError)):
            convolve(images, bad, **geometry)
    for bad in (gradient[..., :1], gradient[:, 1:], gradient[:, :, 1:], gradient.astype("float16")):
        with pytest.raises((TypeError, ValueError)):
            input_gradient(bad, filters, size=(5, 4), **geometry)
        with pytest.raises((TypeError, ValueError)):
            filter_gradient(images, bad[:1] if bad.shape[-1] == 1 else bad, size=(3, 3), **geometry)


def test_a_choice_is_what_is_used(kernels, monkeypatch):
    assert convolution.chosen("auto") == convolution.chosen("kernels") == "kernels"
    assert convolution.chosen("xla") == convolution.chosen("auto", devices=2) == "xla"
    assert convolution.slow_because("xla") is None
    assert calls(functools.partial(keep_whole, convolutions="xla"), jnp.ones(3)) == 0
    with pytest.raises(UserError, match="one device, not on 8; use auto or xla"):
        convolution.chosen("kernels", devices=8)
    with pytest.raises(UserError, match="'cudnn': use one of auto, kernels, xla"):
        convolution.chosen("cudnn")
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    assert convolution.chosen("auto") == "xla"
    assert convolution.slow_because("kernels") is None
    with pytest.raises(UserError, match="on CPUs, not on gpu"):
        convolution.chosen("kernels")


def test_uncompiled_they_are_the_same(kernels):
    """`jax.disable_jit` runs a program operation by operation: each of these is still one call."""
    images, filters = normal(2, 5, 5, 3, dtype="float32"), normal(3, 3, 3, 4, dtype="float32")

    def penalty(images, filters):
        gradient = jax.grad(lambda x: (keep_whole(ours(x, filters)) ** 3).sum())(images)
        return (gradient**2).sum()

    compiled = jax.jit(jax.grad(penalty, 1))(images, filters)
    with jax.disable_jit():
        assert_close(jax.grad(penalty, 1)(images, filters), compiled, TOLERANCE["float32"])


# Several devices.


def devices(axis_type=AxisType.Auto):
    return Mesh(np.array(jax.devices()[:8]), ("data",), axis_types=(axis_type,))


def sharded(mesh, images, *others):
    """Images over the devices, everything else on each of them."""
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec()))
    return jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))), *map(put, others)


def penalised(convolution):
    """A sum over the batch, as training has it: every kind of product, and a filter gradient."""

    def loss(images, *filters):
        return network(convolution)(filters, images) + input_norm(network(convolution))(filters, images)

    return jax.value_and_grad(loss, (0, 1, 2))


@pytest.mark.skipif(jax.device_count() < 8, reason="8 devices needed")
def test_over_several_devices_nothing_is_gathered(kernels, x64):
    arguments = normal(16, 6, 5, 2), *FILTERS
    expected = jax.jit(penalised(ours))(*arguments)
    assert calls(penalised(ours), *arguments) > 0
    spread = sharded(devices(), *arguments)
    lowered = jax.jit(penalised(ours)).lower(*spread)
    assert "poison_jax." not in lowered.as_text()
    compiled = lowered.compile()
    text = compiled.as_text()
    assert "all-gather" not in text
    assert "all-reduce" in text  # of the filters' gradients
    assert compiled.output_shardings[1][0].spec == PartitionSpec("data")
    assert_close(compiled(*spread), expected)
    # Not under `jit` either.
    out = ours(*spread[:2])
    assert out.sharding.spec[:1] == ("data",)
    assert_close(out, xlas(*arguments[:2]))


@pytest.mark.skipif(jax.device_count() < 8, reason="8 devices needed")
def test_on_another_device_than_the_first(kernels):
    images, filters = normal(2, 5, 5, 3, dtype="float32"), normal(3, 3, 3, 4, dtype="float32")
    there = jax.device_put((images, filters), jax.devices()[5])
    assert calls(ours, *there) == 1
    assert ours(*there).devices() == {jax.devices()[5]}
    assert_same(jax.device_get(ours(*there)), jax.device_get(ours(images, filters)))


@pytest.mark.skipif(jax.device_count() < 8, reason="8 devices needed")
def test_under_shard_map(kernels, x64):
    arguments = normal(8, 6, 5, 2), *FILTERS

    def make(convolution):
        """Each device's part of a mean over the batch, whose filters' gradient JAX sums."""

        def loss(images, *filters):
            return jax.lax.pmean(network(convolution)(filters, images), "data")

        specs = PartitionSpec("data"), *(PartitionSpec() for _ in FILTERS)
        return jax.grad(
            jax.shard_map(loss, mesh=devices(), in_specs=specs, out_specs=PartitionSpec()), (0, 1)
        )

    assert_close(jax.jit(make(ours))(*arguments), jax.jit(make(xlas))(*arguments))


@pytest.mark.skipif(jax.device_count() < 8, reason="8 devices needed")
def test_with_shardings_in_types(kernels, x64):
    mesh = devices(AxisType.Explicit)
    with jax.set_mesh(mesh):
        arguments = sharded(mesh, normal(8, 6, 5, 2), *FILTERS)
        got, expected = (jax.jit(penalised(f))(*arguments) for f in (ours, xlas))
        assert_close(got, expected)
        assert got[1][0].sharding == expected[1][0].sharding


# Bits.


def by_kernels(images, filters, gradient, *, stride=1, padding=(1, 1, 1, 1)):
    """All three."""
    geometry = {"stride": stride, "padding": padding}
    return (
        convolve(images, filters, **geometry),
        input_gradient(gradient, filters, size=images.shape[1:3], **geometry),
        filter_gradient(images, gradient, size=filters.shape[:2], **geometry),
    )


def bits(tree) -> str:
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree))).hexdigest()


SOME = {"images": (37, 9, 7, 5), "filters": (3, 3, 5, 19), "gradient": (37, 9, 7, 19)}


def some(dtype="float32"):
    return [jnp.array(normal(*shape, dtype=dtype)) for shape in SOME.values()]


def test_the_same_bits_again_and_the_inputs_left_alone(kernels):
    arguments = some()
    before = bits(arguments)
    run = jax.jit(by_kernels)
    first = bits(run(*arguments))
    assert all(bits(run(*arguments)) == first for _ in range(20))
    assert bits(by_kernels(*arguments)) == first  # without `jit`
    assert bits(arguments) == before


def test_an_image_does_not_depend_on_its_batch(kernels):
    images, filters, gradient = some()
    whole = jax.jit(by_kernels)(images, filters, gradient)
    part = jax.jit(by_kernels)(images[3:5], filters, gradient[3:5])
    assert_same(part[:2], tuple(x[3:5] for x in whole[:2]))


# The identity that keeps what it is given.


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (3, 5), (0, 2)])
def test_keep_whole_is_the_identity(kernels, x64, dtype, shape):
    x = jnp.array(10 * normal(*shape)).astype(dtype)
    before = np.array(x)
    assert calls(keep_whole, x) == 1
    for f in (keep_whole, jax.jit(keep_whole)):
        assert_same(f(x), before)
    assert_same(jax.jit(jax.vmap(keep_whole))(x[None]), before[None])
    assert_same(x, before)


def test_keep_whole_in_derivatives(kernels, x64):
    x, v = jnp.array(normal(4)), jnp.array(normal(4, seed=1))

    def make(keep):
        def f(x):
            y = keep(jnp.sin(x))
            return (keep(y**2 * x) * y).sum()

        def all_of_them(x, v):
            return (
                f(x),
                jax.jvp(f, (x,), (v,)),
                jax.grad(f)(x),
                jax.linearize(jax.grad(f), x)[1](v),
                jax.hessian(f)(x),
                jax.jacrev(jax.jacrev(f))(x),
                jax.vmap(jax.grad(f))(jnp.stack([x, v])),
                jax.vmap(keep, (1,), 1)(jnp.stack([x, v])),
                jax.grad(jax.grad(lambda t: jax.jvp(f, (t * x,), (v,))[1]))(2.0),
            )

        return all_of_them

    assert_close(jax.jit(make(keep_whole))(x, v), jax.jit(make(lambda x: x))(x, v))
    # Tangents and cotangents are kept too.
    assert calls(lambda x, v: jax.jvp(keep_whole, (x,), (v,)), x, v) == 2
    assert calls(lambda x, v: jax.vjp(keep_whole, x)[1](v), x, v) >= 1
    check_grads(jax.jit(lambda x: keep_whole(x) ** 3), (x,), order=2, modes=["fwd", "rev"], rtol=1e-6)


def test_keep_whole_is_in_place_where_it_may_be(kernels):
    x = jnp.array(normal(100, dtype="float32"))
    inside = jax.jit(lambda x: keep_whole(jnp.sin(x)) * 2).lower(x).compile().as_text()
    assert "poison_jax.KeepWhole" in inside
    assert "output_to_operand_aliasing" in inside
    assert " copy(" not in inside[inside.index("ENTRY") :]  # but in the loop of the sine
    # What was there before is still needed, or the caller's, or the constant of a program that runs again.
    f = jax.jit(lambda x: (keep_whole(x), x + 1, keep_whole(jnp.arange(3.0)) + 1))
    for _ in range(2):
        kept, more, constant = f(x)
        assert_same(kept, x)
        assert_same(more, x + 1)
        assert_same(constant, jnp.arange(3.0) + 1)
    donated = jnp.array(x)
    assert_same(jax.jit(keep_whole, donate_argnums=0)(donated), x)


@pytest.mark.skipif(jax.device_count() < 8, reason="8 devices needed")
def test_keep_whole_over_several_devices(kernels):
    x = normal(8, 3, dtype="float32")
    (spread,) = sharded(devices(), x)
    lowered = jax.jit(jax.grad(lambda x: (keep_whole(x) ** 2).sum())).lower(spread)
    assert "poison_jax." not in lowered.as_text()
    compiled = lowered.compile()
    assert "all-gather" not in compiled.as_text()
    assert_same(jax.device_get(compiled(spread)), 2 * x)
    assert_same(jax.device_get(keep_whole(spread)), x)
