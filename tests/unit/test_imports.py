"""Who may import whom, and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pixeldp_fast

PACKAGE = Path(pixeldp_fast.__file__).parent
# A lower level never imports a higher one.
LEVELS = {
    **dict.fromkeys(["errors", "types", "config", "rounding", "files", "_version"], 0),
    **dict.fromkeys(["noise", "stats"], 1),
    **dict.fromkeys(["bounds", "plan"], 2),
    "backends": 3,
    **dict.fromkeys(["smooth", "models", "data", "compat"], 4),
    **dict.fromkeys(["attacks", "train", "jobs", "verify", "selftest"], 5),
    **dict.fromkeys(["report", "experiments", "cli"], 6),
}
FORBIDDEN = {
    "backends": {"stats", "bounds"},
    "stats": {"noise", "torch", "triton"},
    "bounds": {"torch", "triton", "plan"},
    "verify": {"stats", "bounds", "rounding", "scipy"},  # a second implementation of these
}


def imports_of(path):
    """Dotted names imported anywhere in a file, except for type checking only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    """The top-level part of the package a dotted name lies in, or the foreign package's name."""
    parts = dotted.split(".")
    if parts[0] != "pixeldp_fast":
        return parts[0]
    return parts[1] if len(parts) > 1 else None


def offences(root):
    found = []
    for path in sorted(root.rglob("*.py")):
        own = path.relative_to(root).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for dotted in imports_of(path):
            other = room(dotted)
            inside = dotted.startswith("pixeldp_fast.")
            if inside and other in LEVELS and LEVELS[other] > LEVELS[own]:
                found.append(f"{path.name} (level {LEVELS[own]}) imports {dotted}")
            if other in FORBIDDEN.get(own, ()):
                found.append(f"{path.name} in {own} imports {dotted}")
    return found


def test_every_room_has_a_level():
    rooms = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()
    }
    assert rooms - {"__init__", "__pycache__"} - LEVELS.keys() - {"py.typed"} == set()


def test_imports_go_downwards():
    assert offences(PACKAGE) == []


def test_the_check_catches_an_import_upwards(tmp_path):
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "bad.py").write_text(
        "import torch\nfrom pixeldp_fast.smooth import model\n"
    )
    assert len(offences(tmp_path)) >= 2


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "scipy", "numpy", "triton", "matplotlib", "pixeldp_fast._native"}
    assert loaded_after("import pixeldp_fast").isdisjoint(heavy)


def test_statistics_and_bounds_do_without_torch():
    assert "torch" not in loaded_after("import pixeldp_fast.stats, pixeldp_fast.bounds")
    assert "torch" not in loaded_after("from pixeldp_fast import Gaussian; Gaussian(1)")


def test_verification_of_numbers_shares_nothing_with_what_it_verifies():
    loaded = loaded_after("import pixeldp_fast.verify.whole")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("pixeldp_fast.")}
    assert rooms.isdisjoint({"stats", "bounds", "noise", "smooth", "rounding", "backends"})
    assert loaded.isdisjoint({"torch", "scipy"})


def test_public_names():
    for name in pixeldp_fast.__all__:
        assert getattr(pixeldp_fast, name) is not None
    assert "certify_dataset" in dir(pixeldp_fast)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pixeldp_fast.no_such_name
