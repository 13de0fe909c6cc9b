"""Peak memory of a certificate at n = 1 000 and at n = 1 000 000."""

from __future__ import annotations

import subprocess
import sys

from bench.ledger import Row
from bench.peak import ROOT

CASE = "memory"
CODE = """
import sys, torch
from bench.peak import resident_peak
from pixeldp_fast import Gaussian, PixelDP, SmoothedClassifier
from pixeldp_fast.models import build
torch.manual_seed(0)
prefix, suffix = build("mlp", input_shape=(1, 8, 8), num_classes=10)
model = PixelDP(prefix, Gaussian(0.5), suffix).eval()
smoothed = SmoothedClassifier(model, num_classes=10, seed=1)
smoothed.certify(torch.rand(1, 1, 8, 8), n=int(sys.argv[1]))
print(resident_peak())
"""


def run() -> list[Row]:
    """Peak resident memory of a fresh process, in MiB."""
    rows = []
    for n in (1_000, 1_000_000):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(n)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        peak = float(done.stdout)
        rows.append(Row(CASE, f"n = {n}", "peak resident", peak, peak, peak, "MiB", "8x8 MLP"))
    return rows
