"""Other tools' interfaces, unchanged in meaning: Cohen's `Smooth`."""

from pixeldp_fast.smooth.compat import Smooth
from pixeldp_fast.types import ABSTAIN

__all__ = ["ABSTAIN", "Smooth"]
