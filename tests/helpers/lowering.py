"""Networks for the lowering tests, and the comparison of a graph with its module."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import nn

from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.passes import optimised

RELATIVE = 1e-12  # of the largest output, in float64


def randomised(module, seed=0):
    """The module in eval mode with batch-norms away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            if layer.affine:
                nn.init.uniform_(layer.weight, -1.5, 1.5, generator=generator)
                nn.init.normal_(layer.bias, generator=generator)
    return module.eval()


def relative_error(graph, module, x):
    """Largest difference of the graph's outputs and the module's, of the largest output."""
    with torch.no_grad():
        expected = copy.deepcopy(module).double()(x.clone()).flatten(1)
    got = interpret(graph, x)
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def lowered(module, shape, examples=3):
    """The module's graph and its optimised form, both compared with the module."""
    graph = lower(module, shape)
    better = optimised(graph)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((examples, *shape), dtype=torch.float64, generator=generator)
    for one in (graph, better):
        assert relative_error(one, module, x) <= RELATIVE
    return graph, better


def kinds(graph):
    """How many nodes of each class."""
    return dict(Counter(type(node).__name__ for node in graph.nodes))


class Block(nn.Module):
    """relu(body(x) + shortcut(x)), in place as torchvision writes it."""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.body(x)
        out += identity
        return self.relu(out)


def _convolution(before, after, size, stride=1):
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
    )


def _basic(before, after, stride):
    return nn.Sequential(
        _convolution(before, after, 3, stride),
        nn.ReLU(inplace=True),
        _convolution(after, after, 3),
    )


def _bottleneck(before, after, stride):
    return nn.Sequential(
        _convolution(before, after // 4, 1),
        nn.ReLU(inplace=True),
        _convolution(after // 4, after // 4, 3, stride),
        nn.ReLU(inplace=True),
        _convolution(after // 4, after, 1),
    )


class ImageNetResNet(nn.Module):
    """The residual network of torchvision, any width: 7x7 stem, max pool, four stages."""

    def __init__(self, make, depths, width, expansion):
        super().__init__()
        self.stem = _convolution(3, width, 7, 2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential()
        before = width
        for i, depth in enumerate(depths):
            for j in range(depth):
                after, stride = width * 2**i * expansion, 2 if i > 0 and j == 0 else 1
                same = before == after and stride == 1
                shortcut = None if same else _convolution(before, after, 1, stride)
                self.stages.append(Block(make(before, after, stride), shortcut))
                before = after
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, 7)

    def forward(self, x):
        x = self.maxpool(self.relu(self.stem(x)))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))


def resnet18(width=8):
    """Of basic blocks."""
    return ImageNetResNet(_basic, (2, 2, 2, 2), width, 1)


def resnet50(width=4):
    """Of bottlenecks."""
    return ImageNetResNet(_bottleneck, (3, 4, 6, 3), width, 4)
