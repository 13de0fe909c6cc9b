"""The networks of the field, their checkpoints and their fingerprints."""

from pixeldp_fast.models.checkpoint import CheckpointConfig, load, save
from pixeldp_fast.models.cohen import load_cohen
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.models.normalize import CIFAR10_STATISTICS, IMAGENET_STATISTICS, Normalize
from pixeldp_fast.models.registry import NETWORKS, build, build_pixeldp

__all__ = [
    "CIFAR10_STATISTICS",
    "CheckpointConfig",
    "IMAGENET_STATISTICS",
    "NETWORKS",
    "Normalize",
    "build",
    "build_pixeldp",
    "fingerprint",
    "load",
    "load_cohen",
    "save",
]
