"""Small detectors for tests of exported files: fresh weights, but with maps of usual size and scores all over."""

from pathlib import Path

import torch
from torch import nn

from lib.config import load_config
from lib.config.effective import config_from_dict
from lib.modeling.model_builder import create_model
from lib.solver.run import run_content
from lib.tools.export_source import Source, load_source
from lib.tools.onnx_metadata import load_model, require

NAMES = ("circle", "square")

LSTM = (
    "MODEL.SSDS=lstm_ssd", "MODEL.FEATURE_LAYER=[[11, S], [128, 64]]", "MODEL.RNN.CELL_CHANNELS=[16]",
    "MODEL.RNN.IN_USE=True", "DATASET.DATASET=coco_vid", "DATASET.TEST_SETS=test",
)  # fmt: skip


def write_run(folder: Path, *words: str) -> Path:
    """A checkpoint of a detector on mobilenet_v1_025 at 64 pixels with these keys; it holds its configuration."""
    torch.manual_seed(0)
    cfg = load_config(
        None,
        ["MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=64", "MODEL.NUM_CLASSES=3", "MODEL.COMPILE=none",
         "DATASET.DATASET=custom", f"DATASET.CLASSES={','.join(NAMES)}", "DATASET.NUM_WORKERS=0", "DEVICE=cpu",
         "DATASET.PIXEL_STDS=[50, 60, 70]", f"EXP_DIR={folder / 'run'}", *words],
    )  # fmt: skip
    model = create_model(cfg).eval()
    _give_usual_sizes(model)
    path = folder / "run" / "x_epoch_1.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(run_content(cfg, NAMES, model=model.state_dict(), position={"epoch": 1, "batch": 0, "step": 1}), path)
    return path


def load(folder: Path, *words: str) -> Source:
    """The source of write_run."""
    path = write_run(folder, *words)
    return load_source(config_from_dict(torch.load(path, weights_only=True)["config"]), path)


def _give_usual_sizes(model: nn.Module) -> None:
    """Give every convolution, one after the other as they run, outputs with a mean square of about 1, and then the
    offsets and the logits as a whole."""

    def rescale(layer: nn.Conv2d, inputs, output):
        factor = 1 / float(output.square().mean().sqrt().clamp(min=1e-20))
        layer.weight.mul_(factor)
        return output * factor if layer.bias is None else layer._conv_forward(inputs[0], layer.weight, layer.bias)

    hooks = [m.register_forward_hook(rescale) for m in model.modules() if isinstance(m, nn.Conv2d)]
    images = torch.randn(2, 3, *(3 * side for side in model.image_size))  # so that no map is of borders alone
    with torch.no_grad():
        model(images)
        for hook in hooks:
            hook.remove()
        outputs = model(images)
        for layers, value in (
            (model.head.loc_predictors(), outputs.loc),
            (model.head.conf_predictors(), outputs.conf),
        ):
            for layer in layers:
                layer.weight.div_(value.square().mean().sqrt())


def damage(path: Path, folder: Path, change) -> Path:
    """A copy of an ONNX file after change(model)."""
    model = load_model(path)
    change(model)
    require("onnx").save(model, str(folder / path.name))
    return folder / path.name
