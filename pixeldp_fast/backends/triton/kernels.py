"""The kernels that take runs of operations, in the order in which they are asked.

A new kernel, in Triton or CUDA C++, is a line here: a `runs.AbstractKernel` that says what it
claims and where it works. Those that were not measured claim nothing until the table of tunings
names them.
"""

from __future__ import annotations

from pixeldp_fast.backends.cuda.front import CudaNoise
from pixeldp_fast.backends.triton.fronts import Front, LatticeNoise, TritonNoise
from pixeldp_fast.backends.triton.inner import TritonConvolution
from pixeldp_fast.backends.triton.runs import AbstractKernel, RunModule
from pixeldp_fast.backends.triton.whole import TritonChain, WholeNetwork

# Runs of everything, from the noise to the count.
WHOLES: tuple[AbstractKernel[WholeNetwork], ...] = (TritonChain(),)
# Runs that begin with the noise; the last two take any, on a lattice and in floats.
FRONTS: tuple[AbstractKernel[Front], ...] = (CudaNoise(), LatticeNoise(), TritonNoise())
# Runs inside the network.
RUNS: tuple[AbstractKernel[RunModule], ...] = (TritonConvolution(),)
