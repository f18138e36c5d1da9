"""Accuracy that is really lost is told and fails; accuracy that is not lost passes."""

import json
import shutil

import pytest
from torch import nn

from lib.config import load_config
from lib.modeling.inference import InferenceNetwork
from lib.solver.run import checkpoints_to_test
from lib.solver.solver import Solver
from lib.tools import precision
from lib.tools.precision import main
from tests.tools.small_run import train_small


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(trained, tmp_path):
    """(configuration file, overrides) of a run whose folder belongs to the test."""
    shutil.copytree(trained.parent / "run", tmp_path / "run")
    return trained, f"EXP_DIR={tmp_path / 'run'}"


class Coarse(InferenceNetwork):
    """In half precision with weights of two bits: what a broken kernel or a wrong cast could do."""

    def __init__(self, model, normalize, device, dtype=None, compile_mode="none"):
        super().__init__(model, normalize, device, dtype, compile_mode)
        for layer in self.model.modules():
            if dtype is not None and isinstance(layer, nn.Conv2d):
                step = layer.weight.abs().amax().clamp(min=1e-6)
                layer.weight.copy_((layer.weight / step).round() * step)


def run(*argv):
    return main(["--cfg", *map(str, argv)])


def report(tmp_path):
    return json.loads((tmp_path / "run" / "precision.json").read_text())


def test_half_precision_that_keeps_the_accuracy_passes(small, tmp_path, capsys):
    assert run(*small, "MODEL.PRECISION=bf16", "--limit", "5") == 0
    facts = report(tmp_path)
    plain, half = facts["runs"]
    assert (plain["precision"], half["precision"], half["chosen"]) == ("fp32", "bf16", True)
    assert plain["mAP"] > 0.15 and plain["points"] == 0
    assert half["points"] == pytest.approx(100 * (half["mAP"] - plain["mAP"]))
    assert half["AP"].keys() == {"circle", "square"} and half["images_per_second_network"] > 0
    assert facts["passed"] and facts["limit"] == 5
    printed = capsys.readouterr().out
    assert "passed: bf16" in printed and "IoU above 0.5" in printed and "square" in printed


def test_the_first_row_is_what_the_test_phase_finds(small, tmp_path):
    assert run(*small) == 0
    (plain,) = report(tmp_path)["runs"]  # fp32 without compilation is what is configured: nothing to compare it with
    assert plain["chosen"]
    cfg = load_config(small[0], [small[1], "PHASE=test"])
    solver = Solver(cfg)
    solver.load_for_test(checkpoints_to_test(cfg)[0][1])
    assert plain["mAP"] == pytest.approx(solver.scorer.score(solver.model, "test", 0)["mAP"], abs=1e-9)


def test_lost_accuracy_fails(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precision, "InferenceNetwork", Coarse)
    assert run(*small, "MODEL.PRECISION=bf16") == 1
    facts = report(tmp_path)
    assert not facts["passed"] and facts["runs"][1]["points"] < -5
    assert "FAILED: bf16" in capsys.readouterr().out


def test_only_the_chosen_precision_decides(small, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "InferenceNetwork", Coarse)
    assert run(*small, "--all") == 0
    runs = report(tmp_path)["runs"]
    assert [entry["precision"] for entry in runs] == ["fp32", "bf16", "fp16"]
    assert [entry["chosen"] for entry in runs] == [True, False, False] and runs[1]["points"] < -5


def test_a_limit_below_zero_asks_for_a_gain(small):
    assert run(*small, "MODEL.PRECISION=bf16", "--limit", "-100") == 1


def test_mistakes_are_one_line(small, tmp_path, capsys):
    assert run(small[0], f"EXP_DIR={tmp_path / 'nothing'}") == 2
    assert "nothing to test" in capsys.readouterr().err
    (tmp_path / "run" / "precision.json").write_text("[1, 2]")
    assert run(*small) == 2
    assert "no report of this tool" in capsys.readouterr().err
    assert (tmp_path / "run" / "precision.json").read_text() == "[1, 2]"


def test_a_set_without_objects_has_no_accuracy_to_lose(small, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(small[0].parent / "shapes", data)
    for path in (data / "Annotations").glob("*.xml"):
        text = path.read_text()
        path.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>"))
    assert run(*small, f"DATASET.DATASET_DIR={data}", "MODEL.PRECISION=bf16") == 2
    assert "no object that counts" in capsys.readouterr().err
