"""PreResNet (He et al., 2016). The only file that knows Flax modules.

Everything else sees a `Model`: pure functions of variables and images.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from poison_jax import environment, kernels
from poison_jax.errors import UserError, about

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}


class Features(NamedTuple):
    """What the classifier sees: the pre-fc features and the feature map that they average."""

    pre_fc: jax.Array  # [B, F]
    last_map: jax.Array  # [B, h, w, F]


class Model(NamedTuple):
    """A network as pure functions; hashable, so that it can be a static argument of `jax.jit`."""

    module: nn.Module

    def init(self, key: jax.Array, image_shape: tuple[int, int, int]) -> Variables:
        """Fresh variables for images `[H, W, C]`."""
        return _init(self.module, key, tuple(image_shape))

    def apply(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, Features | None]:
        """Inference (running statistics): images `[B, H, W, C]` -> logits `[B, K]`, features or None."""
        return _with_features(self.module.apply(variables, images, train=False))

    def apply_train(self, variables: Variables, images: jax.Array):
        """Training (batch statistics): `((logits, features), new running statistics)`."""
        out, new = self.module.apply(variables, images, train=True, mutable=["batch_stats"])
        return _with_features(out), new.get("batch_stats", {})


def _with_features(out: Any) -> tuple[jax.Array, Features | None]:
    return out if isinstance(out, tuple) else (out, None)


def own(make: Callable[[int], nn.Module], num_classes: int, image_shape: tuple[int, int, int]) -> Model:
    """The network that a function of yours makes (`model.name = "my_module:make"`).

    Args:
        make: `num_classes -> module`, a Linen module whose `__call__(images [B, H, W, C], train)` returns
            logits `[B, K]`, or them and `Features`; it may have batch norm (`batch_stats`), no dropout.
        num_classes: number of logits.
        image_shape: `[H, W, C]` of the images that it is for.

    Raises:
        UserError: the function fails, what it makes is no Linen module, or that fails on such images, returns
            something else, or has variables besides `params` and `batch_stats`.
    """
    try:
        module = make(num_classes)
    except Exception as error:  # a user's function may raise anything
        raise UserError(f"model.name: the function fails: {about(error)}") from None
    if not isinstance(module, nn.Module):
        raise UserError(f"model.name: the function made {type(module).__name__}, not a flax.linen.Module")
    model, images = Model(module), jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    try:
        variables = jax.eval_shape(lambda key: model.init(key, image_shape), environment.key(0))
        outputs = (
            jax.eval_shape(model.apply, variables, images),
            jax.eval_shape(lambda *arguments: model.apply_train(*arguments)[0], variables, images),
        )
    except Exception as error:
        fails = f"the network fails on images {images.shape}"
        raise UserError(f"model.name: {fails}: {about(error)}") from None
    if others := sorted(set(variables) - {"params", "batch_stats"}):
        raise UserError(
            f"model.name: the network has variables {', '.join(others)}: only params and batch_stats are kept"
        )
    for output in outputs:
        logits, features = output if len(output) == 2 else (None, None)
        if getattr(logits, "shape", None) != (2, num_classes) or not isinstance(features, Features | None):
            raise UserError(
                f"model.name: the network must return logits {(2, num_classes)} for images {images.shape}, "
                "or them and models.Features"
            )
    return model


def knows_features(model: Model, image_shape: tuple[int, int, int]) -> bool:
    """Whether a network returns its pre-fc features, and `params` has the classifier that reads them."""
    variables = jax.eval_shape(lambda key: model.init(key, image_shape), environment.key(0))
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    _, features = jax.eval_shape(model.apply, variables, images)
    return features is not None and has_classifier(variables["params"])


def has_classifier(params: Any) -> bool:
    """Whether the last layer is a Dense layer called `fc`, with a bias, as that of `PreResNet`."""
    return set(params.get("fc", ())) == {"kernel", "bias"}


@cache  # equal settings give the same object, so that jitted functions of `model.apply` are reused
def preresnet(
    depth: int,
    num_classes: int,
    *,
    block: str = "basic",
    width: int = 16,
    dtype: str = "float32",
    convolutions: str = "auto",
    remat: bool = False,
) -> Model:
    """Pre-activation ResNet for small images, any input size and number of channels.

    Args:
        depth: 6n + 2 with basic blocks, 9n + 2 with bottleneck blocks, n >= 1 blocks a stage.
        num_classes: number of logits.
        block: `basic` (two 3x3) or `bottleneck` (1x1, 3x3, 1x1, four times the width out).
        width: channels of the first stage; doubled at each of the two following.
        dtype: of the computation, `float32`, `bfloat16` or (with x64 enabled) `float64`. Parameters,
            running statistics and logits stay in float32 for `bfloat16`.
        convolutions: `auto`, `kernels` or `xla`; see `kernels.chosen`.
        remat: keep the inputs of blocks alone, and compute in a gradient again what is inside them
            (`jax.checkpoint`): less memory, more time. XLA's CPU backend saves nothing.

    Raises:
        UserError: illegal depth, block, width, dtype or convolutions.
    """
    if dtype not in ("float32", "bfloat16", "float64"):
        raise UserError(f"model.dtype {dtype!r}: use float32, bfloat16 or float64")
    if num_classes < 1:
        raise UserError(f"a network needs at least one class, not {num_classes}")
    kernels.chosen(convolutions)
    check_architecture(depth, block, width)
    blocks = (depth - 2) // _LAYERS_PER_BLOCK[block]
    param_dtype = jnp.float64 if dtype == "float64" else jnp.float32
    return Model(
        PreResNet(blocks, block, width, num_classes, jnp.dtype(dtype), param_dtype, convolutions, remat)
    )


def check_architecture(depth: int, block: str, width: int) -> None:
    """Raises `UserError` for a block, depth or width that no PreResNet has."""
    if block not in _LAYERS_PER_BLOCK:
        raise UserError(f"model.block {block!r}: use basic or bottleneck")
    step = _LAYERS_PER_BLOCK[block]
    if not step + 2 <= depth <= LARGEST or (depth - 2) % step:
        nearest = max(1, round((min(depth, LARGEST) - 2) / step)) * step + 2
        raise UserError(f"model.depth {depth}: {block} blocks need {step}n + 2, n >= 1; nearest is {nearest}")
    if not 1 <= width <= LARGEST:
        raise UserError(f"model.width {width}: use at least 1 channel, at most {LARGEST}")


def rough_parameter_count(depth: int, block: str, width: int) -> int:
    """Parameters to a few percent, without making any: (1 + 4 + 16) w^2 over the stages, and so many each."""
    blocks = (depth - 2) // _LAYERS_PER_BLOCK[block]
    return blocks * 21 * width**2 * (18 if block == "basic" else 17)


def parameter_count(variables: Variables) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@partial(jax.jit, static_argnums=(0, 2))
def _init(module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Variables:
    # Drawn in float32 whatever the precision, so that it is the same network in each.
    if not isinstance(module, PreResNet):
        return module.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)
    drawn = module.clone(dtype=jnp.float32, param_dtype=jnp.float32)
    with flax.config.temp_flip_flag("fix_rng_separator", False):  # $FLAX_FIX_RNG_SEPARATOR draws others
        variables = drawn.init(key, jnp.zeros((1, *image_shape), jnp.float32))
    return jax.tree.map(lambda leaf: leaf.astype(module.param_dtype), variables)


LARGEST = 10_000  # depth and width: no device holds more, and XLA ends the process that asks it to
_LAYERS_PER_BLOCK = {"basic": 6, "bottleneck": 9}  # over the three stages
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_dense_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PreResNet(nn.Module):
    """Three stages of `blocks` pre-activation blocks; batch norm and ReLU; average pool; fc."""

    blocks: int
    block: str
    width: int
    num_classes: int
    dtype: Any
    param_dtype: Any
    convolutions: str = "auto"
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Features]:
        conv = partial(
            nn.Conv,
            use_bias=False,
            kernel_init=_conv_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=partial(kernels.conv_general_dilated, convolutions=self.convolutions),
        )
        norm = partial(
            BatchNorm, use_running_average=not train, dtype=self.dtype, param_dtype=self.param_dtype
        )
        keep = partial(kernels.keep_whole, convolutions=self.convolutions)
        # Traced once for each shape: a network of many blocks takes a third of the time to trace. The lifted
        # ones draw other numbers.
        make_block = Block
        if not self.is_initializing():
            make_block = nn.jit(nn.remat(Block) if self.remat else Block)
        x = conv(self.width, (3, 3), name="conv_in")(x.astype(self.dtype))
        for stage in range(3):
            for index in range(self.blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                x = make_block(self.block, self.width * 2**stage, stride, conv, norm, keep, name=name)(x)
        last_map = nn.relu(norm(name="norm_out")(x))
        # Pooled in the parameters' precision: a mean of bfloat16 numbers would lose digits.
        pre_fc = last_map.astype(self.param_dtype).mean(axis=(1, 2))
        fc = nn.Dense(
            self.num_classes,
            kernel_init=_dense_init,
            dtype=self.param_dtype,
            param_dtype=self.param_dtype,
            name="fc",
        )
        return fc(pre_fc), Features(pre_fc, last_map)


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last, as one multiplication and one addition per number.

    `flax.linen.BatchNorm` with the same variables, momentum 0.9 and epsilon 1e-5, but `x a + b` in the place
    of `(x - mean) a + bias`: derivatives then keep and read x alone, not `x - mean` beside it.
    """

    use_running_average: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, features, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, features, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, self.param_dtype)
        wide = x.astype(self.param_dtype)  # statistics of bfloat16 numbers would lose digits
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            axes = tuple(range(x.ndim - 1))
            mean = wide.mean(axes)
            var = jnp.maximum(0, jnp.mean(wide**2, axes) - mean**2)  # a difference: may round below zero
            if not self.is_initializing():
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * var
        a = scale * jax.lax.rsqrt(var + 1e-5)
        return (wide * a + (bias - mean * a)).astype(self.dtype)


class Block(nn.Module):
    """norm-relu-3x3 twice, or norm-relu-1x1, -3x3, -1x1 to four times the width, added to the input.

    Where the shape changes the input is added through a 1x1 convolution.
    """

    block: str
    width: int
    stride: int
    conv: Callable
    norm: Callable
    keep: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = [(self.width, 3, self.stride), (self.width, 3, 1)]  # channels out, taps, stride
        if self.block == "bottleneck":
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        y = x
        for i, (width, taps, stride) in enumerate(layers, 1):
            y = nn.relu(self.norm(name=f"norm{i}")(y))
            y = self.conv(width, (taps, taps), stride, padding=taps // 2, name=f"conv{i}")(y)
        if self.stride != 1 or x.shape[-1] != width:
            x = self.conv(width, (1, 1), self.stride, name="shortcut")(x)
        return self.keep(y + x)
