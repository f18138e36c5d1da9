"""Every variant, and every loss, learns eight images by heart: what it computes can be trained, decoded and scored."""

import pytest
import torch

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.shapes import Parameters, write_dataset
from lib.evaluation import VOCMeanAP
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_criterion, create_model, create_postprocess
from lib.modeling.ssds import SSDS
from lib.solver.task import DetectionTask

NETS = {
    "ssd": "resnet_18",
    "rfb": "resnet_18",
    "fssd": "resnet_18",
    "dssd": "resnet_18",
    "tdm": "resnet_18",
    "yolo_v2": "mobilenet_v1_050",
    "ssd_dual": "mobilenet_v1_S1L4",
    "ssd_lite_dual": "mobilenet_v1_S1L6",
}
"""The base each variant is tried on; mobilenet_v2_050 where nothing is said."""

LOSSES = {
    "focal": ["CRITERION.CONF_LOSS=focal"],
    "sigmoid_focal": ["CRITERION.CONF_LOSS=sigmoid_focal"],
    "giou": ["CRITERION.BOX_LOSS=giou", "CRITERION.BOX_WEIGHT=2"],
    "diou": ["CRITERION.BOX_LOSS=diou", "CRITERION.BOX_WEIGHT=2"],
    "ciou": ["CRITERION.BOX_LOSS=ciou", "CRITERION.BOX_WEIGHT=2"],
    "ohem": ["MATCHER.NEGPOS_RATIO=10", "CRITERION.NEGATIVE_WEIGHT=0.3"],
    "tower": ["MODEL.HEAD=tower", "CRITERION.CONF_LOSS=sigmoid_focal"],
}
MAX_STEPS, CHECK_EVERY = 600, 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("overfit") / "shapes"
    write_dataset(out, Parameters(num_train=8, num_val=1, num_test=1, size=160, seed=5), num_workers=0)
    return out


def learn_by_heart(folder, overrides) -> tuple[float, int]:
    """(mAP on the images it was trained on, steps it took), from the same weights in every run."""
    cfg = load_config(
        None,
        [
            "MODEL.IMAGE_SIZE=160", "MODEL.SIZES=[0.12,0.9]", "DATASET.DATASET=custom", f"DATASET.DATASET_DIR={folder}",
            "DATASET.TRAIN_SETS=train", "DATASET.TEST_SETS=train", "DATASET.EVAL_SETS=train", "DATASET.NUM_WORKERS=0",
            "TEST.BATCH_SIZE=8", f"EXP_DIR={folder.parent / 'run'}", "POST_PROCESS.IOU_THRESHOLD=0.5", *overrides,
        ],
    )  # fmt: skip
    records = create_records(cfg, "eval")
    cfg.MODEL.NUM_CLASSES = len(records.class_names) + 1
    torch.manual_seed(0)
    model, criterion, postprocess = create_model(cfg), create_criterion(cfg), create_postprocess(cfg)
    normalize = Normalize(cfg.DATASET.PIXEL_MEANS, [58.0] * 3)
    task = DetectionTask(model, criterion, normalize)
    (clip,) = create_loader(cfg, "eval", records)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(1, MAX_STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, step / 20)
        model.train()
        losses, _ = task(clip)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if step % CHECK_EVERY == 0:
            score = score_by_heart(model.eval(), normalize, postprocess, clip[0], records.class_names)
            if score > 0.95:
                break
    return score, step


@torch.no_grad()
def score_by_heart(model, normalize, postprocess, batch, class_names) -> float:
    metric = VOCMeanAP(class_names)
    sizes = torch.tensor([target.size for target in batch.targets])
    metric.update(postprocess(model(normalize(batch.images)), sizes), batch.targets)
    return metric.compute()["voc_area"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in SSDS.names() if name != "ssd_lite_RNN"])
def test_variant(folder, variant):
    overrides = [f"MODEL.SSDS={variant}", f"MODEL.NETS={NETS.get(variant, 'mobilenet_v2_050')}"]
    score, step = learn_by_heart(folder, overrides)
    print(f"{variant}: {score:.3f} after {step} steps")
    assert score > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_loss(folder, loss):
    overrides = ["MODEL.SSDS=fpn", "MODEL.NETS=mobilenet_v2_050", "MODEL.NECK_WIDTH=64", *LOSSES[loss]]
    score, step = learn_by_heart(folder, overrides)
    print(f"{loss}: {score:.3f} after {step} steps")
    assert score > 0.95
