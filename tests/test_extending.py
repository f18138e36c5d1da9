"""The page on extending the package is followed word by word: its blocks are run and trained with."""

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.detection import DATASETS
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_criterion, create_model
from lib.modeling.nets import NETS
from lib.modeling.ssds import SSDS
from lib.solver.task import DetectionTask
from lib.tools.plan import make_plan
from lib.tools.plan_text import format_plan
from lib.utils.errors import UserError

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(lib/\S+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
CONFIGS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture(autouse=True)
def pages_modules(monkeypatch):
    """The modules of the page as if they were files of the package, gone again after the test."""
    for registry in (DATASETS, NETS, SSDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    for path, text in FILES.items():
        name = path.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        module.__package__ = name.rpartition(".")[0]
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, path, "exec"), module.__dict__)


def test_the_page_has_what_it_promises():
    assert list(FILES) == ["lib/dataset/csv_boxes.py", "lib/modeling/nets/tiny.py", "lib/modeling/ssds/top_down.py"]
    assert not any((ROOT / path).exists() for path in FILES)
    assert all(re.search(rf"`{Path(path).parent}/(__init__|dataset_factory)\.py`", PAGE) for path in FILES)


@pytest.fixture
def csv_folder(tmp_path):
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    for name in "abcd":
        cv2.imwrite(str(tmp_path / f"{name}.png"), generator.integers(0, 255, (60, 90, 3), dtype=np.uint8))
    rows = ["a.png,10,10,40,50,cat", "a.png,50,5,80,30,dog", "b.png,0,0,30,30,dog", "c.png,20,20,20,40,cat"]
    (tmp_path / "train.csv").write_text("\n".join(rows + ["d.png,5,5,60,50,cat"]))
    (tmp_path / "test.csv").write_text("b.png,0,0,30,30,dog\n")
    return tmp_path


def build(tmp_path, *sections, overrides=()):
    path = tmp_path / "x.yml"
    merged = {}
    for section in sections:
        for name, values in section.items():
            merged.setdefault(name, {}).update(values)
    path.write_text(yaml.safe_dump(merged))
    return load_config(
        path, [f"DATASET.DATASET_DIR={tmp_path}", "DATASET.NUM_WORKERS=0", f"EXP_DIR={tmp_path / 'run'}", *overrides]
    )


def test_the_data_set_is_read_and_checked(csv_folder, caplog):
    caplog.set_level("WARNING")
    records = create_records(build(csv_folder, CONFIGS[0]), "train")
    assert records.class_names == ("cat", "dog") and len(records) == 4
    assert records.num_objects_per_class().tolist() == [2, 2]
    assert records.target(0).labels.tolist() == [1, 2] and records.target(2).labels.tolist() == []
    assert "1 box empty" in caplog.text
    for line in ("a.png,10,10,cat", "a.png,10,ten,40,50,cat", "a.png"):
        (csv_folder / "odd.csv").write_text(f"a.png,10,10,40,50,cat\n{line}\n")
        with pytest.raises(UserError, match=r"odd\.csv:2: expected image,x1,y1,x2,y2,class, got "):
            create_records(build(csv_folder, CONFIGS[0], overrides=["DATASET.TRAIN_SETS=odd"]), "train")
    with pytest.raises(UserError, match=r"TRAIN_SETS: .*none\.csv: no such file"):
        create_records(build(csv_folder, CONFIGS[0], overrides=["DATASET.TRAIN_SETS=none"]), "train")


@pytest.mark.parametrize("model", CONFIGS[1:], ids=["base", "variant"])
def test_base_and_variant_train_on_it(csv_folder, model):
    cfg = build(
        csv_folder,
        CONFIGS[0],
        model,
        overrides=["MODEL.IMAGE_SIZE=[96,128]", "TRAIN.BATCH_SIZE=4", "MODEL.NUM_CLASSES=3"],
    )
    torch.manual_seed(0)
    detector = create_model(cfg)
    task = DetectionTask(detector, create_criterion(cfg), Normalize(cfg.DATASET.PIXEL_MEANS, [58.0] * 3))
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3)
    totals = []
    (clip,) = create_loader(cfg, "train")
    for _ in range(8):
        losses, _ = task(clip)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert totals[-1] < 0.8 * totals[0]


def test_the_base_emits_what_it_says():
    with torch.device("meta"):
        net = NETS.get("tiny")()
        net.emit(range(len(net.layers)))
        outputs, _ = net(torch.empty(1, 3, 64, 128))
    for output, info in zip(outputs[:-1], net.feature_info, strict=True):
        assert list(output.shape[1:]) == [info.channels, 64 // info.stride, 128 // info.stride]


def test_the_plan_says_nothing_untrue_of_the_variant(tmp_path):
    """NECK_WIDTH is read by it, and how it reads FEATURE_LAYER is its own affair."""

    @SSDS.register("nested")
    def build_nested(backbone, spec):
        return SSDS.get("top_down")(backbone, replace(spec, feature_layer=spec.feature_layer[0][0]))

    overrides = ["MODEL.IMAGE_SIZE=128", "MODEL.NUM_CLASSES=3"]
    layers = "MODEL.FEATURE_LAYER=[[[[2,3,4,S],[64,128,128,64]]],[]]"
    for words in ([], ["MODEL.SSDS=nested", layers]):
        plan, model, _ = make_plan(build(tmp_path, CONFIGS[2], overrides=[*overrides, *words]))
        assert not any("NECK_WIDTH" in finding for finding in plan.findings)
        assert f"LEVELS  {len(model.neck.channels)}, " in format_plan(plan, model.backbone)
