"""The torch backend on an NVIDIA GPU; nothing here has a meaning without one."""

import numpy as np
import pytest
import torch

from pixeldp_fast import SmoothedClassifier
from pixeldp_fast.backends.pytorch import TorchBackend
from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.noise.philox import words_numpy, words_torch
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.smooth.model import PixelDP
from tests.backend.test_engines import definition
from tests.cases import MECHANISMS
from tests.helpers.capture import outputs_of
from tests.helpers.close import tolerance, unexplained_flips
from tests.helpers.networks import NETWORKS, K, examples, plan_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
STREAM = Stream(99, Purpose.ESTIMATION)


def on_gpu(network):
    plan = plan_of(network)
    plan.prefix.cuda()
    plan.suffix.cuda()
    return plan


def test_the_words_are_the_same_on_the_gpu():
    ours = words_torch(STREAM, [3, 2**32 - 2], 5, 6, 7, "cuda").cpu().numpy()
    assert (ours == words_numpy(STREAM, [3, 2**32 - 2], 5, 6, 7)).all()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
@pytest.mark.parametrize("reduction", [Votes(K), SoftmaxSums(K)], ids=lambda r: type(r).__name__)
def test_tallies_add_up_and_repeat(network, mechanism, reduction):
    plan = on_gpu(network)
    engine = TorchBackend().prepare(plan, mechanism, reduction, torch.device("cuda:0"))
    x, index = examples(plan, 3).cuda(), np.array([8, 2, 5])
    whole = engine.run(x, index, STREAM, 10, 3000)
    assert engine.run(x, index, STREAM, 10, 3000) == whole
    parts = [engine.run(x, index, STREAM, first, n) for first, n in ((10, 1), (11, 2999))]
    assert parts[0] + parts[1] == whole
    assert engine.run(x[1:2], index[1:2], STREAM, 10, 3000) == whole.take(np.array([1]))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_outputs_agree_with_the_definition(network):
    mechanism = MECHANISMS[0]
    x, index = examples(plan_of(network), 2), np.array([4, 1])
    exact, eager = definition(plan_of(network), mechanism, x, index, 100)
    plan = on_gpu(network)
    close = outputs_of(TorchBackend(), plan, mechanism, x.cuda(), index, STREAM, 0, 100)
    close = close.flatten(0, 1).cpu().double()
    allowed = tolerance(exact, eager)
    assert float((close - exact).abs().max()) <= allowed
    assert unexplained_flips(exact, close, allowed) == []


def test_certify_where_the_model_is():
    plan = on_gpu(NETWORKS[0])
    model = PixelDP(plan.prefix, MECHANISMS[0], plan.suffix).eval()
    smoothed = SmoothedClassifier(model, num_classes=K, seed=1)
    certificates = smoothed.certify(examples(plan, 2).cuda(), n=1000)
    assert "cuda" in certificates.terms.arithmetic
    assert (certificates.counts.sum(axis=1) == 1000).all()
