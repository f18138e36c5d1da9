"""A pruned checkpoint goes where any other does, under the configuration of the whole network."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from lib.commands import train
from lib.config import save_config
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_model
from lib.predictor import ObjectDetector
from lib.solver import checkpoint as ckpt
from lib.solver.solver import Solver
from lib.tools import prune, prune_report
from lib.utils.errors import UserError

from .conftest import tiny_config
from .test_replay import HOT, fail, replayed
from .test_solver import equal

pytest.importorskip("torch_pruning")

NAME = "ssd_lite_mobilenet_v1_025_custom_epoch_{}.pth"
EMA = "TRAIN.EMA_DECAY=0.5"


@pytest.fixture(scope="module", autouse=True)
def _short_rounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune_report, "ROUNDS", 1)
        patch.setattr(prune_report, "SECONDS", 0)
        patch.setattr(prune_report, "LEAST", 1)
        yield


@pytest.fixture(scope="module")
def trained(shapes_dir, tmp_path_factory, _short_rounds):
    """(configuration file, pruned checkpoint) of a run of one epoch, in out beside the folder run of that."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = tiny_config(shapes_dir, folder, "TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False", EMA)
    Solver(cfg).run()
    save_config(cfg, folder / "x.yml")
    before = digests(folder / "run")
    assert prune.main(["--cfg", str(folder / "x.yml"), "--macs", "0.6", "--out", str(folder / "out")]) == 0
    assert digests(folder / "run") == before
    return folder / "x.yml", folder / "out" / "pruned.pth"


def digests(folder: Path) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.pth")}


def fresh(cfg, path):
    model = create_model(cfg).eval()
    content = ckpt.read_checkpoint(path)
    ckpt.match_shapes(model, content, path, cfg)
    ckpt.copy_weights(model, content, path).require_complete()
    return model


def test_the_folder_holds_the_tables_and_the_averaged_weights(trained, capsys):
    cfg_file, pruned = trained
    report = json.loads((pruned.parent / "pruned.json").read_text())
    original, left = report["networks"]
    assert 0.58 <= left["macs"] / original["macs"] <= 0.6 and left["parameters"] < original["parameters"]
    assert (pruned.parent / "pruned.md").read_text().startswith("| ")
    lines = (pruned.parent / "layers.csv").read_text().splitlines()
    assert lines[0].startswith("layer,filters before") and len(lines) > 30
    content, source = ckpt.read_checkpoint(pruned), ckpt.read_checkpoint(original["checkpoint"])
    name = "backbone.layers.7.conv.0.weight"  # depthwise, so that what stays of it stays as it was
    rows = {tuple(row.tolist()) for row in source["ema"][name].flatten(1)}
    kept = content["model"][name].flatten(1)
    assert len(kept) < len(rows) and all(tuple(row.tolist()) in rows for row in kept)
    words = ["--cfg", str(cfg_file), "--out", str(cfg_file.parent / "run")]
    assert prune.main(words) == 2 and "holds other files" in capsys.readouterr().err


def test_fine_tuning_that_was_interrupted_ends_bit_by_bit_the_same(trained, tmp_path, tiny):
    words = [f"RESUME_CHECKPOINT={trained[1]}", EMA, "TRAIN.MAX_EPOCHS=2", "TRAIN.TRACK_MAP=False"]
    before = digests(trained[1].parent)
    Solver(tiny(*words, f"EXP_DIR={tmp_path / 'whole'}")).run()
    (tmp_path / "halves").mkdir()
    shutil.copy(tmp_path / "whole" / NAME.format(1), tmp_path / "halves")
    halves = tiny(*words, f"EXP_DIR={tmp_path / 'halves'}", "PHASE=train,test")
    Solver(halves).run()
    whole, again = (ckpt.read_checkpoint(tmp_path / run / NAME.format(2)) for run in ("whole", "halves"))
    for key in ("model", "ema", "optimizer", "rng", "position", "pruned"):
        assert equal(whole[key], again[key]), key
    assert not torch.equal(whole["ema"]["head.loc.0.weight"], whole["model"]["head.loc.0.weight"])
    results = json.loads((tmp_path / "halves" / "results.json").read_text())
    assert results["parameters"] == sum(p.numel() for p in fresh(halves, trained[1]).parameters())
    assert digests(trained[1].parent) == before


def test_the_api_and_the_test_phase_compute_with_the_pruned_weights(trained, tmp_path, tiny):
    cfg = tiny("PHASE=test", f"TEST.CHECKPOINT={trained[1]}", f"EXP_DIR={tmp_path / 'test'}")
    solver = Solver(cfg)
    solver.run()
    model = fresh(cfg, trained[1])
    assert equal(dict(solver.model.state_dict()), dict(model.state_dict()))
    detector = ObjectDetector(cfg, trained[1])
    assert equal(dict(detector.model.state_dict()), dict(model.state_dict()))
    path = solver.records["test"].image_path(0)
    assert len(detector.predict(path)) == 1
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    images = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS)(pixels)
    with torch.no_grad():
        torch.testing.assert_close(detector.network_for(1)(pixels).conf, model(images).conf, rtol=1e-3, atol=1e-4)


def test_base_weights_of_the_recipe_are_not_asked_for(trained, tmp_path, tiny):
    words = [f"RESUME_CHECKPOINT={trained[1]}", "MODEL.PRETRAINED=missing.pth", f"EXP_DIR={tmp_path / 'new'}"]
    Solver(tiny(*words, "TRAIN.MAX_EPOCHS=1")).run()
    assert ckpt.read_checkpoint(tmp_path / "new" / NAME.format(1))["pruned"]["scope"] == "layer"


@pytest.mark.slow
def test_a_step_of_a_pruned_run_can_be_replayed(trained, tmp_path, tiny, capsys):
    words = [f"RESUME_CHECKPOINT={trained[1]}", f"EXP_DIR={tmp_path / 'hot'}", "TRAIN.TRACK_MAP=False"]
    lines = replayed(fail(tiny(*HOT, *words)), capsys)
    assert "what the run computed comes out the same, bit by bit" in lines


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("MODEL.NETS=mobilenet_v1_050", "is pruned from a network with MODEL.NETS mobilenet_v1_025, now it is "),
        ("MODEL.SSDS=fpn", "is pruned from a network with MODEL.SSDS ssd_lite, now it is fpn; give MODEL.SSDS its old"),
        ("MODEL.FEATURE_LAYER=[[11,13,'S'],[128,256,64]]", "is pruned, but not from this network: "),
    ],
)
def test_another_network_is_refused_in_one_line(trained, tmp_path, tiny, word, message):
    for words in (["PHASE=train", f"RESUME_CHECKPOINT={trained[1]}"], ["PHASE=test", f"TEST.CHECKPOINT={trained[1]}"]):
        with pytest.raises(UserError, match=message) as error:
            Solver(tiny(*words, word, f"EXP_DIR={tmp_path / 'other'}")).run()
        assert "\n" not in str(error.value) and str(error.value).startswith(str(trained[1]))


@pytest.mark.slow
def test_weights_of_the_whole_network_do_not_go_into_a_pruned_run(trained, tmp_path, tiny):
    words = [f"RESUME_CHECKPOINT={trained[1]}", f"EXP_DIR={tmp_path / 'new'}", "TRAIN.MAX_EPOCHS=1", "PHASE=train,test"]
    cfg = tiny(*words, f"TEST.CHECKPOINT={trained[0].parent / 'run' / NAME.format(1)}")
    with pytest.raises(UserError, match="the checkpoint does not fit the model"):
        Solver(cfg).run()


@pytest.mark.slow
def test_fine_tuning_by_the_tool_goes_on_where_it_was_stopped_and_is_told_of(trained, tmp_path, capsys):
    words = ["--cfg", str(trained[0]), "--ratio", "0.3", "--out", str(tmp_path / "tuned"), "--finetune"]
    assert prune.main([*words, "1"]) == 0
    first = digests(tmp_path / "tuned")
    capsys.readouterr()
    assert prune.main([*words, "2"]) == 0
    assert digests(tmp_path / "tuned") == first
    names = [row["name"] for row in json.loads((tmp_path / "tuned" / "pruned.json").read_text())["networks"]]
    assert names == ["original", "pruned", "fine-tuned"] and "| fine-tuned |" in capsys.readouterr().out
    assert ckpt.read_checkpoint(tmp_path / "tuned" / "finetuned" / NAME.format(2))["config"]["TRAIN"]["OPTIMIZER"][
        "LEARNING_RATE"
    ] == pytest.approx(0.0025)
    words[3] = "0.4"
    assert prune.main([*words, "2"]) == 2 and "holds the training of an earlier pruning" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_by_hand_is_added_to_the_table(trained, tmp_path, capsys):
    run = tmp_path / "hand"
    words = ["--cfg", str(trained[0]), f"RESUME_CHECKPOINT={trained[1]}", f"EXP_DIR={run}", "TRAIN.MAX_EPOCHS=1"]
    assert train(words) == 0
    words = ["--cfg", str(trained[0]), "--out", str(trained[1].parent), "--compare"]
    capsys.readouterr()
    assert prune.main([*words, str(run)]) == 0
    assert "| fine-tuned |" in capsys.readouterr().out
    assert prune.main([*words, str(tmp_path)]) == 2 and "holds no checkpoint" in capsys.readouterr().err
    whole = str(trained[0].parent / "run")
    assert prune.main([*words, whole]) == 2 and "is not of a run that began with" in capsys.readouterr().err
    assert prune.main([*words, str(run), "--ratio", "0.2"]) == 2 and "leave --ratio out" in capsys.readouterr().err
    words[3] = str(run)
    assert prune.main([*words, str(run)]) == 2 and "holds no pruned.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ratio", "1.2"], "1.2 is out of range; allowed: above 0 and below 1"),
        (["--ratio", "0.2", "--macs", "0.5"], "not allowed with argument"),
        (["--checkpoint", "missing.pth"], "missing.pth: no such checkpoint"),
        (["DATASET.DATASET_DIR=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_no_file(trained, tmp_path, capsys, words, message):
    assert prune.main(["--cfg", str(trained[0]), "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
