"""A small detector that has learnt a few images by heart, for tests of what accuracy is lost by."""

from pathlib import Path

from lib.config import load_config
from lib.dataset.shapes import Parameters, write_dataset
from lib.solver.solver import Solver


def train_small(folder: Path) -> Path:
    """Draw a dozen images and train on them until mAP is well above 0; the configuration file, by which they are the
    test set too."""
    data, cfg_path = folder / "shapes", folder / "small.yml"
    write_dataset(data, Parameters(num_train=12, num_val=1, num_test=1, size=96, seed=3, classes=2), num_workers=0)
    cfg_path.write_text(
        "MODEL: {SSDS: ssd_lite, NETS: mobilenet_v1_025, IMAGE_SIZE: 64, PRECISION: fp32, COMPILE: none}\n"
        f"DATASET: {{DATASET: custom, DATASET_DIR: {data}, NUM_WORKERS: 0, TRAIN_SETS: train, TEST_SETS: train, "
        "PROB: 0.0, CROP_PROB: 0.0}\n"
        "TRAIN: {TRACK_MAP: false, BATCH_SIZE: 6, MAX_EPOCHS: 40, CHECKPOINTS_EPOCHS: 100, AMP: none, "
        "OPTIMIZER: {OPTIMIZER: adamw, LEARNING_RATE: 0.01}}\n"
        f"TEST: {{BATCH_SIZE: 4}}\nDEVICE: cpu\nPHASE: [train]\nEXP_DIR: {folder / 'run'}\n"
    )
    Solver(load_config(cfg_path)).run()
    return cfg_path
