"""Compile Triton launches for architectures that are not present, and read the code.

For a process without TRITON_INTERPRET: the launchers are called with tensors on the meta device,
and a launch is recorded in place of being made, so that what is read is what would be launched.
"""

import re
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "maxnreg")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class _Recorder:
    """Stands for a kernel in its module, and keeps what it is launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.launches.append((self.kernel, args, kwargs))


@contextmanager
def recorded(*modules: ModuleType):
    """The list of launches made inside the block by the kernels of `modules`."""
    launches: list = []
    saved = []
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction) and name.endswith("_kernel"):
                saved.append((module, name, value))
                setattr(module, name, _Recorder(value, launches))
    try:
        yield launches
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


def compiled(launch, capability: int):
    """What Triton makes of a recorded launch for this compute capability (90: sm_90)."""
    kernel, args, kwargs = launch
    values = dict(zip(kernel.arg_names, args, strict=False))
    values |= {k: v for k, v in kwargs.items() if k in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[(position,)] = "constexpr", value
            continue
        aligned = True
        if isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
        elif isinstance(value, float):
            signature[name], aligned = "fp32", False
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value == 1 and not parameter.do_not_specialize:
                signature[name], constants[(position,)], aligned = "constexpr", 1, False
            aligned = aligned and value % 16 == 0 and not parameter.do_not_specialize
        if aligned:
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    options = {k: v for k, v in kwargs.items() if k in _OPTIONS}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run(
        [str(_TOOLS / name), *arguments], check=True, capture_output=True, text=True
    ).stdout


def tools_present() -> bool:
    """Whether this Triton ships the two programs that read compiled code."""
    return (_TOOLS / "cuobjdump").exists() and (_TOOLS / "nvdisasm").exists()


def reading(launch, capability: int) -> dict:
    """Registers, stack, shared memory and instructions of a launch's compiled code."""
    made = compiled(launch, capability)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    opcodes = [opcode for opcode, _ in _lines(code)[0]]
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": made.metadata.shared,
        "instructions": len([o for o in opcodes if o != "NOP"]),
        "spills": len([o for o in opcodes if o.startswith(("LDL", "STL"))]),
        "hgmma": len([o for o in opcodes if o.startswith("HGMMA")]),
        "hmma": len([o for o in opcodes if o.startswith("HMMA")]),
        "opcodes": opcodes,
        "each_step": _each_step(code),
    }


def _lines(code: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Every instruction as (opcode, text), and the place of every label among them."""
    found: list[tuple[str, str]] = []
    labels = {}
    for line in code.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label[1]] = len(found)
        opcode = re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9.]*)", line)
        if opcode:
            found.append((opcode[1], line))
    return found, labels


def _each_step(code: str) -> int:
    """Instructions of one turn of the code's longest loop, but for blocks that it may jump over.

    Of those only ones with loads from memory: what a step reads where its example has changed.
    """
    found, labels = _lines(code)
    jumps = [
        (i, labels[target[0]])
        for i, (opcode, line) in enumerate(found)
        if opcode == "BRA" and (target := re.search(r"\.L_x_\d+", line))
    ]
    loops = [(goal, i + 1) for i, goal in jumps if goal < i]
    first, last = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    rare: set[int] = set()
    for i, goal in jumps:
        if first <= i < goal <= last:
            block = range(i + 1, goal)
            rare |= set(block) if any(found[j][0].startswith("LDG") for j in block) else set()
    return len([j for j in range(first, last) if found[j][0] != "NOP" and j not in rare])
