"""The compiled code of the Triton kernels, for GPUs that are not here: does it fit, does it spill.

Compilation rejects neither too much shared memory nor registers in memory, and a product that
misses the tensor cores is only slow; each has gone wrong silently. Nothing is run.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448}  # bytes of one block
# Registers of a thread (sm_80, sm_90), the larger of Triton 3.6's and 3.9's; a tenth more passes.
REGISTERS = {
    "noise 784": (64, 64),
    "noise 784 laplace": (64, 64),
    "noise 3x32x32": (96, 80),
    "noise 32x14x14": (96, 96),
    "noise 16x32x32": (96, 96),
    "noise 5x7x7": (96, 80),
    "count 10": (62, 62),
    "count 1000 softmax": (70, 74),
    "pool 64x64-10 bf16": (79, 80),
    "pool 64x640-100 bf16 softmax": (176, 224),
    "pool 64x64-10": (168, 164),
    "dense 3136-1024-10 bf16": (255, 226),
    "dense 784-256-100 bf16 softmax": (234, 224),
    "dense 3136-1024-10": (178, 178),
    "mlp 784-256-256-10 bf16": (182, 237),
    "mlp 128-128-128-10 bf16": (234, 233),
    "mlp 784-256-256-10": (128, 152),
    "conv 3-16 bf16": (64, 48),
    "conv 16-16 bf16": (60, 46),
    "conv 64-64 bf16": (102, 80),
    "conv 320-640 bf16": (172, 140),
    "conv 64-256 bf16": (135, 126),
    "conv 16-16": (70, 64),
    "conv 320-320": (128, 128),
}
# All that a program executes, by the coordinates of its tile: loop, draw, addresses and a step's
# share of what is done once; the noise itself, from the words to the cast, takes 19 of them. 784
# coordinates fill no tile of one draw: eight draws lie side by side, each with its own addresses.
# Fewer than eight channels go through shared memory: a block's store alone would be six bytes.
INSTRUCTIONS_PER_NORMAL = {"1024": 21.5, "784": 24, "32x14x14": 21, "16x32x32": 21, "3x32x32": 26}
ARCHITECTURES = ("sm_80", "sm_90")
each_launch = pytest.mark.parametrize("launch", REGISTERS)
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def tools_present():
    """Whether Triton is here with the two programs that read compiled code."""
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return False
    tools = Path(found.origin).parent / "backends" / "nvidia" / "bin"
    return all((tools / name).exists() for name in ("cuobjdump", "nvdisasm", "ptxas"))


pytestmark = pytest.mark.skipif(
    not tools_present(), reason="this Triton ships no ptxas, cuobjdump and nvdisasm"
)


@pytest.fixture(scope="module")
def readings():
    """What `tests.helpers.launches` prints, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.helpers.launches"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@each_architecture
@each_launch
def test_tiles_fit_and_do_not_spill(readings, launch, architecture):
    code = readings["code"][f"{launch} {architecture}"]
    assert code["shared"] <= SHARED_LIMIT[architecture]
    assert (code["stack"], code["spills"]) == (0, 0)
    assert code["registers"] <= 1.1 * REGISTERS[launch][ARCHITECTURES.index(architecture)]


@each_launch
def test_products_are_where_they_were_asked_for(readings, launch):
    """bfloat16 on tensor cores; float32 nowhere near them, where TF32 would cut its digits."""
    ampere, hopper = (readings["code"][f"{launch} {a}"] for a in ARCHITECTURES)
    if "bf16" in launch:
        assert ampere["hmma"] > 0
        assert hopper["hgmma"] > 0
    else:
        assert ampere["hmma"] == hopper["hmma"] == hopper["hgmma"] == 0


@pytest.mark.parametrize("shape", INSTRUCTIONS_PER_NORMAL)
@pytest.mark.parametrize("law", [0, 1])
def test_a_normal_costs_few_instructions(readings, shape, law):
    found = readings["per_normal"][f"{shape} law {law}"]
    assert 10 < found <= INSTRUCTIONS_PER_NORMAL[shape]


def test_the_same_floats_whatever_the_launch(readings):
    """Calls of few draws and of 2^31 compile anew; multiplications and sums must fuse as before."""
    assert len(readings["float"]) == 4
    for plain, few, wide in readings["float"].values():
        assert plain == few == wide
        assert plain["FFMA"] > 0


def test_every_launch_is_read(readings):
    assert set(readings["code"]) == {f"{n} {a}" for n in REGISTERS for a in ARCHITECTURES}


def test_blackwell_compiles(readings):
    assert len(readings["blackwell"]) == 5
    assert all(0 <= shared <= SHARED_LIMIT["sm_90"] for shared in readings["blackwell"].values())
