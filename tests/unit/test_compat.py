"""Cohen's interface keeps its meaning."""

import pytest
import torch

from pixeldp_fast import Gaussian, SmoothedClassifier
from pixeldp_fast.compat import Smooth
from pixeldp_fast.errors import InvalidArgument
from tests.unit.test_classifier import LinearMargin


def test_certify_and_predict_of_one_example():
    smooth = Smooth(LinearMargin(0.4), 2, 0.4, seed=5)
    x = torch.full((1, 4, 4), 0.5)
    label, radius = smooth.certify(x, 100, 2000, 0.001, 400)
    assert (type(label), type(radius)) == (int, float)
    assert label == 1
    assert 0.25 < radius < 0.4
    assert smooth.predict(x, 200, 0.001, 100) == 1


def test_abstention_is_minus_one_and_zero():
    smooth = Smooth(LinearMargin(0.5), 2, 0.4, seed=5)
    x = torch.full((1, 4, 4), 0.5)
    assert smooth.certify(x, 100, 50, 0.001, 50) == (Smooth.ABSTAIN, 0.0) == (-1, 0.0)
    assert smooth.predict(x, 10, 0.001, 10) == Smooth.ABSTAIN


def test_it_is_the_smoothed_classifier():
    smooth = Smooth(LinearMargin(0.4), 2, 0.4, seed=5)
    x = torch.full((1, 4, 4), 0.45)
    ours = smooth.certify(x, 100, 1000, 0.01, 64)
    direct = SmoothedClassifier(LinearMargin(0.4).eval(), Gaussian(0.4), num_classes=2, seed=5)
    certificates = direct.certify(x[None], n0=100, n=1000, alpha=0.01, index=0)
    assert ours == (certificates.prediction[0], certificates.radius[0])


def test_calls_never_share_noise_whatever_the_batch_size():
    smooth = Smooth(LinearMargin(0.4), 2, 0.4, seed=5)
    x = torch.full((1, 4, 4), 0.45)
    radii = [smooth.certify(x, 100, 3000, 0.01, batch)[1] for batch in (64, 128, 64)]
    assert len(set(radii)) == 3
    assert len({one.seed for one in smooth._smoothed.values()}) == 1
    assert Smooth(LinearMargin(0.4), 2, 0.4).seed != Smooth(LinearMargin(0.4), 2, 0.4).seed


def test_bad_arguments():
    with pytest.raises(InvalidArgument, match="base_classifier"):
        Smooth(lambda x: x, 2, 0.5)
    smooth = Smooth(LinearMargin(0.4), 2, 0.4)
    with pytest.raises(InvalidArgument, match="tile"):
        smooth.certify(torch.zeros(1, 4, 4), 100, 100, 0.001, 0)
    with pytest.raises(InvalidArgument, match="one example"):
        smooth.predict([0.0], 100, 0.001, 10)
