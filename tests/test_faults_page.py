"""docs/faults.md names tests that there are."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "faults.md"
MACHINE, HOSTILE = PAGE.read_text(encoding="utf-8").split("## Hostile input")


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of its table, without the two of the heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("row", rows(MACHINE), ids=lambda row: row[0][:60])
def test_every_fault_has_tests_that_exist(row):
    fault, happens, seen, tests = row
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    assert fault and happens and seen and named
    for file, name in named:
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize("row", rows(HOSTILE), ids=lambda row: row[0][:60])
def test_every_hostile_input_has_tests_that_exist(row):
    kind, happens, seen, tests = row
    assert kind and happens and seen and tests
    for name in tests.split(", "):
        if name.endswith(".py"):
            assert (TESTS / name).exists(), name
        else:
            assert f"class {name}" in (TESTS / "test_hostile_input.py").read_text(encoding="utf-8"), name
