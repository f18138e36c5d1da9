"""Packaging: the folder lib installs as the package `ssds`.  What is fixed stands in pyproject.toml, what is read from
the tree stands here, so that neither the requirements nor the packages are listed twice."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
DEVELOPMENT = "# Development tools"  # the line of requirements.txt where the runtime part ends
OPTIONAL = {"timm": ("timm",), "export": ("onnx", "onnxscript", "onnxruntime"), "prune": ("torch-pruning",)}
"""Extras of the package, each with the requirements that an installation can do without otherwise."""


def packages() -> list[str]:
    """`ssds` and `ssds.x.y` for every folder below lib that is a package."""
    library = ROOT / "lib"
    folders = sorted(init.parent.relative_to(library) for init in library.rglob("__init__.py"))
    return [".".join(("ssds", *folder.parts)) for folder in folders]


def requirements() -> tuple[list[str], list[str]]:
    """The requirements above the development tools and those from there on, without comments."""
    runtime, marker, development = (ROOT / "requirements.txt").read_text(encoding="utf-8").partition(DEVELOPMENT)
    if not marker:
        raise ValueError(f"requirements.txt: the line '{DEVELOPMENT}' that ends the runtime part is missing")
    return _without_comments(runtime), _without_comments(marker + development)


def extras(runtime: list[str], development: list[str]) -> dict[str, list[str]]:
    """What can be asked for in brackets: `dev` is everything, the others what some commands need."""
    by_name = {re.match(r"[\w-]+", line)[0]: line for line in development}
    return {"dev": runtime + development} | {extra: [by_name[name] for name in OPTIONAL[extra]] for extra in OPTIONAL}


def _without_comments(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


setup(
    packages=packages(),
    package_dir={"ssds": "lib"},
    package_data={"ssds": ["py.typed"]},
    install_requires=requirements()[0],
    extras_require=extras(*requirements()),
)
