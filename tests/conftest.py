"""Shared fixtures, and one profile for property tests: repeatable, without deadlines."""

import os

import pytest
import torch
from hypothesis import settings

from pixeldp_fast import config
from pixeldp_fast.noise.sampling import native_module

# Triton reads this once, when the kernels are imported: without a GPU they run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture
def native():
    """The compiled module; without it the tests that compare with it have nothing to compare."""
    module = native_module()
    if module is None:
        pytest.skip("the compiled module is not installed")
    return module


@pytest.fixture(scope="session")
def data_folder():
    """The folder of the field's data sets."""
    folder = config.data_folder()
    if folder is None:
        pytest.skip("PIXELDP_DATA is not set")
    return folder
