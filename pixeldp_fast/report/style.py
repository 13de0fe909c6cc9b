"""How every plot of this package looks, and how it becomes files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

# Okabe and Ito's palette, which people with any colour vision tell apart; its yellow is too light.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)))  # a second round through the colours differs
INK, FAINT = "#222222", "#8a8a8a"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "font.size": 10.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "pixeldp_fast",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_DPI = 160
# Files of equal certificates are equal bytes: no date, no name of the program.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def saved(figure: Any) -> dict[str, bytes]:
    """The figure by format ("png", "svg")."""
    files = {}
    for kind, metadata in _METADATA.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
        files[kind] = buffer.getvalue()
    return files


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """matplotlib's defaults and the style above, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
