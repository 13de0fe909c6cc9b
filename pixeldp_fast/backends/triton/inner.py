"""The convolution kernel as a run of one operation, where the table of tunings names it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.triton import operators, tuning
from pixeldp_fast.backends.triton.convolution import ConvolutionConfig, convolution_config
from pixeldp_fast.backends.triton.runs import AbstractKernel, Run, RunModule, Target
from pixeldp_fast.plan.ops import Convolution, Graph


class TritonConvolution(AbstractKernel[RunModule]):
    """A convolution of one group, with bias, residual and activation."""

    name: ClassVar[str] = "convolution"

    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        return None if self._config(graph, first, target) is None else first + 1

    def supports(self, run: Run, target: Target) -> Support:
        return Support(True)

    def prepare(self, run: Run, target: Target) -> RunModule:
        config = self._config(run.graph, run.first, target)
        assert config is not None
        return _ConvolutionRun(run, config, target)

    def _config(self, graph: Graph, i: int, target: Target) -> ConvolutionConfig | None:
        """How it runs: only where the table has a line for it."""
        node = graph.nodes[i]
        if not isinstance(node, Convolution) or node.groups != 1 or node.dilation != (1, 1):
            return None
        outputs, channels, *window = node.weight.shape
        source = graph.shapes[node.source]
        shape = tuning.shape_of(*source, outputs, *window, *node.stride)
        default = convolution_config(channels, outputs, target.dtype)
        return tuning.listed(self.name, shape, target.dtype, target.device, default)


class _ConvolutionRun(RunModule):
    weight: Tensor  # [O, kh, kw, C]
    bias: Tensor

    def __init__(self, run: Run, config: ConvolutionConfig, target: Target) -> None:
        super().__init__()
        (node,) = run.nodes
        assert isinstance(node, Convolution)
        weight = node.weight.detach().to(target.device, target.dtype).permute(0, 2, 3, 1)
        bias = weight.new_zeros(len(weight)) if node.bias is None else node.bias.detach()
        self.register_buffer("weight", weight.clone(memory_format=torch.contiguous_format))
        self.register_buffer("bias", bias.to(target.device, torch.float32).clone())
        (top, bottom), (left, right) = node.padding
        self._stride, self._padding = list(node.stride), [top, bottom, left, right]
        self._slope = node.activation.slope
        self._residual = None if node.residual is None else run.reads.index(node.residual)
        self._fields = operators.fields_of(config)
        self.words = tuning.described("convolution", config)

    def forward(self, *inputs: Tensor) -> Tensor:
        made: Tensor = operators.convolve(
            inputs[0],
            self.weight,
            self.bias,
            None if self._residual is None else inputs[self._residual],
            self._stride,
            self._padding,
            self._slope,
            self._fields,
        )
        return made
