"""Who may import whom, and what no module may do: the structure that keeps the package readable."""

import ast
from pathlib import Path

import pytest

LIB = Path(__file__).parent.parent / "lib"

ALLOWED = {
    "utils": set(),
    "structures": set(),
    "config": {"utils"},
    "layers": {"structures", "utils.distributed"},
    "modeling": {"structures", "layers", "config", "utils"},
    "dataset": {"structures", "config", "utils"},
    "evaluation": {"structures", "layers", "utils.errors"},
    "predictor": {"structures", "config", "utils", "layers", "modeling", "dataset", "solver.checkpoint"},
    "api": {"structures", "config", "utils", "predictor", "solver"},
    "solver": {"structures", "config", "utils", "layers", "modeling", "dataset", "evaluation"},
    "demo_sources": {"utils"},
    "demo_output": {"structures", "utils", "evaluation", "demo_sources"},
    "demo_drawing": {"utils", "solver", "predictor", "demo_sources", "demo_output"},
    "timing": {"utils", "modeling"},
    "demo_timing": {"utils", "solver", "predictor", "demo_sources", "demo_drawing", "timing"},
    "demo_command": {
        "config",
        "utils",
        "dataset",
        "solver",
        "predictor",
        "demo_sources",
        "demo_output",
        "demo_drawing",
        "demo_timing",
    },
    "commands": {"config", "utils", "solver", "demo_command"},
}
ALLOWED["tools"] = set(ALLOWED)
"""Part of the package -> parts or modules it may import besides itself."""

MODULES = sorted(LIB.rglob("*.py"))


def module_parts(path: Path) -> list[str]:
    parts = list(path.relative_to(LIB).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_modules(path: Path) -> list[tuple[int, list[str]]]:
    """(line, dotted parts below the package) of every relative import of a module."""
    package = list(path.relative_to(LIB).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = package[: len(package) - (node.level - 1)]
            target = start + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = [*target, alias.name]
                is_module = LIB.joinpath(*inner).is_dir() or LIB.joinpath(*inner).with_suffix(".py").exists()
                found.append((node.lineno, inner if is_module else target))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIB)))
def test_imports_go_one_way(path):
    parts = module_parts(path)
    own = parts[0] if parts else ""
    for line, target in imported_modules(path):
        if own == "" or target[0] == own:
            continue
        allowed = ALLOWED[own]
        fits = any(target[: len(entry.split("."))] == entry.split(".") for entry in allowed)
        assert fits, f"{path.relative_to(LIB)}:{line}: {own} may not import {'.'.join(target)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIB)))
def test_imports_within_the_package_are_relative(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not any(name.split(".")[0] in ("lib", "ssds") for name in names), f"{path}:{node.lineno}"


def test_every_part_has_a_rule():
    assert {module_parts(path)[0] for path in MODULES if module_parts(path)} <= set(ALLOWED)


SCRIPTS = [LIB / "tools", LIB / "dataset" / "shapes.py"]
"""What runs as `python -m`, and so may write to the screen."""

SILENT = [path for path in MODULES if not any(script == path or script in path.parents for script in SCRIPTS)]


@pytest.mark.parametrize("path", SILENT, ids=lambda p: str(p.relative_to(LIB)))
def test_nothing_prints_below_the_scripts(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    printed = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not printed, f"{path}: print on lines {printed}; use the log"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIB)))
def test_the_configuration_stops_at_the_builders(path):
    """Below builders, factories and the solver, functions take plain arguments, not the configuration."""
    readers = ("config", "solver", "tools", "predictor", "api", "commands", "demo_command")
    builders = {"modeling/model_builder.py", "dataset/dataset_factory.py", "dataset/transforms.py"}
    relative = path.relative_to(LIB).as_posix()
    if relative in builders or module_parts(path)[:1] and module_parts(path)[0] in readers:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert "cfg" not in [argument.arg for argument in node.args.args], f"{relative}:{node.lineno}: {node.name}"
