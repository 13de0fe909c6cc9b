"""What `doctor` looks at: the environment as rows of text, and self-tests of the random words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeldp_fast import config
from pixeldp_fast._version import __version__
from pixeldp_fast.errors import DataError

Section = tuple[str, list[tuple[str, str]]]

# Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, words.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
# Of a scale, float32 against the definition in float64. The largest difference over 10^7 values
# of every law was 1.3e-6; another device's elementary functions may round differently.
NOISE_TOLERANCE = 1e-5
_PACKAGES = ("torch", "numpy", "scipy", "triton", "safetensors", "matplotlib", "pyarrow", "pillow")
_VARIABLES = ("PIXELDP_DATA", "PIXELDP_NATIVE", "PIXELDP_ISA")


@dataclass(frozen=True)
class SelfTest:
    """One self-test's name and outcome."""

    name: str
    passed: bool
    detail: str = ""


def self_tests() -> list[SelfTest]:
    """Philox's published answers in every implementation, and the noise made from its words.

    Source
        Salmon et al., SC 2011, and the vectors published with Random123.
    """
    return [*(_known_answers(name, words) for name, words in _philoxes()), *_noise_tests()]


def _known_answers(name: str, words: Callable[[Any, Any], tuple[int, ...]]) -> SelfTest:
    wrong = [
        i for i, (counter, key, want) in enumerate(KNOWN_ANSWERS) if words(counter, key) != want
    ]
    detail = f"known answer {wrong[0] + 1} is wrong" if wrong else f"{len(KNOWN_ANSWERS)} answers"
    return SelfTest(f"Philox4x32-10, {name}", not wrong, detail)


def _philoxes() -> Iterator[tuple[str, Callable[[Any, Any], tuple[int, ...]]]]:
    import numpy as np
    import torch

    from pixeldp_fast.noise.philox import philox
    from pixeldp_fast.noise.sampling import native_module

    def with_numpy(counter: Any, key: Any) -> tuple[int, ...]:
        words = philox(tuple(np.array([c], dtype=np.uint64) for c in counter), key)
        return tuple(int(w[0]) for w in words)

    def with_torch(counter: Any, key: Any) -> tuple[int, ...]:
        words = philox(tuple(torch.tensor([c], dtype=torch.int64) for c in counter), key)
        return tuple(int(w) for w in words)

    yield "NumPy", with_numpy
    yield "torch", with_torch
    native = native_module()
    if native is not None:
        yield "compiled", lambda counter, key: tuple(native.philox(list(counter), list(key)))


def _noise_tests() -> Iterator[SelfTest]:
    """The noise of every law, as this machine makes it, against its definition."""
    import numpy as np
    import torch

    from pixeldp_fast.noise import MECHANISMS, Purpose, Stream
    from pixeldp_fast.noise.sampling import add_noise, noise_definition, noise_source

    stream, index, draws, coordinates = Stream(2**63 + 1, Purpose.VERIFICATION), [5, 9], 64, 67
    for device, law in itertools.product(_device_names(), MECHANISMS):
        mechanism = law(1.0)  # type: ignore[call-arg]
        centre = torch.zeros((len(index), coordinates), device=device)
        made = add_noise(centre, mechanism, stream, index, 3, draws).double().cpu().numpy()
        want = noise_definition(mechanism, stream, index, 3, draws, coordinates)
        error = float(np.abs(made - want).max())
        source = {"native": "compiled"}.get(noise_source(mechanism, device), "torch")
        detail = f"{made.size} values, largest difference {error:.1e}"
        name = f"{law.__name__} noise, {source}, {device}"
        yield SelfTest(name, error <= NOISE_TOLERANCE, detail)


def _device_names() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def environment() -> list[Section]:
    """Titled rows (what, finding)."""
    return [
        ("versions", _versions()),
        ("this machine", _machine()),
        ("environment variables", [(v, os.environ.get(v) or "not set") for v in _VARIABLES]),
        ("data sets", _data_sets()),
    ]


def _versions() -> list[tuple[str, str]]:
    rows = [("pixeldp_fast", __version__), ("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _machine() -> list[tuple[str, str]]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [
        ("system", platform.platform()),
        ("processor", f"{_processor()}, {usable} usable, {torch.get_num_threads()} torch threads"),
        *_engines(),
    ]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"built for CUDA {built}, none found" if built else "torch is built for the CPU alone"
        return [*rows, ("CUDA devices", f"none ({why})")]
    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        rows.append((f"cuda:{i}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB"))
    return rows


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _engines() -> list[tuple[str, str]]:
    from pixeldp_fast.noise.sampling import native_module

    native = native_module()
    if native is not None:
        isa = native.isa(config.widest_isa())
        return [
            ("engine on the CPU", f"native, {isa}; torch for networks that do not lower"),
            ("noise on the CPU", f"compiled module, {isa}"),
        ]
    if not config.native_allowed():
        why = "PIXELDP_NATIVE=0"
    elif importlib.util.find_spec("pixeldp_fast._native") is None:
        why = "the compiled module is not installed: this is a pure-Python installation"
    else:
        why = f"the compiled module cannot be loaded: {_loading_error()}"
    return [(what, f"torch, slower ({why})") for what in ("engine on the CPU", "noise on the CPU")]


def _loading_error() -> str:
    try:
        importlib.import_module("pixeldp_fast._native")
    except ImportError as error:
        return str(error)
    return "unknown"


def _data_sets() -> list[tuple[str, str]]:
    from pixeldp_fast.data import DATASETS, load

    rows = []
    for name in DATASETS:
        try:
            test = load(name, "test")
        except DataError as error:
            rows.append((name, f"not found: {error}"))
        else:
            shape = "x".join(map(str, test.input_shape))
            rows.append((name, f"found: {len(test)} test images {shape}"))
    return rows


def tables(sections: list[Section], results: list[SelfTest]) -> Any:
    """Everything as one renderable."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for title, rows in sections:
        parts += [Text(title, style="bold"), _table([(a, Text(b)) for a, b in rows]), Text()]
    outcome = [
        (
            r.name,
            Text("pass", style="green") if r.passed else Text("FAIL", style="bold red"),
            r.detail,
        )
        for r in results
    ]
    failed = sum(not r.passed for r in results)
    verdict = (
        Text(f"{failed} of {len(results)} self-tests failed: nothing made here is to be trusted.")
        if failed
        else Text("All self-tests passed.")
    )
    verdict.stylize("bold red" if failed else "green")
    return Group(*parts, Text("self-tests", style="bold"), _table(outcome), Text(), verdict)


def _table(rows: list[tuple[Any, ...]]) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=16)
    for row in rows:
        table.add_row(*row)
    return table
