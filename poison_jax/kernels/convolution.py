"""Convolutions whose derivatives, of any order, are as fast as themselves on a CPU.

XLA's CPU backend takes three times as long for a convolution of few channels as its arithmetic needs, up to
30 times for the gradients of one inside a loop, and copies arrays into other layouts for them. Double
backprop and Hessian products are made of little else. Here a convolution and its two transposes, the input
gradient and the filter gradient, are three primitives, bilinear and closed under differentiation: whatever
`grad`, `jvp`, `vmap` and `linearize` make of a network is again made of these three. On a single CPU device
each is one call of the kernels in `convolution.cc`: a training step takes half the time.

The kernels take float32 and float64, one stride for rows and columns, images NHWC and filters HWIO without
dilation or groups. Everything else is XLA's own convolution: other types and parameters, GPUs and TPUs,
several devices, a machine without a C++ compiler, `convolutions="xla"`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from poison_jax.errors import UserError
from poison_jax.kernels import library

Padding = tuple[int, int, int, int]  # pixels of zeros at the top, bottom, left and right

CHOICES = ("auto", "kernels", "xla")
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array, rhs: jax.Array, window_strides, padding, *, convolutions: str = "auto", **options
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, through the kernels where they apply.

    A drop-in: a network uses it by `flax.linen.Conv(..., conv_general_dilated=conv_general_dilated)`.

    Args:
        lhs: images `[N, H, W, I]`.
        rhs: filters `[KH, KW, I, O]`.
        window_strides, padding, **options: as `jax.lax.conv_general_dilated` takes them.
        convolutions: one of `CHOICES`; see `chosen`.

    Returns:
        `[N, H', W', O]`.
    """
    xla = functools.partial(
        jax.lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
    )
    jax.eval_shape(xla, lhs, rhs)  # whatever is wrong with the arguments, in XLA's words
    mesh = jax.sharding.get_abstract_mesh()
    dimension_numbers = options.pop("dimension_numbers", None)
    dilations = options.pop("lhs_dilation", None), options.pop("rhs_dilation", None)
    plain = (
        lhs.ndim == rhs.ndim == 4
        and min(rhs.shape[:2]) > 0
        and not (mesh.manual_axes or mesh.explicit_axes)  # `shard_map`, shardings in types: by XLA's rules
        and lhs.dtype == rhs.dtype
        and lhs.dtype in (jnp.float32, jnp.float64)
        and window_strides[0] == window_strides[1] > 0
        and all(dilation is None or tuple(dilation) == (1, 1) for dilation in dilations)
        and all(value is None or value == 1 for value in options.values())  # groups, precision, types
        and _is_nhwc(lhs, rhs, dimension_numbers)
    )
    if plain:
        pads = padding
        if isinstance(padding, str):
            pads = jax.lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        pads = tuple(int(p) for pair in pads for p in pair)
        fits = all(
            size + low + high >= taps
            for size, taps, low, high in zip(
                lhs.shape[1:3], rhs.shape[:2], pads[::2], pads[1::2], strict=True
            )
        )
        if min(pads) >= 0 and fits and chosen(convolutions) == "kernels":
            return convolve(lhs, rhs, stride=int(window_strides[0]), padding=pads)
    return xla(lhs, rhs)


def chosen(convolutions: str = "auto", *, devices: int = 1) -> str:
    """Which convolutions a choice amounts to in this process: `"kernels"` or `"xla"`.

    The two differ by rounding, so that a result says which of them it was computed with.

    Args:
        convolutions: `"kernels"` insists on the kernels, `"xla"` on XLA's own convolutions; `"auto"` takes
            the kernels where they apply: on one CPU device, with a C++ compiler.
        devices: that the arrays are spread over.

    Raises:
        UserError: an unknown choice, or kernels that do not apply here.
    """
    if convolutions not in CHOICES:
        raise UserError(f"model.convolutions = {convolutions!r}: use one of {', '.join(CHOICES)}")
    if convolutions == "xla":
        return "xla"
    reason = _why_not(devices)
    if reason and convolutions == "kernels":
        raise UserError(f"model.convolutions = kernels: {reason}; use auto or xla")
    return "xla" if reason else "kernels"


def slow_because(convolutions: str = "auto") -> str | None:
    """Why a CPU that could use the kernels does not have them, in words; None where nothing is amiss."""
    return library.load() if convolutions != "xla" and jax.default_backend() == "cpu" else None


def _why_not(devices: int) -> str | None:
    """Why convolutions over so many devices cannot go through the kernels; None where they can."""
    if jax.default_backend() != "cpu":
        return f"they run on CPUs, not on {jax.default_backend()}"
    if devices > 1:
        return f"they run on one device, not on {devices}"
    return library.load()


def convolve(images: jax.Array, filters: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """`out[n, p, o] = sum_{k, i} images[n, stride p + k - padding, i] filters[k, i, o]`, one primitive.

    Args:
        images: `[N, H, W, I]`.
        filters: `[KH, KW, I, O]`, not larger than the padded image.
        stride: of rows and columns.
        padding: zeros around the images, none negative.

    Returns:
        `[N, H', W', O]`.
    """
    return _convolve.bind(images, filters, stride=stride, padding=padding)


def input_gradient(
    gradient: jax.Array, filters: jax.Array, *, stride: int, padding: Padding, size: tuple[int, int]
) -> jax.Array:
    """The transpose of `convolve` in its images: a gradient `[N, H', W', O]` -> `[N, *size, I]`."""
    return _input_gradient.bind(gradient, filters, stride=stride, padding=padding, size=tuple(size))


def filter_gradient(
    images: jax.Array, gradient: jax.Array, *, stride: int, padding: Padding, size: tuple[int, int]
) -> jax.Array:
    """The transpose of `convolve` in its filters: a gradient `[N, H', W', O]` -> `[*size, I, O]`."""
    return _filter_gradient.bind(images, gradient, stride=stride, padding=padding, size=tuple(size))


def keep_whole(x: jax.Array, *, convolutions: str = "auto") -> jax.Array:
    """The identity; where the kernels are chosen `x`, its tangents and cotangents are computed once and kept.

    That backend drops `jax.lax.optimization_barrier`, and fuses a sum with whatever is added to it next:
    every block of a residual network would read the outputs of all blocks before it, at a cost in time and
    in compilation that grows with the square of the depth.
    """
    return _keep.bind(x) if chosen(convolutions) == "kernels" else x


def _is_nhwc(lhs, rhs, dimension_numbers) -> bool:
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS)


# The same three by XLA, for several devices and for platforms other than the CPU.


def _xla_convolve(images, filters, *, stride, padding):
    pads = (padding[:2], padding[2:])
    return jax.lax.conv_general_dilated(
        images, filters, (stride, stride), pads, dimension_numbers=_DIMENSIONS
    )


def _xla_input_gradient(gradient, filters, *, size, **geometry):
    images = jax.ShapeDtypeStruct((len(gradient), *size, filters.shape[2]), gradient.dtype)
    return jax.linear_transpose(lambda x: _xla_convolve(x, filters, **geometry), images)(gradient)[0]


def _xla_filter_gradient(images, gradient, *, size, **geometry):
    filters = jax.ShapeDtypeStruct((*size, images.shape[3], gradient.shape[3]), gradient.dtype)
    return jax.linear_transpose(lambda w: _xla_convolve(images, w, **geometry), filters)(gradient)[0]


def _shape(images, filters, *, stride, padding):
    if len(images.shape) != 4 or len(filters.shape) != 4 or images.shape[3] != filters.shape[2]:
        raise TypeError(f"images {images.shape} do not go with filters {filters.shape}")
    sides = zip(images.shape[1:3], filters.shape[:2], padding[::2], padding[1::2], strict=True)
    out = ((size + low + high - taps) // stride + 1 for size, taps, low, high in sides)
    return (images.shape[0], *out, filters.shape[3])


def _input_shape(gradient, filters, *, size, **geometry):
    images = jax.ShapeDtypeStruct((gradient.shape[0], *size, filters.shape[2]), gradient.dtype)
    _agree(gradient.shape, _shape(images, filters, **geometry))
    return images.shape


def _filter_shape(images, gradient, *, size, **geometry):
    filters = jax.ShapeDtypeStruct((*size, images.shape[3], gradient.shape[3]), images.dtype)
    _agree(gradient.shape, _shape(images, filters, **geometry))
    return filters.shape


def _agree(given, expected):
    if given != expected:
        raise TypeError(f"the output's gradient is {given}, the output would be {expected}")


def _on_one_device(context) -> bool:
    """The partitioner cannot look inside a call: it would gather every device's images on each of them."""
    return getattr(context.module_context.axis_context, "num_devices", 0) == 1


def _compiled(primitive: Primitive):
    """What a primitive does outside of `jax.jit`: a compiled call of itself, also under `jax.disable_jit`."""
    call = jax.jit(primitive.bind, static_argnames=("stride", "padding", "size"))

    def run(*arguments, **parameters):
        with jax.disable_jit(False):  # else the call would come back here, without end
            return call(*arguments, **parameters)

    return run


def _primitive(name: str, by_xla, shape) -> Primitive:
    """A primitive of two arrays that is one call of a kernel on a single CPU device, else `by_xla`."""
    primitive = Primitive(name)

    @primitive.def_abstract_eval
    def _(a, b, **parameters):
        if a.dtype != b.dtype or a.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(f"{name} takes two arrays of float32 or float64, not {a.dtype} and {b.dtype}")
        return jax.core.ShapedArray(shape(a, b, **parameters), a.dtype)

    primitive.def_impl(_compiled(primitive))

    generic = mlir.lower_fun(by_xla, multiple_results=False)
    call = jax.ffi.ffi_lowering(library.target(name))

    def lower(context, a, b, *, stride, padding, size=None):
        if not _on_one_device(context):
            size = {} if size is None else {"size": size}
            return generic(context, a, b, stride=stride, padding=padding, **size)
        return call(context, a, b, stride=np.int64(stride), padding=np.array(padding, np.int64))

    mlir.register_lowering(primitive, generic)
    mlir.register_lowering(primitive, lower, platform="cpu")

    def batch(arguments, dims, **parameters):
        a, b = arguments
        if dims[1] is None and primitive is not _filter_gradient:
            a = jnp.moveaxis(a, dims[0], 0)  # more images under the same filters
            out = primitive.bind(a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), b, **parameters)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        count = next(x.shape[d] for x, d in zip(arguments, dims, strict=True) if d is not None)
        arguments = [
            jnp.moveaxis(x, d, 0) if d is not None else jnp.broadcast_to(x, (count, *x.shape))
            for x, d in zip(arguments, dims, strict=True)
        ]
        return jax.lax.map(lambda ab: primitive.bind(*ab, **parameters), tuple(arguments)), 0

    batching.primitive_batchers[primitive] = batch
    return primitive


_convolve = _primitive(library.CALLS[0], _xla_convolve, _shape)
_input_gradient = _primitive(library.CALLS[1], _xla_input_gradient, _input_shape)
_filter_gradient = _primitive(library.CALLS[2], _xla_filter_gradient, _filter_shape)

_keep = Primitive("KeepWhole")
_keep.def_impl(_compiled(_keep))
_keep.def_abstract_eval(lambda x: x)
ad.deflinear2(_keep, lambda c, x: [_keep.bind(c)])
batching.defvectorized(_keep)


def _lower_keep(context, x):
    if not _on_one_device(context):
        return mlir.lower_fun(jax.lax.optimization_barrier, multiple_results=False)(context, x)
    return jax.ffi.ffi_lowering(library.target("KeepWhole"), operand_output_aliases={0: 0})(context, x)


mlir.register_lowering(_keep, mlir.lower_fun(jax.lax.optimization_barrier, multiple_results=False))
mlir.register_lowering(_keep, _lower_keep, platform="cpu")

# For the convolution C, <c, C(x, w)> = <D(c, w), x> = <W(x, c), w>: every derivative is one of the three.
ad.defbilinear(
    _convolve,
    lambda c, x, w, **geometry: input_gradient(c, w, size=x.aval.shape[1:3], **geometry),
    lambda c, x, w, **geometry: filter_gradient(x, c, size=w.aval.shape[:2], **geometry),
)
ad.defbilinear(
    _input_gradient,
    lambda c, y, w, size, **geometry: convolve(c, w, **geometry),
    lambda c, y, w, size, **geometry: filter_gradient(c, y, size=w.aval.shape[:2], **geometry),
)
ad.defbilinear(
    _filter_gradient,
    lambda c, x, y, size, **geometry: input_gradient(y, c, size=x.aval.shape[1:3], **geometry),
    lambda c, x, y, size, **geometry: convolve(x, c, **geometry),
)
