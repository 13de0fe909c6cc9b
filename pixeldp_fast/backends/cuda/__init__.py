"""Kernels in CUDA C++: shipped as source, compiled on first use for the device at hand."""
