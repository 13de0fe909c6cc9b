"""The identity of a network: which function, bit for bit, a certificate is about."""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """sha256 over the network's structure and every bit of its parameters and buffers.

    Parameters
    ----------
    module : nn.Module
        On any device; whether it is in training mode does not matter.

    Returns
    -------
    fingerprint : str
        64 hexadecimal digits.

    Guarantee
        Changes with any bit, name, type or shape of a parameter or buffer, with the type or name
        of a layer, and with the settings a layer prints (stride, padding, eps, a mechanism, ...).
        It does not see code: two classes of one name with other `forward` methods, or settings
        that a layer does not print, look the same.
    Cost
        Copies the weights to the CPU and hashes them: below a second per 100 million.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules(remove_duplicate=False):
        _update(digest, "module", name, f"{type(part).__qualname__}({part.extra_repr()})")
    tensors = itertools.chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    for name, tensor in tensors:
        _update(digest, "tensor", name, str(tensor.dtype), str(tuple(tensor.shape)))
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, *fields: str) -> None:
    """Fields with their lengths, so that no two sequences of fields give the same bytes."""
    for field in fields:
        encoded = field.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
