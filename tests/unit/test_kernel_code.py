"""The machine code of the register tiles: as wide as asked for, and no sum leaves its register.

Both have gone wrong silently elsewhere: a width taken from a macro that the compiler did not set,
and accumulators stored to the stack in the innermost loop, at half the speed either time.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
# Instruction set, register file, rows and columns of its largest tile.
TILES = [("avx2", "ymm", 4, 3), ("avx512", "zmm", 8, 3)]

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("c++") is None,
    reason="cmake and a C++ compiler are needed to look at what they make",
)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """The assembly of one instruction set's translation unit, with the flags of the build."""
    build = tmp_path_factory.mktemp("build")
    command = ["cmake", "-S", CSRC, "-B", build, "-DPIXELDP_CHECK=ON", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(command, check=True, capture_output=True)
    commands = json.loads((build / "compile_commands.json").read_text())

    def of(isa):
        entries = [c for c in commands if Path(c["file"]).name == f"kernels_{isa}.cpp"]
        if not entries:
            pytest.skip(f"{isa} is not built on this architecture")
        flags = shlex.split(entries[0]["command"])
        flags = [f for f in flags[: flags.index("-o")] if "sanitize" not in f]
        done = subprocess.run(
            [*flags, "-S", "-o", "-", entries[0]["file"]],
            cwd=build,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    return of


def innermost_loop(code, rows, columns):
    """The instructions of the loop with the most multiply-adds in `product<rows, columns>`."""
    name = rf"^_ZN\w*7productILi{rows}ELi{columns}E\w*:$"
    start = re.search(name, code, flags=re.MULTILINE)
    assert start is not None
    body = code[start.end() : code.index(".cfi_endproc", start.end())].splitlines()
    labels = {line.rstrip(":"): i for i, line in enumerate(body) if re.match(r"\.L\w+:", line)}
    loops = []
    for i, line in enumerate(body):
        jump = re.match(r"\s+j\w+\s+(\.L\w+)", line)
        if jump and labels.get(jump.group(1), i) < i:
            loops.append(body[labels[jump.group(1)] : i])
    with_products = [loop for loop in loops if any("vfmadd" in line for line in loop)]
    return min(with_products, key=len)


def faults(loop, register, rows, columns):
    """What is wrong with a loop, in words."""
    products = [line for line in loop if "vfmadd" in line]
    found = []
    if len(products) % (rows * columns):
        found.append(f"{len(products)} multiply-adds for a tile of {rows} x {columns}")
    if not all(f"%{register}" in line for line in products):
        found.append(f"multiply-adds that do not use {register} registers")
    if any(re.search(r"\(%r[sb]p", line) for line in loop):
        found.append("the stack is touched")
    return found


@pytest.mark.parametrize(("isa", "register", "rows", "columns"), TILES, ids=lambda v: str(v))
def test_sums_stay_in_registers_of_full_width(assembly, isa, register, rows, columns):
    loop = innermost_loop(assembly(isa), rows, columns)
    assert faults(loop, register, rows, columns) == []


def test_the_check_catches_both_faults():
    good = ["vfmadd231ps\t%zmm1, %zmm2, %zmm3"] * 24
    assert faults(good, "zmm", 8, 3) == []
    assert faults([line.replace("zmm", "ymm") for line in good], "zmm", 8, 3)
    assert faults([*good, "vmovaps\t%zmm3, 64(%rsp)"], "zmm", 8, 3)
    assert faults(good[:-1], "zmm", 8, 3)
