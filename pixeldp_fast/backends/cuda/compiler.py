"""From the CUDA C++ shipped with the package to a shared library in the user's cache, by nvcc.

Nothing is compiled at import. A library's name holds everything its code depends on, so a changed
source, flag or compiler makes a new one, and processes that compile at the same time do not meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pixeldp_fast import __version__, config
from pixeldp_fast.errors import CompilationFailed, MissingCompiler

SUFFIXES = (".cu", ".cuh", ".h")
# Noise has the CPU engine's bits only where nothing fuses what the source spells out.
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "-shared", "-Xcompiler", "-fPIC", "-Xptxas", "-v")
TAIL = 2000  # characters of the compiler's words in an error
TIMEOUT = 600  # seconds: a compiler that hangs must not hang a certificate


def sources() -> Path:
    """The folder with `cuda/` and `include/pixeldp/`: of an installation, else of the checkout."""
    installed = Path(__file__).parent / "source"
    folder = installed if installed.is_dir() else Path(__file__).parents[3] / "csrc"
    if not (folder / "cuda").is_dir():
        raise MissingCompiler(
            f"The CUDA C++ sources are not where they were installed, {installed}; install the "
            "package again."
        )
    return folder


def nvcc() -> Path:
    """NVIDIA's compiler, of `CUDA_HOME` or on the path.

    Raises
    ------
    MissingCompiler
        Where there is none.
    """
    home = config.cuda_home()
    candidates = [home / "bin" / "nvcc"] if home is not None else []
    found = shutil.which("nvcc")
    candidates += [Path(found)] if found else []
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    raise MissingCompiler(
        "The CUDA C++ kernels need NVIDIA's compiler nvcc, which is neither in CUDA_HOME "
        f"({home or 'not set'}) nor on the path; install the CUDA toolkit or set CUDA_HOME. The "
        "Triton and torch backends need none."
    )


@cache
def version(compiler: Path) -> str:
    """What the compiler says of itself."""
    return _run([str(compiler), "--version"]).stdout


def architecture(capability: tuple[int, int]) -> str:
    """The target's name for a device's compute capability, such as "90a"."""
    major, minor = capability
    if major < 8:
        raise CompilationFailed(
            f"The CUDA C++ kernels are written for compute capability 8.0 and above, the device "
            f"has {major}.{minor}."
        )
    return f"{major}{minor}a" if major >= 9 else f"{major}{minor}"


def command(compiler: Path, source: Path, folder: Path, target: str, out: Path) -> list[str]:
    """The call of the compiler that makes `out`."""
    includes = ["-I", str(folder), "-I", str(folder / "include")]
    code = f"arch=compute_{target},code=sm_{target}"
    return [str(compiler), *FLAGS, *includes, "-gencode", code, "-o", str(out), str(source)]


def key(folder: Path, target: str, compiler: Path) -> str:
    """A name for everything that a library's code depends on."""
    digest = hashlib.sha256()
    for part in (__version__, target, version(compiler), *FLAGS):
        digest.update(part.encode() + b"\0")
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def library(name: str, target: str, *, folder: Path | None = None) -> Path:
    """The compiled `cuda/NAME.cu`, from the cache or compiled now.

    Parameters
    ----------
    name : str
        Of the source, without suffix.
    target : str
        As `architecture` gives it.
    folder : Path, optional
        Of the sources; default: the package's.

    Raises
    ------
    MissingCompiler, CompilationFailed

    Cost
        Seconds the first time, nothing but the reading of the sources afterwards.
    """
    folder = sources() if folder is None else folder
    compiler = nvcc()
    cached = config.cache_folder() / "cuda"
    path = cached / f"{name}-sm_{target}-{key(folder, target, compiler)}.so"
    if path.exists():
        return path
    try:
        cached.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cached) as scratch:
            made = Path(scratch) / path.name
            done = _run(command(compiler, folder / "cuda" / f"{name}.cu", folder, target, made))
            log = Path(scratch) / "log"
            log.write_text(done.stderr)
            os.replace(log, path.with_suffix(".log"))  # registers and spills of every kernel
            os.replace(made, path)
    except OSError as error:
        raise CompilationFailed(
            f"Compiled kernels are kept in {cached}, which cannot be written ({error}); set "
            "XDG_CACHE_HOME to a folder that can."
        ) from error
    return path


@cache
def load(path: Path) -> ctypes.CDLL:
    """A compiled library, loaded once per process."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompilationFailed(
            f"{path} does not load: {error}. Remove it, and it is compiled again."
        ) from error


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The compiler's answer, or its words as an error."""
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            errors="replace",  # compilers quote sources and paths
            check=False,
            timeout=TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilationFailed(f"{arguments[0]} cannot be run to an end: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-TAIL:]
        raise CompilationFailed(
            f"nvcc failed with status {done.returncode}. It was called as\n  "
            f"{' '.join(arguments)}\nand said\n{said}"
        )
    return done
