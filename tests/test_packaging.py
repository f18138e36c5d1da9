"""What an installation brings along, and what .ci/environment.sh does on systems that lack something."""

import ast
import importlib
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "faster_coco_eval": "faster-coco-eval",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "torch_pruning": "torch-pruning",
}  # where the names differ
OPTIONAL = {"timm", "onnx", "onnxscript", "onnxruntime", "torch-pruning"}
APT_LINE = "apt-get update && apt-get install -y --no-install-recommends"


@pytest.fixture
def setup_arguments(monkeypatch):
    """What setup.py hands to setuptools."""
    given = {}
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=given.update))
    runpy.run_path(str(ROOT / "setup.py"))
    return given


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_names(*places: str) -> dict[str, str]:
    """Top-level names of the packages imported by the files below `places` -> one file that does it."""
    found = {}
    for place in places:
        for path in [ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                else:
                    modules = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                found.update({module.partition(".")[0]: str(path.relative_to(ROOT)) for module in modules})
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names}


def distribution_names(lines) -> set[str]:
    return {re.match(r"[\w.-]+", line).group().lower() for line in lines if line.strip() and not line.startswith("#")}


def test_every_folder_of_lib_installs_below_ssds(setup_arguments):
    folders = {path.parent.relative_to(ROOT / "lib") for path in (ROOT / "lib").rglob("*.py")}
    assert set(setup_arguments["packages"]) == {".".join(("ssds", *folder.parts)) for folder in folders}
    assert setup_arguments["package_dir"] == {"ssds": "lib"}


def test_what_lib_imports_is_required_by_the_installation(setup_arguments):
    required = distribution_names(setup_arguments["install_requires"])
    assert not required & {"pytest", "ruff", "hypothesis", *OPTIONAL}
    required |= OPTIONAL  # imported where they are asked for
    missing = {
        name: path
        for name, path in imported_names("lib", "train.py", "demo.py").items()
        if name != "lib" and DISTRIBUTIONS.get(name, name).lower() not in required
    }
    assert not missing


def test_optional_packages_are_extras(setup_arguments):
    extras = setup_arguments["extras_require"]
    assert extras["timm"] == ["timm>=1.0"]
    assert distribution_names(extras["export"]) == {"onnx", "onnxscript", "onnxruntime"}
    assert distribution_names(extras["prune"]) == {"torch-pruning"}
    assert distribution_names(extras["dev"]) >= {"torch", "pytest", *OPTIONAL}


def test_what_tests_import_is_in_requirements_txt():
    required = distribution_names((ROOT / "requirements.txt").read_text().splitlines())
    imported = imported_names("tests", "experiments")
    missing = {
        name: path
        for name, path in imported.items()
        if name not in ("lib", "tests", "experiments", "tomli", "tomllib")
        and DISTRIBUTIONS.get(name, name).lower() not in required
    }
    assert not missing


def test_console_commands_name_functions_that_exist(project):
    tools = {"check", "plan", "priors", "download", "score", "compare", "stills-to-video", "benchmark", "export",
             "quantize", "precision", "prune"}  # fmt: skip
    assert set(project["scripts"]) == {"ssds-train", "ssds-demo", *(f"ssds-{tool}" for tool in tools)}
    for target in project["scripts"].values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module.replace("ssds", "lib", 1)), function))


class Clone:
    """A folder with the environment script, no requirements, and stand-ins for commands of the system."""

    def __init__(self, folder: Path):
        self.folder, self.commands = folder, folder.parent / "commands"
        (folder / ".ci").mkdir(parents=True)
        self.commands.mkdir(exist_ok=True)
        shutil.copy(ROOT / ".ci/environment.sh", folder / ".ci")
        (folder / "requirements.txt").write_text("# nothing\n")

    def stand_in(self, name: str, script: str):
        """Let the command `name` be this shell script."""
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def lacks(self, packages: str):
        """A python3 that finds these Debian packages missing until the file `installed` is there."""
        answer = f'[ "$1" != - ] || [ -e installed ] || {{ echo {packages}; exit 0; }}'
        self.stand_in("python3", f'{answer}\nexec {sys.executable} "$@"')

    def make_env(self, **variables: str) -> subprocess.CompletedProcess:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHON"} | variables
        environ["PATH"] = f"{self.commands}:{os.environ['PATH']}"
        script = self.folder / ".ci/environment.sh"
        return subprocess.run(["sh", script], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "a clone")


def test_unsupported_interpreter_is_refused_by_its_version(clone):
    clone.stand_in("old", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    result = clone.make_env(PYTHON="old")
    assert result.returncode == 1
    assert result.stderr == "PYTHON=old is Python 3.9; Python 3.10 to 3.13 is needed.\n"
    assert not (clone.folder / ".venv").exists()
    assert "no such command" in clone.make_env(PYTHON="no-such-python").stderr


def test_user_is_told_the_apt_line_and_nothing_is_made(clone):
    clone.lacks("libgl1 libxcb1")
    clone.stand_in("id", "echo 1000")
    clone.stand_in("apt-get", "touch called")
    result = clone.make_env()
    assert result.returncode == 1
    assert f"{APT_LINE} libgl1 libxcb1\n" in result.stderr
    assert sorted(path.name for path in clone.folder.iterdir()) == [".ci", "requirements.txt"]


def test_root_stops_when_a_package_is_still_missing_after_its_installation(clone):
    clone.lacks("libgl1")
    clone.stand_in("id", "echo 0")
    clone.stand_in("apt-get", 'echo "$DEBIAN_FRONTEND $*" >> calls')
    result = clone.make_env()
    assert result.returncode == 1
    assert "Still missing" in result.stderr
    calls = (clone.folder / "calls").read_text().splitlines()
    assert calls == ["noninteractive update", "noninteractive install -y --no-install-recommends libgl1"]
    assert not (clone.folder / ".venv").exists()


@pytest.mark.slow
def test_environment_is_made_once_and_remade_when_broken_or_moved(clone):
    clone.lacks("libgl1")
    clone.stand_in("id", "echo 0")
    clone.stand_in("apt-get", 'case "$*" in install*) touch installed ;; esac')
    first = clone.make_env()
    assert first.returncode == 0, first.stderr
    assert "Making .venv" in first.stdout
    kept = clone.folder / ".venv" / "kept"
    kept.touch()

    assert clone.make_env().stdout == ""
    (clone.folder / "requirements.txt").write_text("# still nothing\n")
    assert "Installing requirements.txt" in clone.make_env().stdout
    (clone.folder / ".venv" / "requirements.installed").unlink()  # as if made by hand
    assert clone.make_env().returncode == 0
    assert kept.exists()

    (clone.folder / ".venv" / "unfinished").touch()
    assert "anew" in clone.make_env().stdout
    assert not kept.exists()
    (clone.folder / ".venv" / "bin" / "python").unlink()
    assert "anew" in clone.make_env().stdout
    clone.folder = clone.folder.rename(clone.folder.with_name("moved"))
    assert "anew" in clone.make_env().stdout
    assert clone.make_env().stdout == ""
    pip = subprocess.run([clone.folder / ".venv/bin/pip", "--version"], capture_output=True, text=True)
    assert str(clone.folder) in pip.stdout
