"""PreResNet in PyTorch, with the names that `convert.to_torch` gives the weights of `models.preresnet`.

Needs torch alone, and may be copied out of here.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """norm-relu-conv two or three times, added to the input, or to a 1x1 convolution of it."""

    def __init__(self, channels: int, layers: list[tuple[int, int, int]]):
        super().__init__()
        width_in, stride = channels, max(layer[2] for layer in layers)
        for i, (width, taps, step) in enumerate(layers, 1):
            setattr(self, f"norm{i}", nn.BatchNorm2d(width_in))
            setattr(self, f"conv{i}", nn.Conv2d(width_in, width, taps, step, taps // 2, bias=False))
            width_in = width
        self.count, changes = len(layers), stride != 1 or channels != width_in
        self.shortcut = nn.Conv2d(channels, width_in, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"conv{i}")(F.relu(getattr(self, f"norm{i}")(y)))
        return y + self.shortcut(x)


class PreResNet(nn.Module):
    """Logits `[B, K]` of normalised images `[B, C, H, W]`."""

    def __init__(
        self, depth: int, num_classes: int, block: str = "basic", width: int = 16, channels: int = 3
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        channels, self.names = width, []
        for stage in range(3):
            inner = width * 2**stage
            for index in range((depth - 2) // (6 if block == "basic" else 9)):
                stride = 2 if stage > 0 and index == 0 else 1
                layers = [(inner, 3, stride), (inner, 3, 1)]  # channels out, taps, stride
                if block == "bottleneck":
                    layers = [(inner, 1, 1), (inner, 3, stride), (4 * inner, 1, 1)]
                self.names.append(f"stage{stage + 1}_block{index + 1}")
                self.add_module(self.names[-1], Block(channels, layers))
                channels = layers[-1][0]
        self.norm_out = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return self.fc(F.relu(self.norm_out(x)).mean((2, 3)))
