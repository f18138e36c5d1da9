"""A tiny generated data set and a tiny detector for it."""

import pytest

from lib.config import load_config
from lib.dataset.shapes import Parameters, write_dataset


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(out, Parameters(num_train=20, num_val=6, num_test=8, size=96, seed=3), num_workers=0)
    return out


@pytest.fixture
def tiny(shapes_dir, tmp_path):
    """Function (overrides) -> configuration of a run in tmp_path/run that takes seconds."""
    return lambda *overrides: tiny_config(shapes_dir, tmp_path, *overrides)


def tiny_config(shapes_dir, folder, *overrides):
    """The configuration of a run in folder/run that takes seconds."""
    return load_config(
        None,
        [
            "MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=64", "MODEL.PRECISION=fp32",
            "DATASET.DATASET=custom", f"DATASET.DATASET_DIR={shapes_dir}", "DATASET.NUM_WORKERS=0",
            "DATASET.TRAIN_SETS=train", "DATASET.TEST_SETS=test", "DATASET.EVAL_SETS=val",
            "TRAIN.BATCH_SIZE=4", "TRAIN.MAX_EPOCHS=3", "TRAIN.CHECKPOINTS_EPOCHS=1", "TRAIN.AMP=none",
            "TRAIN.LOG_EVERY=2", "TRAIN.OPTIMIZER.LEARNING_RATE=0.01", "TEST.BATCH_SIZE=4", "TEST.NUM_PICTURES=2",
            f"EXP_DIR={folder / 'run'}", "DEVICE=cpu", "PHASE=train", *overrides,
        ],
    )  # fmt: skip
