"""ResNet-18 in three forms that are met in strangers' files."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from poison_jax.foreign import sequential
from poison_jax.models import Features


class ResNet18(nn.Module):
    """Four stages of two basic blocks, 64 to 512 channels."""

    form: str  # preact, cifar, torchvision
    num_classes: int
    convolutions: str = "auto"  # as of `models.preresnet`

    @property
    def ends(self) -> tuple[str, str]:
        """Names of the first and the last layer with weights."""
        return "conv1", "fc" if self.form == "torchvision" else "linear"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Features]:
        conv = partial(sequential.conv, self.convolutions, use_bias=False, kernel_init=sequential.he_init)
        large = self.form == "torchvision"
        x = conv(64, 7, stride=2, pad=3, name="conv1")(x) if large else conv(64, 3, pad=1, name="conv1")(x)
        if self.form != "preact":
            x = nn.relu(sequential.norm(x, train, "bn1"))
        if large:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        block = PreActBlock if self.form == "preact" else BasicBlock
        shortcut = "downsample" if large else "shortcut"
        for stage in range(4):
            for index in range(2):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}.{index}"
                x = block(64 * 2**stage, stride, shortcut, conv, name=name)(x, train)
        pooled = x.mean((1, 2))
        head = nn.Dense(self.num_classes, kernel_init=sequential.torch_init, name=self.ends[1])
        return head(pooled), Features(pooled, x)


class _Block(nn.Module):
    """What both blocks are given."""

    width: int
    stride: int
    shortcut: str
    conv: Callable

    def projection(self, x: jax.Array) -> nn.Conv | None:
        """The shortcut's 1x1 convolution, where the shape changes."""
        if self.stride == 1 and x.shape[-1] == self.width:
            return None
        return self.conv(self.width, 1, stride=self.stride, name=f"{self.shortcut}.0")


class BasicBlock(_Block):
    """conv-norm-relu, conv-norm, added to the input, relu."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.width, 3, stride=self.stride, pad=1, name="conv1")(x)
        y = self.conv(self.width, 3, pad=1, name="conv2")(nn.relu(sequential.norm(y, train, "bn1")))
        y = sequential.norm(y, train, "bn2")
        if (project := self.projection(x)) is not None:
            x = sequential.norm(project(x), train, f"{self.shortcut}.1")
        return nn.relu(y + x)


class PreActBlock(_Block):
    """norm-relu-conv twice, added to the input, or to a 1x1 convolution of the first norm-relu."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(sequential.norm(x, train, "bn1"))
        if (project := self.projection(x)) is not None:
            x = project(y)
        y = self.conv(self.width, 3, stride=self.stride, pad=1, name="conv1")(y)
        y = self.conv(self.width, 3, pad=1, name="conv2")(nn.relu(sequential.norm(y, train, "bn2")))
        return y + x
