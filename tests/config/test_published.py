"""Files in the style of the reference family and of its forks load as they are, and mean what ours of that name do."""

import ast
import logging
from pathlib import Path

import pytest
import torch

from lib.config import diff_configs, load_config
from lib.modeling.model_builder import create_model
from lib.utils.errors import UserError

from .figures import FIGURES, LSTM_STEM, measure
from .published_texts import (
    COARSE,
    FINE,
    LSTM,
    PUBLISHED,
    REST,
    RNN,
    SMALL_OBJECTS,
    YOLO,
    lstm_text,
    published_text,
    replaced,
    scope_of,
    small_objects_text,
    text_of,
)

FOLDER = Path(__file__).parents[2] / "experiments" / "cfgs"

MODELS = [
    ("ssd", "vgg16", 300, "[[22, 34, 'S', 'S', '', ''], [512, 1024, 512, 256, 256, 256]]", FINE),
    ("ssd_lite", "mobilenet_v2", 300, "[[13, 17, 'S', 'S', 'S', 'S'], [96, 320, 512, 256, 256, 128]]", COARSE),
    ("rfb", "resnet_50", 300, "[[10, 16, 'RBF', 'RBF', '', ''], [512, 1024, 512, 256, 256, 256]]", FINE),
    ("fssd_lite", "mobilenet_v1", 300, "[[[5, 11, 13], [256, 512, 1024]],\n"
     "                  [['', 'S', 'S', 'S', '', ''], [256, 256, 256, 256, 128, 128]]]", FINE),
    ("yolo_v2", "darknet_19", 416, "[[['', '',12, '']], [[1024, 1024, 64, 1024]]]",
     "  SIZES: [[416, 416]]\n  ASPECT_RATIOS: [[[0.1,0.1], [0.2,0.2], [0.3,0.3], [0.5,0.5], [0.9,0.9]]]\n"),
    ("yolo_v3", "darknet_53", 416, "[[['B','B','B'], [23,'B','B','B'], [14,'B','B','B']],\n"
     "                  [[1024,1024,1024], [256, 512, 512, 512], [128, 256, 256, 256]]]", YOLO),
    ("ssd_lite_dual", "mobilenet_v1_S1L0", 300, "[[11, 13, 'E', 'S', 'S', 'P'], [512, 1536, 512, 256, 256, 128]]",
     COARSE),
    ("ssd_lite_RNN", "mobilenet_v2", 300, "[[13, 17, 'L', 'L', 'L', 'L'], [96, 320, 512, 256, 256, 128]]",
     COARSE + RNN),
    ("ssd_lite_RNN", "mobilenet_v2_cut", 300, "[[13, 15, 'S'], [96, 320, 512]]",
     COARSE + RNN + "  BASE_STRUCTURE: [1,2,3,4,3,1,1]\n  DEPTH_MULTIPLIER: 1\n"),
]  # fmt: skip


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "x.yml"
        path.write_text(text)
        return load_config(path)

    return load


@pytest.mark.parametrize(
    ("ssds", "nets", "size", "layers", "geometry"), MODELS, ids=[f"{model[0]}-{model[1]}" for model in MODELS]
)
def test_files_of_the_reference_family(load, caplog, ssds, nets, size, layers, geometry):
    cfg = load(text_of(ssds, nets, size, layers, geometry))
    assert not caplog.records
    model = cfg.MODEL
    given = {"SSDS": ssds, "NETS": nets, "IMAGE_SIZE": [size, size], "FEATURE_LAYER": ast.literal_eval(layers)}
    assert {name: model[name] for name in given} == given
    assert all(type(number) is int for number in model.SIZES[0])
    assert cfg.TRAIN.OPTIMIZER.LEARNING_RATE == 0.001
    assert cfg.TRAIN.LR_SCHEDULER.MAX_EPOCHS == 40
    assert cfg.DATASET.TRAIN_SETS == [["2007", "trainval"], ["2012", "trainval"]]
    assert cfg.TEST.TEST_SCOPE == [90, 100]
    assert cfg.PHASE == ["test"]
    if ssds == "ssd_lite_RNN":
        given = {
            "IN_USE": True, "USE_LSTM_AFTER_EPOCH": 0, "BACKPROP_STEPS": 5, "FRAMES_IN_VIDEO": 50, "BATCH_SIZE": 8
        }  # fmt: skip
        assert {name: cfg.MODEL.RNN[name] for name in given} == given


# What else occurs in files of the family and of its forks: old piece of REST, new piece, key, what it means.
VARIATIONS = [
    ("TEST_SCOPE: [90, 100]", "VIDEO_BREAK: ['from_dataset']", "TEST.VIDEO_BREAK", ["from_dataset"]),
    ("TEST_SCOPE: [90, 100]", "VIDEO_BREAK: [51, 94]\n  PRINT_IMAGES: True", "TEST.VIDEO_BREAK", ["51", "94"]),
    ("CHECKPOINTS_EPOCHS: 1", "TRACK_MAP: False\n  TRACK_MAP_EVERY: 100", "TRAIN.TRACK_MAP", False),
    ("SCHEDULER: SGDR", "# SCHEDULER: SGDR\n    SCHEDULER: multi_step\n    GAMMA: 0.1\n    STEPS: [155,195]",
     "TRAIN.LR_SCHEDULER.STEPS", [155, 195]),
    ("WARM_UP_EPOCHS: 60", "WARM_UP_EPOCHS: 100", "TRAIN.LR_SCHEDULER.MAX_EPOCHS", 0),  # warm-up to the end
    ("LEARNING_RATE: 0.001", "LEARNING_RATE: 1e-10", "TRAIN.OPTIMIZER.LEARNING_RATE", 1e-10),
    ("OPTIMIZER: sgd", "OPTIMIZER: adam", "TRAIN.OPTIMIZER.OPTIMIZER", "adam"),
    ("TRAIN_SETS: [['2007', 'trainval'], ['2012', 'trainval']]", "TRAIN_SETS: [10]", "DATASET.TRAIN_SETS", ["10"]),
    ("TEST_SETS:  [['2007', 'test']]", "TEST_SETS:  [['train']]", "DATASET.TEST_SETS", ["train"]),
    ("TRAIN_SETS: [['2007', 'trainval'], ['2012', 'trainval']]", "TRAIN_SETS: [['custom','train']]",
     "DATASET.TRAIN_SETS", [["custom", "train"]]),
    ("TRAIN_SETS: [['2007', 'trainval'], ['2012', 'trainval']]", "TRAIN_SETS: ['head_train' , 'office_train']",
     "DATASET.TRAIN_SETS", ["head_train", "office_train"]),
    ("  PROB: 0.6", "  PROB: 0.5\n  NUM_WORKERS: 16\n  SHUFFLE: True", "DATASET.NUM_WORKERS", 16),
    ("  PROB: 0.6", "  PIXEL_MEANS: (103.94, 116.78, 123.68)", "DATASET.PIXEL_MEANS", [103.94, 116.78, 123.68]),
    ("  DATASET: 'voc'", "  DATASET: 'customRNN' # MODIFY", "DATASET.DATASET", "customRNN"),
    ("PHASE: ['test']", "PHASE: ['train','test']", "PHASE", ["train", "test"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "dotted", "expected"), VARIATIONS)
def test_variations_of_forks(load, caplog, old, new, dotted, expected):
    assert REST.count(old) == 1
    cfg = load(text_of(*MODELS[0], rest=REST.replace(old, new)))
    for name in dotted.split("."):
        cfg = cfg[name]
    assert cfg == expected
    assert not caplog.records


def test_keys_of_other_forks_are_dropped_with_one_warning(load, caplog):
    caplog.set_level(logging.WARNING)
    rest = REST.replace("  PROB: 0.6", "  DATACLASSES: ('__background__','nemo','gill') # lower case")
    rest = rest.replace("  CHECKPOINTS_EPOCHS: 1", "  EVAL_EPOCHS: 10\n  CRITERION: 'focal_loss'")
    rest += """
LOSS:
  CONF_DISTR:  softmax
  ALPHA: 0.3
TEACHER_MODEL:
  SSDS: yolo_v3
  FEATURE_LAYER: [[['B','B','B']], [[1024,1024,1024]]]
WEIGHT_CONVERT:
  COMPS_TO_CONVERT: 'loc,conf'
PRETRAINED: './weights/mobilenet_v2.pth'
TRAIN_MODE: ['mixup']
"""
    cfg = load(text_of(*MODELS[1], rest=rest))
    assert "LOSS" not in cfg and "DATACLASSES" not in cfg.DATASET and "EVAL_EPOCHS" not in cfg.TRAIN
    assert cfg.MODEL.SSDS == "ssd_lite"  # the teacher's does not leak
    (record,) = caplog.records
    message = record.getMessage()
    for name in ("LOSS", "TEACHER_MODEL", "WEIGHT_CONVERT", "PRETRAINED", "TRAIN_MODE", "DATASET.DATACLASSES"):
        assert name in message
    assert "TRAIN.EVAL_EPOCHS (see TRAIN.TRACK_MAP_EVERY)" in message


# Where files of ours may differ: the words that mean all parts may be left out; weights, folders and phases are ours.
OURS = {"TRAIN.TRAINABLE_SCOPE", "TRAIN.RESUME_SCOPE", "RESUME_CHECKPOINT", "EXP_DIR", "LOG_DIR", "PHASE"}


def words_of(scope, ssds):
    return set((scope or scope_of(ssds)).split(","))


@pytest.mark.parametrize("name", PUBLISHED)
def test_ours_is_the_published_file(load, caplog, name):
    published, ours = load(published_text(name)), load_config(FOLDER / f"{name}.yml")
    assert {key for key, *_ in diff_configs(published, ours)} <= OURS
    ssds = ours.MODEL.SSDS
    assert words_of(ours.TRAIN.TRAINABLE_SCOPE, ssds) == words_of(published.TRAIN.TRAINABLE_SCOPE, ssds)
    assert measure(published) == FIGURES[name]
    assert not caplog.records


@pytest.mark.parametrize("name", SMALL_OBJECTS)
def test_ours_is_the_small_object_forks_file(load, caplog, name):
    published, ours = load(small_objects_text(SMALL_OBJECTS[name])), load_config(FOLDER / f"small_objects/{name}.yml")
    assert {key for key, *_ in diff_configs(published, ours)} <= OURS
    ssds = ours.MODEL.SSDS
    assert words_of(ours.TRAIN.RESUME_SCOPE, ssds) == words_of(published.TRAIN.RESUME_SCOPE, ssds)
    assert measure(published) == FIGURES[name]
    assert not caplog.records


def test_the_small_object_forks_file_that_cannot_run_is_told_why(load):
    row = ["ssd_lite_dual", "mobilenet_v1_S1L0", "300", "11,13,E,S,S,P", "512,1536,512,256,256,128",
           "8,16,32,64,100,300", "10,45,90,135,180,225,270", "5+1", "24", ".001", "100/0", "base"]  # fmt: skip
    cfg = load(small_objects_text(row))
    with torch.device("meta"), pytest.raises(UserError, match=r"entry 1 \(13\): 1536 channels .* give 1024"):
        create_model(cfg)


def test_the_small_object_forks_phases_are_read_as_visualize(load, caplog):
    for word in ("visualize_results", "custom_visualize"):
        text = replaced(published_text("ssd_lite_mobilenetv1_coco"), ("PHASE: ['test']", f"PHASE: ['{word}']"))
        assert load(text).PHASE == ["visualize"]
    assert [record.getMessage().partition("PHASE: ")[2] for record in caplog.records] == [
        "'visualize_results' is read as 'visualize'",
        "'custom_visualize' is read as 'visualize'",
    ]


@pytest.mark.parametrize("suffix", LSTM)
def test_ours_is_the_lstm_forks_file(load, caplog, suffix):
    """Levels that were never built, for want of a list of ratios or of a token, are left out of ours."""
    name = LSTM_STEM + suffix
    published, ours = load(lstm_text(*LSTM[suffix])), load_config(FOLDER / f"lstm/{name}.yml")
    assert not caplog.records
    cut = {"MODEL.ASPECT_RATIOS"} if "prune" in suffix else {"MODEL.FEATURE_LAYER"} if suffix == "expand" else set()
    assert {key for key, *_ in diff_configs(published, ours)} <= OURS | cut
    assert measure(published) == FIGURES[name]
    assert [record.getMessage() for record in caplog.records if "of unequal length" not in record.getMessage()] == []
