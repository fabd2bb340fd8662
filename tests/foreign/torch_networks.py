"""Others' architectures in PyTorch, by which ours are checked."""

import torch
import torch.nn.functional as F
from torch import nn


class PreActBlock(nn.Module):
    """BackdoorBench's: the shortcut reads relu(bn1(x))."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False))

    def forward(self, x):
        y = F.relu(self.bn1(x))
        x = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + x


class Block(nn.Module):
    """The basic block of He et al."""

    def __init__(self, width_in, width, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.way = shortcut
        if stride != 1 or width_in != width:
            made = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            setattr(self, shortcut, made)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        way = getattr(self, self.way, nn.Identity())
        return F.relu(y + way(x))


class ResNet18(nn.Module):
    """preact, cifar or torchvision."""

    def __init__(self, form, num_classes=10, channels=3):
        super().__init__()
        self.form, large = form, form == "torchvision"
        self.conv1 = nn.Conv2d(
            channels, 64, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False
        )
        if form != "preact":
            self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for stage in range(4):
            blocks = []
            for index in range(2):
                out, stride = 64 * 2**stage, 2 if stage and not index else 1
                way = () if form == "preact" else ("downsample" if large else "shortcut",)
                blocks.append((PreActBlock if form == "preact" else Block)(width, out, stride, *way))
                width = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        setattr(self, "fc" if large else "linear", nn.Linear(512, num_classes))

    def forward(self, x):
        x = self.conv1(x)
        if self.form != "preact":
            x = F.relu(self.bn1(x))
        if self.form == "torchvision":
            x = F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        head = self.fc if self.form == "torchvision" else self.linear
        return head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class VGG16(nn.Module):
    """torchvision's; `units` of the two inner linear layers are 4096 there."""

    def __init__(self, norm, num_classes=10):
        super().__init__()
        layers, width = [], 3
        for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if out:
                layers += [nn.Conv2d(width, out, 3, padding=1), *[nn.BatchNorm2d(out)] * norm, nn.ReLU()]
                width = out
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        inner = [
            nn.Linear(512 * 49, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
        ]
        self.classifier = nn.Sequential(*inner, nn.Linear(4096, num_classes))

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


class LeNet5(nn.Module):
    """AdverTorch's."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.linear1, self.linear2 = nn.Linear(64 * 49, 200), nn.Linear(200, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def scattered(module, seed=0):
    """The module with running statistics, scales and biases that are not the initial ones; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            low = 0.5 if "bias" not in name and "mean" not in name else -0.2
            value.uniform_(low, low + 0.7, generator=generator)
    return module.eval()
