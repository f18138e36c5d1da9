"""Names, shapes, colours and outputs of the detectors of other systems in our models."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.modeling.foreign import SYSTEMS, recognise, translate
from lib.modeling.model_builder import create_model

IMPORTED = Path(__file__).parents[2] / "experiments" / "cfgs" / "imported"
COLOR_KEYS = ("COLOR_ORDER", "PIXEL_MEANS", "PIXEL_STDS")

# A file's names, as far as they tell the system, and one of them with the name it has here.
NAMES = {
    "amdegroot/ssd.pytorch": (
        ["vgg.0.weight", "L2Norm.weight", "loc.0.weight", "conf.0.weight"],
        {"vgg.33.bias": "backbone.layers.33.bias", "extras.7.weight": "neck.extras.7.weight"},
    ),
    "lufficc/SSD": (
        ["backbone.vgg.0.weight", "box_head.predictor.cls_headers.0.weight"],
        {"box_head.predictor.reg_headers.5.bias": "head.loc.5.bias", "backbone.l2_norm.weight": "neck.norm.weight"},
    ),
    "torchvision ssd300_vgg16": (
        [
            "backbone.features.0.weight", "backbone.scale_weight", "head.classification_head.module_list.0.weight",
        ],
        {
            "backbone.extra.0.5.bias": "backbone.layers.28.bias",
            "backbone.extra.0.7.3.bias": "backbone.layers.33.bias",
            "backbone.extra.4.2.weight": "neck.extras.7.weight",
        },
    ),
    "ynrjh92/ssd-pytorch": (
        ["vgg.0.weight", "l2norm.weight", "loc_pred_convs.0.conv.weight", "cls_pred_convs.0.conv.weight"],
        {"extra1.conv.2.bias": "neck.extras.1.bias", "cls_pred_convs.3.conv.bias": "head.conf.3.bias"},
    ),
    "ruinmessi/RFBNet (VGG)": (
        ["base.0.weight", "Norm.branch0.0.conv.weight"],
        {
            "extras.0.shortcut.bn.bias": "neck.norm.1.shortcut.bn.bias",
            "extras.6.conv.weight": "neck.extras.5.conv.weight",
        },
    ),
    "ruinmessi/RFBNet (MobileNet)": (
        ["base.0.0.weight", "Norm.branch0.0.conv.weight"],
        {"base.13.4.bias": "backbone.layers.13.conv.4.bias", "extras.6.bn.bias": "neck.extras.6.bn.bias"},
    ),
    "qfgaohao/pytorch-ssd vgg16-ssd": (
        ["base_net.0.weight", "source_layer_add_ons.0.weight", "classification_headers.0.weight"],
        {"source_layer_add_ons.0.running_mean": "neck.norm.running_mean", "extras.3.2.bias": "neck.extras.7.bias"},
    ),
    "qfgaohao/pytorch-ssd mb1-ssd": (
        ["base_net.0.0.weight", "base_net.1.0.weight", "classification_headers.0.weight"],
        {"base_net.13.3.weight": "backbone.layers.13.conv.3.weight", "regression_headers.5.bias": "head.loc.5.bias"},
    ),
    "qfgaohao/pytorch-ssd mb2-ssd-lite": (
        ["base_net.0.0.weight", "base_net.1.conv.0.weight", "classification_headers.0.0.weight"],
        {
            "base_net.1.conv.3.weight": "backbone.layers.1.conv.6.weight",
            "base_net.18.0.weight": "backbone.layers.18.conv.0.weight",
            "extras.3.conv.7.bias": "neck.extras.3.7.bias",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("title", NAMES)
def test_a_system_is_known_by_its_names(title, prefix):
    marks, examples = NAMES[title]
    state = {prefix + name: torch.tensor([float(i)]) for i, name in enumerate([*marks, *examples])}
    assert recognise(state).title == title
    translated = translate(state)
    for name, ours in examples.items():
        assert torch.equal(translated[ours], state[prefix + name])


def test_every_system_has_an_example():
    assert [system.title for system in SYSTEMS] == list(NAMES)


def test_our_own_and_unknown_names_are_left_alone():
    for names in (["backbone.layers.0.weight", "neck.norm.weight", "head.loc.0.weight"], ["fc.weight"]):
        assert recognise(names) is None
        assert list(translate(dict.fromkeys(names, torch.zeros(1)))) == names
    assert recognise(["module.base.0.weight", "norm.weight"]).title == "the reference family"


def figures(folder):
    """(name, meta) of each stored checkpoint layout."""
    for path in sorted((folder / "parity" / "foreign").glob("*.npz")):
        yield path.stem, json.loads(str(np.load(path)["meta"]))


def test_the_configurations_take_every_tensor_of_their_files(shared):
    checked = set()
    for stem, meta in figures(shared):
        cfg = load_config(IMPORTED / f"{stem}.yml")
        coco_ids = stem.startswith("torchvision")  # the published file has 91 classes, this layout 21
        cfg.MODEL.NUM_CLASSES = meta["num_classes"]
        with torch.device("meta"):
            own = create_model(cfg).state_dict()
        state = {name: torch.empty(shape, device="cpu") for name, shape, _ in meta["keys"]}
        found, expected = translate(state), {name for name in own if not name.endswith("num_batches_tracked")}
        assert expected <= set(found) <= set(own) and len(found) >= len(state), stem
        assert all(found[name].shape == own[name].shape for name in expected), stem
        inputs, to_levels = meta["input"], 255 if meta["input"]["scale"] == "0-1" else 1
        dataset = cfg.DATASET
        assert inputs["channels"] == dataset.COLOR_ORDER, stem
        assert np.allclose(dataset.PIXEL_MEANS, np.multiply(inputs["mean"], to_levels), rtol=1e-6), stem
        assert np.allclose(dataset.PIXEL_STDS, np.multiply(inputs["std"], to_levels), rtol=1e-6), stem
        assert recognise(state).inputs == {f"DATASET.{key}": dataset[key] for key in COLOR_KEYS}, stem
        assert (81 if coco_ids else meta["num_classes"]) == load_config(IMPORTED / f"{stem}.yml").MODEL.NUM_CLASSES
        checked.add(stem)
    assert checked == {path.stem for path in IMPORTED.glob("*.yml")}


@pytest.mark.parametrize("name, passed", [("mb2", 1), pytest.param("", 10, marks=pytest.mark.slow, id="all")])
def test_outputs_of_the_original_networks(shared, name, passed):
    script = shared / "parity" / "check_foreign.py"
    result = subprocess.run([sys.executable, str(script), "-k", name], capture_output=True, text=True)
    assert result.stdout.strip().endswith(f"{passed} passed, 0 failed"), result.stdout + result.stderr
