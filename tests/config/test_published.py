"""Files in the style of the reference family and of its forks load as they are.

The texts are put together here from the values that those files hold: groups of geometry, one block of training keys.
"""

import ast
import logging

import pytest

from lib.config import load_config

FINE = """\
  STEPS: [[8, 8], [16, 16], [32, 32], [64, 64], [100, 100], [300, 300]]
  SIZES: [[30, 30], [60, 60], [111, 111], [162, 162], [213, 213], [264, 264], [315, 315]]
  ASPECT_RATIOS: [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
"""
COARSE = """\
  STEPS: [[16, 16], [32, 32], [64, 64], [100, 100], [150, 150], [300, 300]]
  SIZES: [[45, 45], [90, 90], [135, 135], [180, 180], [225, 225], [270, 270], [315, 315]]
  ASPECT_RATIOS: [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
"""
YOLO = """\
  SIZES: [[416, 416], [416, 416], [416, 416]]
  ASPECT_RATIOS: [[[0.278,0.216], [0.375,0.475], [0.896,0.783]],
                  [[0.072,0.146], [0.146,0.108], [0.141,0.286]],
                  [[0.024,0.031], [0.038,0.072], [0.079,0.055]], ]
"""
REST = """
TRAIN:
  MAX_EPOCHS: 100
  CHECKPOINTS_EPOCHS: 1
  BATCH_SIZE: 32
  TRAINABLE_SCOPE: 'base,norm,extras,loc,conf'
  RESUME_SCOPE: 'base,norm,extras,loc,conf'
  OPTIMIZER:
    OPTIMIZER: sgd
    LEARNING_RATE: 0.001
    MOMENTUM: 0.9
    WEIGHT_DECAY: 0.0001
  LR_SCHEDULER:
    SCHEDULER: SGDR
    WARM_UP_EPOCHS: 60

TEST:
  BATCH_SIZE: 64
  TEST_SCOPE: [90, 100]

MATCHER:
  MATCHED_THRESHOLD: 0.5
  UNMATCHED_THRESHOLD: 0.5
  NEGPOS_RATIO: 3

POST_PROCESS:
  SCORE_THRESHOLD: 0.01
  IOU_THRESHOLD: 0.6
  MAX_DETECTIONS: 100

DATASET:
  DATASET: 'voc'
  DATASET_DIR: './data/VOCdevkit'
  TRAIN_SETS: [['2007', 'trainval'], ['2012', 'trainval']]
  TEST_SETS:  [['2007', 'test']]
  PROB: 0.6

EXP_DIR: './experiments/models/ssd_voc'
LOG_DIR: './experiments/models/ssd_voc'
RESUME_CHECKPOINT: './weights/ssd/ssd_voc.pth'
PHASE: ['test']
"""
RNN = """\
  RNN:
    IN_USE: True
    USE_LSTM_AFTER_EPOCH: 0
    BACKPROP_STEPS: 5
    FRAMES_IN_VIDEO: 50
    BATCH_SIZE: 8
"""

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


def text_of(ssds, nets, size, layers, geometry, rest=REST):
    head = f"MODEL:\n  SSDS: {ssds}\n  NETS: {nets}\n  IMAGE_SIZE: [{size}, {size}]\n  NUM_CLASSES: 21\n"
    return f"{head}  FEATURE_LAYER: {layers}\n{geometry}{rest}"


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
        assert cfg.MODEL.RNN == {
            "IN_USE": True, "USE_LSTM_AFTER_EPOCH": 0, "BACKPROP_STEPS": 5, "FRAMES_IN_VIDEO": 50, "BATCH_SIZE": 8
        }  # fmt: skip


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
