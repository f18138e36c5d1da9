"""Weights of other systems in runs and in the detector: colours come along."""

import logging

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.modeling.foreign import FAMILY, FAMILY_PREFIXES, SYSTEMS
from lib.modeling.model_builder import create_model
from lib.predictor import ObjectDetector
from lib.solver import checkpoint as ckpt
from lib.solver.base_weights import load_base_weights
from lib.solver.solver import Solver
from lib.utils.errors import UserError

MB1 = next(system for system in SYSTEMS if system.title.endswith("mb1-ssd"))
WORDS = [
    "MODEL.SSDS=ssd", "MODEL.NETS=mobilenet_v1_025", "MODEL.SOURCE_NORM=none", "MODEL.HEAD=conv3",
    "MODEL.FEATURE_LAYER=[[11, 13, 'S'], [128, 256, 64]]", "TRAIN.TRACK_MAP=False", "TRAIN.MAX_EPOCHS=1",
]  # fmt: skip


def renamed(state, system):
    """A state dict of our model in the names of another system."""
    ours = {here: word for word, here in FAMILY_PREFIXES.items()}
    theirs = {word: name for name, word in system.names.items()} or {word: word for word in FAMILY_PREFIXES}
    result = {}
    for name, tensor in state.items():
        for table in (ours, theirs):
            head = max((h for h in table if name.startswith(h + ".")), key=len)
            name = table[head] + name.removeprefix(head)
        result[name] = tensor
    return result


@pytest.fixture
def weights(tiny, tmp_path):
    """A file of another system for the tiny detector, and the detector that it comes from."""
    torch.manual_seed(5)
    model = create_model(tiny(*WORDS, "MODEL.NUM_CLASSES=7")).eval()
    for predictor in model.head.conf_predictors():  # so that scores depend on the image
        predictor.weight.data *= 3000
    path = tmp_path / "mb1.pth"
    torch.save(renamed(model.state_dict(), MB1), path)
    return path, model


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Function (overrides) -> the solver of a run that has passed over its training."""

    def pass_over(self, task, state, *_):
        state.epoch, state.batch = state.epoch + 1, 0

    def run(*overrides):
        monkeypatch.setattr(Solver, "_train_epoch", pass_over)
        solver = Solver(tiny(*WORDS, *overrides))
        solver.run()
        return solver

    return run


def colors(cfg):
    return cfg.DATASET.COLOR_ORDER, list(cfg.DATASET.PIXEL_MEANS), list(cfg.DATASET.PIXEL_STDS)


EXPECTED = ("RGB", [127] * 3, [128] * 3)


def test_a_run_sees_what_its_first_weights_expect_and_keeps_to_it(run, weights, tmp_path, capsys):
    path, model = weights
    solver = run(f"RESUME_CHECKPOINT={path}")
    assert colors(solver.cfg) == EXPECTED and solver.normalize.stds.flatten().tolist() == [128] * 3
    assert "(qfgaohao/pytorch-ssd mb1-ssd)" in capsys.readouterr().out
    assert torch.equal(solver.model.head.conf[0].weight, model.head.conf[0].weight)
    stored = ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / "run"))
    assert stored["config"]["DATASET"]["COLOR_ORDER"] == "RGB"
    path.unlink()
    assert colors(run(f"RESUME_CHECKPOINT={path}", "TRAIN.MAX_EPOCHS=2").cfg) == EXPECTED
    assert colors(run("PHASE=test").cfg) == EXPECTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("where", ["TEST.CHECKPOINT", "RESUME_CHECKPOINT"])
def test_a_test_sees_what_the_weights_expect(run, weights, where):
    assert colors(run("PHASE=test", f"{where}={weights[0]}").cfg) == EXPECTED


def test_other_weights_than_those_of_the_base_say_nothing_about_images(run, weights):
    assert run(f"RESUME_CHECKPOINT={weights[0]}", "TRAIN.RESUME_SCOPE=loc,conf").cfg.DATASET.COLOR_ORDER == "BGR"


def test_values_of_the_user_are_kept_with_one_warning(run, weights, capsys):
    solver = run(f"RESUME_CHECKPOINT={weights[0]}", "DATASET.PIXEL_MEANS=[1, 2, 3]")
    assert colors(solver.cfg) == ("BGR", [1, 2, 3], [1, 1, 1])
    shown = capsys.readouterr().err
    assert shown.count("DATASET.PIXEL_MEANS [1.0, 2.0, 3.0]") == 1
    assert "(qfgaohao/pytorch-ssd mb1-ssd) expect DATASET.COLOR_ORDER RGB, DATASET.PIXEL_MEANS [127.0, " in shown


def test_colors_that_only_follow_an_imagenet_base_give_way(run, weights, tmp_path):
    """The base of the file replaces that of MODEL.PRETRAINED, and its colours those that went with it."""
    state = {n.removeprefix("backbone."): t for n, t in weights[1].state_dict().items() if n.startswith("backbone.")}
    torch.save(state, tmp_path / "base.pth")
    solver = run(f"MODEL.PRETRAINED={tmp_path / 'base.pth'}", f"RESUME_CHECKPOINT={weights[0]}")
    assert colors(solver.cfg) == EXPECTED


def test_files_of_the_family_replace_the_colors_of_an_imagenet_base(weights, tmp_path):
    torch.save(renamed(weights[1].state_dict(), FAMILY), tmp_path / "family.pth")
    content, defaults = ckpt.read_checkpoint(tmp_path / "family.pth"), load_config(None, [])
    for words, expected in (
        (["MODEL.PRETRAINED=imagenet"], colors(defaults)),
        (["MODEL.PRETRAINED=imagenet", "DATASET.PIXEL_MEANS=[1, 2, 3]"], ("RGB", [1, 2, 3], [58.395, 57.12, 57.375])),
        (["DATASET.COLOR_ORDER=RGB"], ("RGB", *colors(defaults)[1:])),
    ):
        cfg = load_config(None, words)
        ckpt.adopt_inputs(cfg, content, "family.pth")
        assert colors(cfg) == expected


def test_the_detector_sees_what_each_of_its_files_expects(tiny, weights, tmp_path, caplog):
    path, model = weights
    torch.save({"state_dict": renamed(model.state_dict(), FAMILY)}, tmp_path / "family.pth")
    cfg = tiny(*WORDS, "MODEL.NUM_CLASSES=7", "POST_PROCESS.SCORE_THRESHOLD=0")
    with caplog.at_level(logging.WARNING):
        theirs, family = ObjectDetector(cfg, path), ObjectDetector(cfg, tmp_path / "family.pth")
    assert not caplog.records and colors(cfg)[0] == "BGR"
    assert family.normalize.means.flatten().tolist() == pytest.approx([103.94, 116.78, 123.68])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        expected = theirs.postprocess(model((rgb - 127) / 128), torch.tensor([[64, 64]]))[0]
    assert torch.allclose(theirs.predict(image)[0].scores, expected.scores, atol=1e-6)


def test_only_the_base_of_a_foreign_file(weights, tmp_path, caplog):
    path, model = weights
    cfg = load_config(None, [*WORDS[:2], "MODEL.NUM_CLASSES=3", f"MODEL.PRETRAINED={path}", "MODEL.IMAGE_SIZE=64"])
    own = create_model(cfg)
    with caplog.at_level(logging.INFO):
        load_base_weights(own, cfg)
    assert torch.equal(own.backbone.layers[3].conv[0].weight, model.backbone.layers[3].conv[0].weight)
    assert "the names of qfgaohao/pytorch-ssd mb1-ssd" in caplog.text
    assert f"the weights of {path} expect [127.0, 127.0, 127.0]" in caplog.text


def test_the_report_names_the_system_and_its_images(weights, tiny):
    path, _ = weights
    report = ckpt.load_weights(create_model(tiny(*WORDS, "MODEL.NUM_CLASSES=7")), path)
    assert report.complete and report.system == "qfgaohao/pytorch-ssd mb1-ssd" and report.inputs == MB1.inputs


@pytest.mark.parametrize("wiring", ["MODEL.NORM_IN_TRUNK=true", "CRITERION.CONF_LOSS=sigmoid_focal"])
def test_a_network_wired_otherwise_is_refused(weights, tiny, wiring):
    """Every tensor fits, and the results would be wrong without a word."""
    path, _ = weights
    cfg = tiny(*WORDS, "MODEL.NUM_CLASSES=7", wiring)
    key, _, value = wiring.partition("=")
    with pytest.raises(UserError, match=rf"mb1-ssd has {key} \w+, here it is (True|{value}); give {key}"):
        ObjectDetector(cfg, path)
    ObjectDetector(tiny(*WORDS, "MODEL.NUM_CLASSES=7", "CRITERION.CONF_LOSS=focal"), path)


def test_training_from_a_network_wired_otherwise_is_told(run, weights, capsys):
    path, _ = weights
    run(f"RESUME_CHECKPOINT={path}", "PHASE=train", "CRITERION.CONF_LOSS=sigmoid_focal")
    assert "was trained with CRITERION.CONF_LOSS multibox, here it is sigmoid_focal" in capsys.readouterr().err
