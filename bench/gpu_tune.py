"""`tune`: time the kernels' configurations on this GPU, and write the table that engines read.

One field of a configuration is changed at a time, in the engine that uses it, and kept if the whole
run is faster by `GAIN`. Convolutions, which the library does unless a line says otherwise, are
tried one shape at a time with the kernel's default. A line decides the last bits of outputs from
then on: certificates that were made before keep the old one in their record, and are not continued
with the new.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu_cases import by_name
from bench.ledger import Row
from bench.timing import Times, interleaved, ratio
from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.triton import tuning
from pixeldp_fast.backends.triton.backend import TritonBackend
from pixeldp_fast.errors import PixelDPError
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import Plan, make_plan

TABLE = Path(tuning.__file__).with_name(tuning.NAME)
NETWORKS = ("mlp128", "mlp784", "pixeldp_cnn", "resnet20")  # where the kernels are a good part
DTYPES = (torch.float32, torch.bfloat16)
GAIN = 1.03
REPEATS = 5
STREAM = Stream(7, Purpose.VERIFICATION)
# Rows of a product stay at 64 to 128: below, products round otherwise; above, tiles do not divide.
LIMITS = {
    "rows": (1, 128),
    "warps": (1, 16),
    "stages": (1, 5),
    "depth": (16, 256),
    "quads": (4, 512),
    "steps": (1, 128),
}
PRODUCT_ROWS = 64


def run(names: Sequence[str] = ()) -> list[Row]:
    """Tune on the GPU for the named of `NETWORKS`, or all; write the table, say what was gained.

    The table is written after every network and dtype, so that a run may be cut off.
    """
    if not torch.cuda.is_available():
        raise SystemExit("tune: it times kernels on an NVIDIA GPU, and there is none here.")
    device = torch.device("cuda:0")
    rows = []
    for name in names or NETWORKS:
        case = by_name(name)
        model = case.model(device)
        plan = make_plan(model.prefix, model.suffix, case.input_shape, case.classes)
        x = case.images(case.examples).to(device)
        for dtype in DTYPES:
            lines = tuned(plan, case.mechanism, x, case.draws, dtype)
            write(lines)
            for line in lines:
                what = f"{line['kernel']} {line['shape']} {line['dtype']}"
                gain = line["gain"]
                rows.append(Row("tune", name, what, gain, gain, gain, "x", str(line["config"])))
    return rows


def tuned(
    plan: Plan,
    mechanism: AbstractMechanism,
    x: Tensor,
    draws: int,
    dtype: torch.dtype,
    repeats: int = REPEATS,
) -> list[dict[str, Any]]:
    """The lines of the table that make this network faster."""

    def engine(*lines: tuning.Line) -> tuple[AbstractEngine, list[tuning.Request]]:
        with tuning.trial(*lines) as trial:
            reduction = Votes(plan.num_outputs)
            made = TritonBackend().prepare(plan, mechanism, reduction, x.device, dtype=dtype)
        return made, trial.requests

    found: list[dict[str, Any]] = []
    _, requests = engine()
    for request in dict.fromkeys(requests):
        if request.dtype != tuning.name_of(dtype):
            continue  # the float32 noise of the engine's self-check
        base, _ = engine(*found)
        on = [dataclasses.asdict(request.default)] if request.listed else []
        for fields in on or variants(request.default):
            line = _line(request, fields)
            try:
                other, _ = engine(*found, line)
                gain = _gain(base, other, x, draws, repeats)
            except (PixelDPError, RuntimeError, ValueError, _triton_error()):
                continue  # does not fit the device or the shape
            if gain >= GAIN:
                found = [kept for kept in found if _key(kept) != _key(line)]
                found.append({**line, "gain": round(gain, 3)})
                base = other
    return found


def variants(default: Any) -> Iterator[dict[str, int]]:
    """The configuration with one field halved or doubled, as far as that makes sense."""
    now = dataclasses.asdict(default)
    has_product = "stages" in now and now.get("depth", 0) > 0
    for name, value in now.items():
        low, high = LIMITS.get(name, (16, 256))
        if name == "rows" and has_product:
            low = PRODUCT_ROWS
        for other in (value // 2, value * 2):
            if value > 0 and other != value and low <= other <= high:
                yield {**now, name: other}


def write(lines: Iterable[dict[str, Any]], path: Path = TABLE) -> None:
    """Put the lines into the table, each in the place of the one with its key."""
    kept = {_key(line): line for line in json.loads(path.read_text())["lines"]}
    kept |= {_key(line): line for line in lines}
    ordered = [kept[key] for key in sorted(kept)]
    path.write_text(json.dumps({"lines": ordered}, indent=1) + "\n")


def _line(request: tuning.Request, fields: dict[str, int]) -> dict[str, Any]:
    return {
        "kernel": request.kernel,
        "shape": request.shape,
        "dtype": request.dtype,
        "device": request.machine,
        "config": fields,
    }


def _key(line: tuning.Line) -> tuple[str, str, str, str]:
    return tuning.key_of(line)


def _gain(
    base: AbstractEngine, other: AbstractEngine, x: Tensor, draws: int, repeats: int
) -> float:
    index = np.arange(len(x))
    times: dict[str, Times] = interleaved(
        {
            "base": lambda: base.run(x, index, STREAM, 0, draws),
            "other": lambda: other.run(x, index, STREAM, 0, draws),
        },
        repeats,
        clock=time.perf_counter,  # a run ends with a copy to the host
    )
    return ratio(times["other"], times["base"])[0]


def _triton_error() -> type[Exception]:
    from triton.errors import TritonError

    return TritonError  # type: ignore[no-any-return]
