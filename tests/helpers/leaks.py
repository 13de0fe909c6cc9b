"""Two questions that only low-order bits answer: noise that lets them through is caught by one.

Both are asked at the black image and at the one with every pixel 1/255, 0.217 away from it. The
noise is many times that, so no honest classifier can tell the two apart.
"""

import numpy as np

COORDINATES, SIGMA = 3072, 0.5
LEVELS = 255
STEP = np.float32(1) / np.float32(LEVELS)
IMAGES = {"black": np.float32(0), "grey": STEP}


def finer_than_2_to_minus_32(noisy):
    """Whether some coordinate of a draw is no multiple of 2^-32, bool [n]."""
    scaled = noisy.astype(np.float64) * 2.0**32
    return (scaled != np.rint(scaled)).any(axis=1)


def off_the_lattice(noisy):
    """Whether some coordinate is not float32(k)/255 for a whole number k."""
    nearest = np.rint(noisy.astype(np.float64) * LEVELS).astype(np.float32)
    return (nearest / np.float32(LEVELS) != noisy).any(axis=1)


QUESTIONS = (finer_than_2_to_minus_32, off_the_lattice)


def shares(sampler, question):
    """The share of draws that answer yes, at each image.

    `sampler` maps a centre, float32 [COORDINATES], to draws, float32 [n, COORDINATES].
    """
    images = (np.full(COORDINATES, value, dtype=np.float32) for value in IMAGES.values())
    return tuple(float(question(sampler(image)).mean()) for image in images)


def leaks(sampler):
    """The questions that tell the images apart, or that do not have all votes at both."""
    told = {question.__name__: shares(sampler, question) for question in QUESTIONS}
    return {name: pair for name, pair in told.items() if pair not in ((0.0, 0.0), (1.0, 1.0))}
