"""A detector for tests of what is done with one."""

from pathlib import Path

import torch

from lib.config import load_config
from lib.modeling.model_builder import create_model


def write_detector(folder: Path) -> tuple[Path, Path]:
    """(configuration file, checkpoint) of a detector with random weights that finds something everywhere."""
    cfg_path = folder / "x.yml"
    cfg_path.write_text(
        "MODEL: {SSDS: ssd_lite, NETS: mobilenet_v1_025, IMAGE_SIZE: [64, 96], PRECISION: fp32}\n"
        "DATASET: {DATASET: custom, CLASSES: [disc, 'no', off]}\n"
        f"EXP_DIR: {folder / 'run'}\nDEVICE: cpu\n"
    )
    cfg = load_config(cfg_path, ["MODEL.NUM_CLASSES=4"])
    torch.manual_seed(0)
    state = {n.replace("backbone.layers", "base", 1): t for n, t in create_model(cfg).state_dict().items()}
    torch.save(state, folder / "w.pth")
    return cfg_path, folder / "w.pth"
