"""What MODEL.PRETRAINED decides about other keys, and how older files and checkpoints are read."""

import logging

import pytest

from lib.config import config_to_dict, diff_configs, load_config, save_config
from lib.config.schema import IMAGENET_COLORS
from lib.modeling.pretrained import IMAGENET_WEIGHTS


def colors(cfg):
    return cfg.DATASET.COLOR_ORDER, cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS


def test_the_colors_are_those_of_torchvision():
    for weights in IMAGENET_WEIGHTS.values():
        transform = weights.transforms()
        assert IMAGENET_COLORS["DATASET.PIXEL_MEANS"] == pytest.approx([255 * mean for mean in transform.mean])
        assert IMAGENET_COLORS["DATASET.PIXEL_STDS"] == pytest.approx([255 * std for std in transform.std])


@pytest.mark.parametrize("source", ["imagenet", "weights/base.pth", "https://x.org/base.pth"])
def test_colors_follow_the_weights(source):
    cfg = load_config(None, [f"MODEL.PRETRAINED={source}"])
    assert colors(cfg) == tuple(IMAGENET_COLORS.values())
    assert colors(load_config(None)) == ("BGR", [103.94, 116.78, 123.68], [1.0, 1.0, 1.0])


def test_given_colors_stay(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("MODEL:\n  PRETRAINED: imagenet\nDATASET:\n  PIXEL_MEANS: [1, 2, 3]\n")
    assert colors(load_config(path, ["DATASET.COLOR_ORDER=BGR"])) == ("BGR", [1, 2, 3], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    "net, pretrained, given, expected",
    [
        ("mobilenet_v2", "imagenet", "auto", "relu6"),
        ("mobilenet_v2", "weights/base.pth", "auto", "relu6"),
        ("mobilenet_v2", "imagenet", "relu", "relu"),
        ("mobilenet_v2", "", "auto", "relu"),
        ("mobilenet_v2", "", "relu6", "relu6"),
        ("vgg16", "imagenet", "auto", "relu"),
    ],
)
def test_stem_activation(net, pretrained, given, expected):
    words = [f"MODEL.NETS={net}", f"MODEL.PRETRAINED={pretrained}", f"MODEL.STEM_ACTIVATION={given}"]
    stem = load_config(None, words).MODEL.STEM_ACTIVATION
    assert stem == expected


def test_a_saved_configuration_keeps_what_was_decided(tmp_path, caplog):
    cfg = load_config(None, ["MODEL.NETS=mobilenet_v2", "MODEL.PRETRAINED=imagenet"])
    save_config(cfg, tmp_path / "config.yml")
    assert load_config(tmp_path / "config.yml") == cfg
    again = load_config(tmp_path / "config.yml", ["MODEL.PRETRAINED="])
    assert colors(again) == colors(cfg) and again.MODEL.STEM_ACTIVATION == "relu6"
    assert not caplog.records


def test_a_checkpoint_older_than_the_stem_key_has_relu():
    old = config_to_dict(load_config(None, ["MODEL.NETS=mobilenet_v2"]))
    del old["MODEL"]["STEM_ACTIVATION"]
    assert diff_configs(old, load_config(None, ["MODEL.NETS=mobilenet_v2"])) == []
    changed = load_config(None, ["MODEL.NETS=mobilenet_v2", "MODEL.STEM_ACTIVATION=relu6"])
    assert diff_configs(old, changed) == [("MODEL.STEM_ACTIVATION", "relu", "relu6")]


def test_the_key_of_other_forks_points_here(tmp_path, caplog):
    path = tmp_path / "x.yml"
    path.write_text("PRETRAINED: weights/base.pth\n")
    with caplog.at_level(logging.WARNING):
        assert load_config(path).MODEL.PRETRAINED == ""
    assert "PRETRAINED (see MODEL.PRETRAINED)" in caplog.text
