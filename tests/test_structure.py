"""Imports go one way: the engine never knows the laboratory, the laboratory never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Each module may import those on the levels before its own, and its neighbours never.
LEVELS = [
    {"errors", "interrupt", "seeds", "cores", "graphs", "transfer", "agreement", "weights", "memory", "seat", "pacer"},
    {"ranks", "kernels"},
    {"config", "spectrum", "theory", "database", "keep", "pyramid", "atomic", "foreign"},
    {"datasets", "augment", "networks", "optimiser", "figures", "mirror", "desk", "mapping", "family"},
    {"views", "diagnostics", "predictor", "checkpoint", "evaluation", "store"},
    {"trainer", "export", "stage"},
    {"loop", "batched"},
    {"together"},
    {"replay", "pretrain", "distributed"},
    {"engine"},
    {"sweep"},
    {"reproduce"},
    {"cli"},
    {"__main__"},
]
WITH_TORCH = {
    "datasets", "augment", "networks", "optimiser", "predictor", "checkpoint", "evaluation", "trainer", "loop",
    "replay", "pretrain", "reproduce", "sweep", "graphs", "transfer", "agreement", "weights", "views", "diagnostics",
    "ranks", "distributed", "batched", "together", "kernels",
}  # fmt: skip


TORCH_FREE = {
    "reproduce": {"progress", "published", "record", "results", "rows"},
    "sweep": {"plan", "progress", "table"},
}
"""What of the studies' packages the laboratory may import."""


def imports(path: Path, *, top: bool) -> set[str]:
    """Full names of the modules that a file imports: at its top, or anywhere but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in tree.body if top else ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_its_level() -> None:
    packages = {path.parent.name for path in (ROOT / "ssl_lab").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "ssl_lab").glob("*.py")} - {"__init__"}
    assert modules | packages == set().union(*LEVELS)


def test_imports_go_one_way() -> None:
    for level, modules in enumerate(LEVELS):
        before = set().union(*LEVELS[:level])
        for module in modules:
            file, package = ROOT / "ssl_lab" / f"{module}.py", ROOT / "ssl_lab" / module
            files = package.glob("*.py") if package.is_dir() else [file]
            names = set().union(*(imports(path, top=False) for path in files))
            used = {
                n.split(".")[1] for n in names if n.startswith("ssl_lab.") and n.split(".")[1] in set().union(*LEVELS)
            } - {module}
            assert used <= before, f"{module} imports {sorted(used - before)}"
            assert module == "cli" or not any(n.split(".")[0] == "lab" for n in names), module


def test_the_laboratory_imports_no_torch() -> None:
    for path in (ROOT / "lab").rglob("*.py"):
        names = imports(path, top=True)
        roots = {n.split(".")[0] for n in names}
        assert not roots & {"torch", "torchvision", "sklearn"}, path
        names = {n for n in names if n.startswith("ssl_lab.") and not is_torch_free(n)}
        engine = {n.split(".")[1] for n in names} & WITH_TORCH
        assert not engine, f"{path} imports {engine}"


def is_torch_free(name: str) -> bool:
    """Whether it is one of the modules of a study that need no torch, or something in one."""
    parts = name.split(".")
    return len(parts) > 2 and parts[2] in TORCH_FREE.get(parts[1], ())


def test_what_the_laboratory_reads_of_a_study_needs_no_torch() -> None:
    modules = sorted(f"{package}.{module}" for package, names in TORCH_FREE.items() for module in names)
    for module in modules:
        names = imports(ROOT / "ssl_lab" / f"{module.replace('.', '/')}.py", top=False)
        assert not {n.split(".")[0] for n in names} & {"torch", "torchvision", "sklearn", "matplotlib", "scipy"}, module
        used = {n for n in names if n.startswith("ssl_lab.")}
        assert not {n for n in used if n.split(".")[1] in WITH_TORCH and not is_torch_free(n)}, module
    words = ", ".join(f"ssl_lab.{module}" for module in modules)
    heavy = "{'torch', 'torchvision', 'sklearn', 'matplotlib', 'scipy'}"
    code = f"import sys, {words}; sys.exit(', '.join(sorted({heavy} & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_engine_imports_no_jupyter() -> None:
    for path in (ROOT / "ssl_lab").rglob("*.py"):
        roots = {n.split(".")[0] for n in imports(path, top=False)}
        assert not roots & {"IPython", "ipykernel", "ipywidgets", "bqplot", "traitlets", "voila", "anywidget"}, path


def test_notebooks_are_kept_without_output() -> None:
    import json

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs")
            assert not cell.get("execution_count")
