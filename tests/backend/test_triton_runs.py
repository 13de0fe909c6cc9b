"""The seam: kernels that take runs of operations off the network, with what they are handed."""

import ctypes
import logging
import shutil
import subprocess

import numpy as np
import pytest
import torch

from pixeldp_fast import Gaussian, Laplace
from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.cuda import compiler, front, noise
from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.backends.triton import engine, kernels, tuning
from pixeldp_fast.backends.triton.backend import graph_of
from pixeldp_fast.backends.triton.runs import AbstractKernel, ForeignRun, Run, Target, taken
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.backends.triton.whole import WholeNetwork
from pixeldp_fast.errors import (
    CompilationFailed,
    MissingCompiler,
    UnsupportedBackend,
    UnsupportedModel,
)
from pixeldp_fast.noise.sampling import add_noise, noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.ops import Convolution, Graph
from tests.helpers.networks import K, examples, plan_of
from tests.helpers.triton_paths import CPU, STREAM, interpreted, mlp, prepared, residual
from tests.unit.test_cuda_sources import HOST

HERE = Target(CPU, torch.float32)


class FakeRun(ForeignRun):
    """A resident stage, by torch: as foreign to torch.compile as CUDA C++ would be."""

    def __init__(self, run, wrong=0.0):
        super().__init__(f"fake x{run.last - run.first}", run.shape)
        nodes = tuple(run.nodes)
        shapes = run.graph.shapes[run.first : run.last + 1]
        shifted = Run(run.graph, -1, run.first).rest.nodes[: len(nodes)]
        self.graph = Graph(shifted, shapes, len(nodes))
        self.shape, self.wrong, self.calls = run.shape, wrong, []

    def launch(self, inputs, out):
        self.calls.append(([tuple(x.shape) for x in inputs], tuple(out.shape)))
        assert all(x.is_contiguous() for x in (*inputs, out))
        assert {x.dtype for x in (*inputs, out)} == {torch.float32}
        (x,) = inputs
        made = interpret(self.graph, x.permute(0, 3, 1, 2).contiguous())
        made = made.view(len(x), *self.shape).permute(0, 2, 3, 1)
        out.copy_(made + self.wrong * made.abs().max())


class FakeStage(AbstractKernel):
    """Takes two convolutions in a row, the second with a shortcut around it."""

    name = "fake"

    def __init__(self, reason="", wrong=0.0):
        self.reason, self.wrong, self.made = reason, wrong, []

    def claim(self, graph, first, target):
        pair = graph.nodes[first : first + 2]
        if len(pair) == 2 and all(isinstance(node, Convolution) for node in pair):
            return first + 2
        return None

    def supports(self, run, target):
        assert target.dtype == torch.float32
        return Support(not self.reason, self.reason)

    def prepare(self, run, target):
        self.made.append(FakeRun(run, self.wrong))
        return self.made[-1]


def test_a_run_knows_its_ends():
    graph = graph_of(plan_of(residual))  # affine, convolution, convolution + shortcut, pool, dense
    run = Run(graph, 1, 3)
    assert (run.reads, run.shape, run.closed) == ((1,), (8, 3, 3), True)
    assert len(run.nodes) == 2
    assert Run(graph, 2, 3).reads == (2,)
    assert not Run(graph, -1, 0).nodes
    assert Run(graph, -1, 1).closed
    assert not Run(graph, 0, 0).nodes
    behind = Run(graph, -1, 1).rest
    assert behind.input_shape == (4, 6, 6)
    x = torch.randn(3, 2, 6, 6)
    affine = Graph(graph.nodes[:1], graph.shapes[:2], 1)
    first = plan_of(residual).prefix(x).detach()
    made = interpret(affine, first).view(3, 4, 6, 6)
    assert torch.equal(interpret(behind, made), interpret(graph, first))


@interpreted
@pytest.mark.parametrize("compiling", [False, True])
def test_a_kernel_takes_a_run_and_is_handed_its_buffers(compiling, monkeypatch):
    plan = plan_of(residual)
    x, index = examples(plan, 2), np.array([3, 1])
    plain = prepared(plan, SoftmaxSums(K)).run(x, index, STREAM, 0, 130)
    fake = FakeStage()
    monkeypatch.setattr(kernels, "RUNS", (fake, *kernels.RUNS))
    if compiling:
        monkeypatch.setattr(engine, "ways", lambda device: ((True, False),))
    made = prepared(plan, SoftmaxSums(K))
    how = "compiled" if compiling else "eager"
    assert f"{how} graph of 2 fake x2 x1 >" in made.arithmetic
    tally = made.run(x, index, STREAM, 0, 130)
    assert np.abs(tally.counts - plain.counts).sum() <= 2
    assert np.abs(tally.sums - plain.sums).max() <= 130 * 4
    (run,) = fake.made
    assert run.calls[-1] == ([(128, 6, 6, 4)], (128, 3, 3, 8))


@interpreted
def test_a_run_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "RUNS", (FakeStage(wrong=0.05),))
    with pytest.raises(UnsupportedModel, match="different outputs"):
        prepared(plan_of(residual), Votes(K))


@interpreted
def test_a_run_has_the_weights_of_after_an_edit(monkeypatch):
    monkeypatch.setattr(kernels, "RUNS", (FakeStage(),))
    plan = plan_of(residual)
    made, features = prepared(plan, Votes(K)), torch.randn(8, *plan.noise_shape)
    with torch.no_grad():
        plan.suffix.second.weight.mul_(1.5)
    with torch.inference_mode():
        assert torch.allclose(made.outputs(features), plan.suffix(features), atol=1e-5)


def test_kernels_are_asked_in_order_and_say_why_they_leave_a_run(caplog):
    graph = graph_of(plan_of(residual))
    absent, first, second = FakeStage("no such chip"), FakeStage(), FakeStage()
    with caplog.at_level(logging.INFO, logger="pixeldp_fast"):
        run, made = taken((absent, first, second), graph, 1, HERE)
    assert (run.first, run.last, made) == (1, 3, first.made[0])
    assert "triton: fake leaves its run: no such chip" in caplog.text
    assert not absent.made
    assert not second.made
    assert taken((first,), graph, 3, HERE) is None


def test_a_claim_whose_inside_others_read_is_a_mistake():
    class Greedy(FakeStage):
        def claim(self, graph, first, target):
            return first + 1

    graph = graph_of(plan_of(residual))
    shortcut = Graph(graph.nodes, graph.shapes, 2)  # the first convolution is the output, too
    with pytest.raises(AssertionError, match="whose inner values others read"):
        taken((FakeStage(),), shortcut, 1, HERE)
    assert taken((Greedy(),), shortcut, 1, HERE) is not None


def test_operators_of_foreign_runs_say_what_they_do():
    graph = graph_of(plan_of(residual))
    run = FakeRun(Run(graph, 1, 3))
    inputs = [torch.randn(4, 6, 6, 4)]
    torch.library.opcheck(torch.ops.pixeldp_fast.foreign.default, (inputs, run._number, run._shape))
    network = GraphModule(graph, torch.float32, CPU)
    assert "fake" not in network.words


class FakeWhole(AbstractKernel):
    """Everything from the noise to the count, by the definitions."""

    name = "fake whole"

    def __init__(self):
        self.calls = []

    def claim(self, graph, first, target):
        return len(graph.nodes)

    def supports(self, run, target):
        return Support(True)

    def prepare(self, run, target):
        def count(center, address, draws, table, scores):
            self.calls.append((tuple(center.shape), address.tolist(), draws, tuple(table.shape)))
            law, stream = Gaussian(draws.scale), Stream(draws.seed, Purpose(draws.purpose))
            for b, word in enumerate(address.tolist()):
                noise = noise_definition(
                    law, stream, [word], draws.first_draw, draws.n, center.shape[1]
                )
                noisy = (center[b] + torch.from_numpy(noise[0]).float()).view(-1, 4, 6, 6)
                table[b] += Votes(K).reduce(interpret(run.graph, noisy))

        return WholeNetwork(count, "fake whole")


@interpreted
def test_a_kernel_may_take_everything_from_the_noise_to_the_count(monkeypatch):
    plan = plan_of(residual)
    x, index = examples(plan, 2), np.array([3, 1])
    plain = prepared(plan, Votes(K)).run(x, index, STREAM, 7, 130)
    fake = FakeWhole()
    monkeypatch.setattr(kernels, "WHOLES", (fake,))
    made = prepared(plan, Votes(K))
    assert made.arithmetic.endswith(" fake whole")
    tally = made.run(x, index, STREAM, 7, 130)
    assert np.abs(tally.counts - plain.counts).sum() <= 2
    center, address, draws, table = fake.calls[-1]
    assert (center, address, table) == ((2, 144), [3, 1], (2, K + 1))
    assert (draws.first_draw, draws.n, draws.examples, draws.first_row) == (7, 130, 2, 0)


@interpreted
def test_a_kernel_that_counts_other_votes_is_refused(monkeypatch):
    class OneClass(FakeWhole):
        def prepare(self, run, target):
            def count(center, address, draws, table, scores):
                table[:, 0] += draws.n

            return WholeNetwork(count, "one class")

    monkeypatch.setattr(kernels, "WHOLES", (OneClass(),))
    with pytest.raises(UnsupportedBackend, match="the head's kernel counts"):
        prepared(plan_of(residual), Votes(K))


def line(kernel, shape, **config):
    return {
        "kernel": kernel,
        "shape": shape,
        "dtype": "float32",
        "device": "interpreter",
        "config": config,
    }


NAMED = line("cuda_noise", "4x144")


@pytest.fixture
def on_host(tmp_path, monkeypatch):
    """The CUDA kernel's code for one thread, run by this processor for every thread of a launch."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    (tmp_path / "host.cpp").write_text(HOST)
    source = compiler.sources()
    command = ["g++", "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-I"]
    command += [str(source), "-I", str(source / "include"), "-o", "host.so", "host.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library, launches = ctypes.CDLL(str(tmp_path / "host.so")), []

    def noisy(center, address, draws, out, *, channels, scale, shift, slope):
        launch = noise.described(center, address, draws, out, channels, scale, shift, slope)
        library.fill_law(ctypes.byref(launch), draws.law)
        launches.append((launch, draws))

    monkeypatch.setattr(noise, "noisy", noisy)
    monkeypatch.setattr(noise, "load", lambda device: None)
    monkeypatch.setattr(front.CudaNoise, "supports", lambda *_: Support(True))
    return launches


@interpreted
@pytest.mark.parametrize("mechanism", [Gaussian(0.5), Laplace(0.3)], ids=repr)
def test_the_cuda_prologue_claims_the_noise_and_what_follows_it(on_host, mechanism):
    plan = plan_of(residual)
    x, index = examples(plan, 3), np.array([7, 2**32 - 2, 0])
    with tuning.trial(NAMED):
        made = prepared(plan, Votes(K), mechanism=mechanism)
    assert "cuda_noise() > eager graph of 2 >" in made.arithmetic
    tally = made.run(x, index, STREAM, 100, 140)
    launch, draws = on_host[-1]
    assert launch.out == made._pipeline._buffer.data_ptr()
    assert launch.scales
    assert (draws.n, draws.first_draw) == (128, 128)
    with torch.inference_mode():
        center = plan.prefix(x)
        noisy = add_noise(center, mechanism, STREAM, index, 100, 140)
        exact = plan.suffix(noisy.flatten(0, 1)).view(3, 140, K)
    for b in range(3):
        votes = torch.bincount(exact[b].argmax(dim=1), minlength=K + 1).numpy()
        assert np.abs(tally.counts[b] - votes).sum() <= 2


@interpreted
def test_the_cuda_prologue_claims_nothing_unless_it_is_named(on_host):
    assert "cuda_noise" not in prepared(plan_of(residual), Votes(K)).arithmetic
    assert not on_host
    with tuning.trial(line("cuda_noise", "1x5")):
        assert "cuda_noise" not in prepared(plan_of(residual), Votes(K)).arithmetic
        assert " mlp(" in prepared(plan_of(mlp), Votes(K)).arithmetic


@interpreted
def test_without_a_device_the_next_kernel_makes_the_noise_and_the_log_says_why(caplog):
    with tuning.trial(NAMED), caplog.at_level(logging.INFO, logger="pixeldp_fast"):
        made = prepared(plan_of(residual), Votes(K))
    assert "noise(rows" in made.arithmetic
    assert "cuda_noise leaves its run: CUDA C++ runs on an NVIDIA GPU, not on cpu" in caplog.text


def refused(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    graph = graph_of(plan_of(residual))
    target = Target(torch.device("cuda:0"), torch.float32)
    support = front.CudaNoise().supports(Run(graph, -1, 1), target)
    assert not support.ok
    return support.reason


def test_a_missing_compiler_and_an_old_device_are_named(monkeypatch, tmp_path):
    def missing():
        raise MissingCompiler("nvcc is neither here nor there")

    monkeypatch.setattr(compiler, "nvcc", missing)
    assert refused(monkeypatch, (9, 0)) == "nvcc is neither here nor there"
    monkeypatch.setattr(compiler, "nvcc", lambda: tmp_path)
    assert "8.0 and above, the device has 7.5" in refused(monkeypatch, (7, 5))


@interpreted
def test_a_compiler_that_fails_stops_the_engine_before_any_certificate(on_host, monkeypatch):
    def broken(device):
        raise CompilationFailed("nvcc failed with status 1")

    monkeypatch.setattr(noise, "load", broken)
    with (
        tuning.trial(NAMED),
        pytest.raises(RuntimeError, match="CompilationFailed: nvcc failed with status 1"),
    ):
        prepared(plan_of(residual), Votes(K))
