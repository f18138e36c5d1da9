"""Packaging: the folder lib installs as the package `ssds`.  What is fixed stands in pyproject.toml, what is read from
the tree stands here, so that neither the requirements nor the packages are listed twice."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
DEVELOPMENT = "# Development tools"  # the line of requirements.txt where the runtime part ends


def packages() -> list[str]:
    """`ssds` and `ssds.x.y` for every folder below lib that is a package."""
    library = ROOT / "lib"
    folders = sorted(init.parent.relative_to(library) for init in library.rglob("__init__.py"))
    return [".".join(("ssds", *folder.parts)) for folder in folders]


def runtime_requirements() -> list[str]:
    """The requirements above the development tools, without comments."""
    runtime, marker, _ = (ROOT / "requirements.txt").read_text(encoding="utf-8").partition(DEVELOPMENT)
    if not marker:
        raise ValueError(f"requirements.txt: the line '{DEVELOPMENT}' that ends the runtime part is missing")
    lines = (line.partition("#")[0].strip() for line in runtime.splitlines())
    return [line for line in lines if line]


setup(packages=packages(), package_dir={"ssds": "lib"}, install_requires=runtime_requirements())
