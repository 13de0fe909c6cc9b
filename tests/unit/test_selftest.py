"""The tests of randomness: they pass here, and each fails on the faults that it is there for."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from typer.testing import CliRunner

from pixeldp_fast import Gaussian, Laplace, Uniform
from pixeldp_fast.backends.base import AbstractEngine, Support
from pixeldp_fast.backends.pytorch import TorchBackend
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.cli.app import app
from pixeldp_fast.cli.doctor import FAILED
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.selftest import engines, laws, streams, suite
from pixeldp_fast.selftest.ideal import Ideal
from pixeldp_fast.selftest.linear import linear_task
from pixeldp_fast.selftest.outcome import Source
from pixeldp_fast.selftest.samplers import DEFINITION, Sampler, samplers

SEED = suite.SEED
CPU = torch.device("cpu")
LATTICE = Gaussian(0.5, lattice=255)
NOBODY = Source("nobody", "any law")

each_mechanism = pytest.mark.parametrize("mechanism", suite.MECHANISMS, ids=repr)


def quickest(mechanism):
    """The compiled source where there is one."""
    found = {one.name: one for one in samplers(mechanism)}
    return found.get("compiled", found["torch, cpu"])


@each_mechanism
def test_the_noise_made_here_passes(mechanism):
    sampler = quickest(mechanism)
    outcomes = [
        *laws.law_tests(sampler, mechanism, SEED),
        *streams.stream_tests(sampler, mechanism, SEED),
    ]
    assert [one for one in outcomes if not one.passed] == []
    assert {one.test for one in outcomes} == {
        "moments", "tails", "distribution", "addresses", "correlation", "repetition"
    }  # fmt: skip


def failing(change, mechanism=None, base=None):
    """The tests that fail for a sampler that makes noise as `change` says."""
    mechanism = mechanism or Gaussian(0.5)
    honest = (base or quickest(mechanism)).draw
    faulty = Sampler("faulty", lambda *asked: change(honest, *asked))
    outcomes = [
        *laws.law_tests(faulty, mechanism, SEED),
        *streams.stream_tests(faulty, mechanism, SEED),
    ]
    return {one.test for one in outcomes if not one.passed}


def scaled(honest, mechanism, *asked):
    return 1.01 * honest(mechanism, *asked)


def moved(honest, mechanism, *asked):
    return honest(mechanism, *asked) + 0.005 * mechanism.noise_scale


def cut(honest, mechanism, *asked):
    """Without the values beyond the last in 30 000 on either side."""
    at = Ideal(mechanism).upper_tail(3e-5)[0]
    return np.clip(honest(mechanism, *asked), -at, at)


def clamped(honest, mechanism, *asked):
    """What a clamp of u at 1e-7 leaves of Gaussian noise."""
    return np.clip(honest(mechanism, *asked), -5.68 * mechanism.std, 5.68 * mechanism.std)


def repeated(honest, mechanism, stream, index, first, n, d):
    """A stream of 64 draws, over and over."""
    parts = [honest(mechanism, stream, index, (first + i) % 64, 1, d) for i in range(min(n, 64))]
    return np.concatenate([np.concatenate(parts, axis=1)] * -(-n // len(parts)), axis=1)[:, :n]


def one_example(honest, mechanism, stream, index, *asked):
    return honest(mechanism, stream, np.zeros(len(index), dtype=np.int64), *asked)


def one_purpose(honest, mechanism, stream, *asked):
    return honest(mechanism, Stream(stream.seed, Purpose.ESTIMATION), *asked)


def half_a_seed(honest, mechanism, stream, *asked):
    return honest(mechanism, Stream(stream.seed % 2**32, stream.purpose), *asked)


def swapped_draws(honest, mechanism, *asked):
    return honest(mechanism, *asked)[:, ::-1]


def swapped_coordinates(honest, mechanism, *asked):
    return honest(mechanism, *asked)[..., ::-1]


def dependent_coordinates(honest, mechanism, *asked):
    """Every second coordinate is the one before, with its sign."""
    noise = honest(mechanism, *asked).copy()
    noise[..., 1::2] = noise[..., 0::2][..., : noise[..., 1::2].shape[-1]]
    return noise


@each_mechanism
def test_a_scale_1_percent_off_is_caught(mechanism):
    assert failing(scaled, mechanism) >= {"moments", "distribution", "addresses"}


@pytest.mark.parametrize("mechanism", [Gaussian(0.5), Laplace(0.3), LATTICE], ids=repr)
def test_a_cut_tail_is_caught(mechanism):
    assert "tails" in failing(cut, mechanism)


def test_a_clamp_that_no_sample_of_this_size_shows_is_caught():
    assert failing(clamped) == {"addresses"}


FAULTS = {
    "mean": (moved, {"moments", "addresses"}),
    "repeated stream": (repeated, {"repetition", "correlation", "addresses"}),
    "one example's noise for all": (one_example, {"repetition", "correlation", "addresses"}),
    "one purpose's noise for all": (one_purpose, {"repetition", "correlation", "addresses"}),
    "half a seed": (half_a_seed, {"correlation"}),
    "swapped draws": (swapped_draws, {"addresses"}),
    "swapped coordinates": (swapped_coordinates, {"addresses"}),
    "dependent coordinates": (dependent_coordinates, {"correlation", "addresses"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    change, expected = FAULTS[fault]
    assert failing(change) >= expected


def test_a_fault_in_the_definition_itself_is_caught():
    """Nothing is compared with it then: the law must tell."""
    honest = DEFINITION.draw
    wrong = Sampler("wrong", lambda mechanism, *asked: 1.01 * honest(mechanism, *asked))
    outcomes = list(laws.law_tests(wrong, Laplace(0.3), SEED))
    assert not any(one.passed for one in outcomes)


def test_truncated_lattice_noise_is_caught():
    """Rounded towards 0 instead of to the nearest step."""

    def towards_zero(honest, mechanism, *asked):
        smooth = honest(dataclasses.replace(mechanism, lattice=None), *asked)
        return np.trunc(smooth * mechanism.lattice) / mechanism.lattice

    assert failing(towards_zero, LATTICE) >= {"moments", "distribution"}


@pytest.mark.parametrize("test", [laws.moments, laws.tails, laws.kolmogorov_smirnov])
@each_mechanism
def test_true_samples_pass_whatever_the_seed(test, mechanism):
    for seed in range(12):
        stream = Stream(seed, Purpose.VERIFICATION)
        sample = np.sort(quickest(mechanism).draw(mechanism, stream, [1], 0, 64, 512).ravel())
        assert test(NOBODY, sample, Ideal(mechanism)).passed


@pytest.mark.parametrize(("k", "n", "p"), [(0, 10, 0.1), (10, 10, 0.1), (3, 50, 0.2), (9, 9, 0.9)])
def test_p_values_are_the_binomial_laws(k, n, p):
    law = scipy_stats.binom(n, p)
    wanted = min(2 * law.cdf(k), 2 * law.sf(k - 1), 1.0)
    assert laws.binomial_p_value(k, n, p) == pytest.approx(wanted, rel=1e-9)


@each_mechanism
def test_the_ideal_laws_are_scipys(mechanism):
    scale, lattice = mechanism.noise_scale, mechanism.lattice
    law = {
        Gaussian: scipy_stats.norm(scale=scale),
        Laplace: scipy_stats.laplace(scale=scale),
        Uniform: scipy_stats.uniform(-scale, 2 * scale),
    }[type(mechanism)]
    ideal, half = Ideal(mechanism), 0.0 if lattice is None else 0.5 / lattice
    at = np.array([-1.0, -0.2, 0.0, 0.6]) if lattice is None else np.array([-9, -1, 0, 30]) / 255
    assert ideal.cdf(at) == pytest.approx(law.cdf(at + half))
    assert ideal.below(at) == pytest.approx(law.cdf(at - half))
    variance, kurtosis = ideal.moments()
    rounding = 0.0 if lattice is None else 1 / lattice**2 / 12
    assert variance == pytest.approx(law.var() + rounding, rel=1e-5)
    assert kurtosis == pytest.approx(law.stats(moments="k") + 3, rel=1e-3)
    for probability in laws.TAILS:
        value, exact = ideal.upper_tail(probability)
        assert exact == pytest.approx(law.sf(value), rel=1e-9)
        assert exact == pytest.approx(probability, rel=0.05)


def made(backend="torch", mechanism=None, drawn=None):
    """An engine for the task of `mechanism` whose noise is that of `drawn`."""
    mechanism = mechanism or Gaussian(0.5)
    task = linear_task(mechanism, CPU)
    chosen = next(b for b in engines.BACKENDS if b.name == backend)
    asked = (task.plan, drawn or mechanism, Votes(2), CPU)
    if not chosen.supports(*asked).ok:
        pytest.skip(f"{backend} is not installed")
    return chosen.prepare(*asked, tile=4096), task


@dataclass
class Faulty(AbstractEngine):
    """An engine that is asked for something else than it should be."""

    honest: AbstractEngine
    change: object

    @property
    def arithmetic(self):
        return "faulty"

    def run(self, x, index, stream, first_draw, n):
        return self.change(self.honest.run, x, index, stream, first_draw, n)


def failing_engine(change, backend="native"):
    engine, task = made(backend)
    faulty = Faulty(engine, change)
    return {
        one.test
        for one in (
            engines.counts(NOBODY, faulty, task, SEED),
            engines.single_votes(NOBODY, faulty, task, SEED),
            engines.scatter(NOBODY, faulty, task, SEED),
        )
        if not one.passed
    }


def halved(run, x, index, stream, first, n):
    """Every draw of the first half counts twice."""
    half = run(x, index, stream, first, n - n // 2)
    return Tally(half.counts + run(x, index, stream, first, n // 2).counts)


ENGINE_FAULTS = {
    "one example's noise for all": (
        lambda run, x, index, *rest: run(x, 0 * index, *rest),
        {"single votes", "scatter"},
    ),
    "repeated stream": (
        lambda run, x, index, stream, first, n: run(x, index, stream, first % 64, n),
        {"single votes", "scatter"},
    ),
    "repeated draws": (halved, {"scatter"}),
    "one purpose's noise for all": (
        lambda run, x, index, stream, *rest: run(x, index, Stream(stream.seed, 1), *rest),
        {"single votes", "scatter"},
    ),
    "swapped draws": (
        lambda run, x, index, stream, first, n: run(x, index, stream, first ^ 1, n),
        {"single votes"},
    ),
    "swapped classes": (
        lambda run, *asked: Tally(run(*asked).counts[:, [1, 0, 2]]),
        {"known p", "single votes"},
    ),
    "a draw in 200 lost to class 0": (
        lambda run, *asked: Tally(lost(run(*asked).counts)),
        {"known p"},
    ),
}


def lost(counts):
    moved = counts[:, 1] // 200
    return counts + np.stack([moved, -moved, 0 * moved], axis=1)


@pytest.mark.parametrize("fault", ENGINE_FAULTS)
def test_a_fault_planted_in_an_engine_is_caught(fault):
    change, expected = ENGINE_FAULTS[fault]
    assert failing_engine(change) >= expected


def test_an_engine_without_faults_passes():
    assert failing_engine(lambda run, *asked: run(*asked)) == set()


@each_mechanism
def test_an_engine_with_a_scale_1_percent_off_is_caught(mechanism):
    larger = {"sigma": 1.01, "scale": 1.01, "half_width": 1.01}
    name = next(f.name for f in dataclasses.fields(mechanism) if f.name in larger)
    wrong = dataclasses.replace(mechanism, **{name: 1.01 * mechanism.noise_scale})
    engine, task = made("native", mechanism, wrong)
    outcome = engines.counts(NOBODY, engine, task, SEED)
    assert not outcome.passed
    assert float(outcome.detail.split()[1]) == pytest.approx(1.0, abs=0.3)


class Cut(Laplace):
    """Laplace noise without its tails."""

    def unit_noise(self, words, xp):
        return super().unit_noise(words, xp).clip(-2.0, 2.0)


def test_an_engine_with_a_cut_tail_is_caught():
    engine, task = made("torch", Laplace(0.3), Cut(0.3))
    assert not engines.counts(NOBODY, engine, task, SEED, 2**16).passed
    assert not engines.single_votes(NOBODY, engine, task, SEED).passed


@pytest.mark.parametrize("backend", ["torch", "reference"])
@each_mechanism
def test_engines_on_the_cpu_pass(backend, mechanism):
    engine, task = made(backend, mechanism)
    assert engines.counts(NOBODY, engine, task, SEED, 2**13).passed
    assert engines.single_votes(NOBODY, engine, task, SEED).passed


def test_a_backend_that_cannot_run_has_no_tests(monkeypatch):
    refusing = TorchBackend()
    monkeypatch.setattr(refusing, "supports", lambda *asked, **options: Support(False, "no"))
    monkeypatch.setattr(engines, "BACKENDS", (refusing,))
    assert list(engines.engine_tests("torch", Gaussian(0.5), CPU, SEED)) == []


def test_bad_words_are_refused():
    with pytest.raises(InvalidArgument, match="all, triton"):
        suite.steps("abacus")
    with pytest.raises(InvalidArgument, match="seed"):
        suite.steps(seed=2**64)


def test_an_engine_that_does_not_run_here_does_not_pass_for_tested(monkeypatch):
    refusing = TorchBackend()
    monkeypatch.setattr(refusing, "supports", lambda *asked, **options: Support(False, "no"))
    monkeypatch.setattr(engines, "BACKENDS", (refusing,))
    with pytest.raises(UnsupportedBackend, match="torch runs on no device"):
        suite.run("torch")


@pytest.fixture
def small(monkeypatch):
    """One law, and the one backend that is always there."""
    monkeypatch.setattr(suite, "MECHANISMS", (Uniform(0.8),))
    monkeypatch.setattr(engines, "DRAWS", 2**14)


def test_the_command_shows_a_verdict(small):
    done = CliRunner().invoke(app, ["doctor", "--noise", "--backend", "torch"])
    assert done.exit_code == 0, done.output
    output = " ".join(done.output.split())
    assert "All passed" in output
    assert "A perfect source fails one of them with probability" in output
    assert "torch engine, cpu pass pass pass" in output
    again = CliRunner().invoke(app, ["doctor", "--noise", "--backend", "torch", "--seed", "1"])
    assert again.exit_code == 0


def test_the_command_fails_on_a_planted_fault(small, monkeypatch):
    honest = Uniform.unit_noise
    monkeypatch.setattr(Uniform, "unit_noise", lambda *asked: 1.01 * honest(*asked))
    done = CliRunner().invoke(app, ["doctor", "--noise", "--backend", "torch"])
    assert done.exit_code == FAILED
    assert "not to be trusted" in done.output
    assert "definition, Uniform(half_width=0.8): moments" in done.output


def test_options_of_the_noise_tests_need_them():
    done = CliRunner().invoke(app, ["doctor", "--seed", "3"])
    assert done.exit_code == 1
    assert "belong to --noise" in done.output
