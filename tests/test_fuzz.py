"""A few broken files for every reader, always the same ones; `make fuzz` tries as many as there is time for."""

import pytest

from tests.fuzz import READERS, create_folder, fuzz


@pytest.mark.parametrize("name", READERS)
def test_broken_files_are_taken_or_refused_by_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    fuzz(name, create_folder(tmp_path / "data", name), 15)
