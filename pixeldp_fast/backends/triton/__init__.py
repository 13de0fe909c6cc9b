"""The GPU engine: Triton kernels that leave nothing per draw in memory but activations."""
