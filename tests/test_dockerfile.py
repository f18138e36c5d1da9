"""The Dockerfile, as far as it can be tried without Docker: what it copies, installs and runs."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest of its line) in order; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def of(instructions, name: str) -> list[str]:
    return [rest for instruction, rest in instructions if instruction == name]


def test_what_it_copies_is_there_and_not_ignored(instructions):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for rest in of(instructions, "COPY") for source in rest.split()[:-1]]
    assert set(copied) == allowed and all((ROOT / source).exists() for source in copied)


def test_it_installs_what_an_installation_requires(instructions, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=given.update))
    runpy.run_path(str(ROOT / "setup.py"))
    (script,) = (rest for rest in of(instructions, "RUN") if "requirements.txt" in rest)
    (tmp_path / "requirements.txt").write_text((ROOT / "requirements.txt").read_text())
    subprocess.run(["sh", "-euc", f"pip() {{ echo \"$@\" >> calls; }}\n{script}"], cwd=tmp_path, check=True,
                   env={"TORCH": "cu1", "PATH": "/usr/bin:/bin"})  # fmt: skip

    def lines(name):
        return [line for line in (tmp_path / name).read_text().splitlines() if line and not line.startswith("#")]

    assert lines("runtime.txt") == given["install_requires"]
    assert [line for line in lines("runtime.txt") if line.startswith("torch")] == lines("torch.txt")
    first, second = lines("calls")
    assert first.endswith("-r torch.txt --index-url https://download.pytorch.org/whl/cu1")
    assert second.endswith("-r runtime.txt")


def test_it_has_the_libraries_that_make_env_looks_for(instructions):
    packages = set(re.findall(r'"lib[^"]*\.so[^"]*": "([^"]+)"', (ROOT / ".ci/environment.sh").read_text()))
    (script,) = (rest for rest in of(instructions, "RUN") if "apt-get install" in rest)
    assert packages and packages <= set(script.split())


def test_it_runs_train_as_a_user_of_its_own(instructions):
    names = [name for name, _ in instructions]
    assert instructions[-1] == ("ENTRYPOINT", '["python", "train.py"]')
    assert of(instructions, "USER") == ["ssds"] and "RUN" not in names[names.index("USER") :]
    for script in of(instructions, "RUN"):
        subprocess.run(["sh", "-n", "-c", script], check=True)
