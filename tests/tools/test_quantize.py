"""An int8 file finds nearly what the fp32 file finds, says all that it said, and is refused where it does not."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from lib.config import load_config  # noqa: E402
from lib.dataset.image_header import UnreadableImage  # noqa: E402
from lib.modeling.model_builder import create_model  # noqa: E402
from lib.tools import quantize as tool  # noqa: E402
from lib.tools import runner  # noqa: E402
from lib.tools.export import export_model  # noqa: E402
from lib.tools.export_source import load_source  # noqa: E402
from lib.tools.onnx_metadata import load_model, read_metadata  # noqa: E402
from lib.tools.onnx_session import OnnxDetector  # noqa: E402
from lib.tools.quantize import main  # noqa: E402
from lib.tools.quantize_calibration import frame_feeds, image_feeds  # noqa: E402
from lib.tools.quantize_graph import float_layers, num_int8_layers, quantize_graph  # noqa: E402
from lib.tools.quantize_report import measure_latency  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from tests.tools.small_run import train_small  # noqa: E402

NAME = "ssd_lite_mobilenet_v1_025_custom"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def exported(trained):
    """The fp32 files, made once."""
    cfg = load_config(trained)
    (checkpoint,) = (trained.parent / "run").glob("*.pth")
    return export_model(load_source(cfg, checkpoint), trained.parent / "fp32", None)


@pytest.fixture
def run(trained, exported, tmp_path, monkeypatch):
    """Function (arguments) -> exit status of the tool, whose files go to tmp_path/int8."""

    def copied(source, out, *_):
        shutil.copytree(exported.raw[0].parent, out)
        return exported._replace(raw=[out / exported.raw[0].name], detect=[out / exported.detect[0].name])

    monkeypatch.setattr(tool, "export_model", copied)
    monkeypatch.setattr(tool, "measure_latency", lambda runs: measure_latency(runs, rounds=1))
    return lambda *argv: main(["--cfg", str(trained), "--out", str(tmp_path / "int8"), "--images", "12", *argv])


@pytest.fixture(scope="module")
def quantized(trained, exported):
    """The folder of a run of the tool that passed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "export_model", lambda *_: exported)
        out = trained.parent / "int8"
        assert main(["--cfg", str(trained), "--out", str(out), "--limit", "10"]) == 0
    return out


def photographs(trained):
    return [cv2.imread(str(path)) for path in sorted((trained.parent / "shapes" / "JPEGImages").glob("train*"))]


def test_the_files_are_smaller_and_near_the_float_ones(trained, exported, quantized):
    names = sorted(path.name for path in quantized.iterdir())
    files = [f"{NAME}_int8{end}" for end in (".json", ".md", ".onnx", "_detect.onnx")]
    assert names == sorted([*files, "detect.py"])
    before, after = exported.raw[0], quantized / f"{NAME}_int8.onnx"
    assert after.stat().st_size < 0.6 * before.stat().st_size
    pixels = np.stack([cv2.resize(image, (64, 64)) for image in photographs(trained)])
    for expected, found in zip(OnnxDetector(before).raw(pixels), OnnxDetector(after).raw(pixels), strict=True):
        assert np.square(found - expected).mean() <= 0.05 * expected.var()
    in_int8, layers = num_int8_layers(load_model(after))
    assert 0 < layers - in_int8 < layers / 2


def test_what_the_float_file_says_of_itself_stays(exported, quantized):
    for before, after in (
        (exported.raw[0], quantized / f"{NAME}_int8.onnx"),
        (exported.detect[0], quantized / f"{NAME}_int8_detect.onnx"),
    ):
        facts = read_metadata(load_model(after))
        about = facts.pop("int8")
        assert facts == read_metadata(load_model(before))
        assert about["method"] == "minmax" and about["images"] == 12 and about["seed"] == 0


def test_the_delivered_runner_runs_it(trained, exported, quantized):
    images = photographs(trained)
    before, after = (
        runner.Detector(path).predict(images, 0.5)
        for path in (exported.detect[0], quantized / f"{NAME}_int8_detect.onnx")
    )
    assert sum(len(found.scores) for found in before) > 3
    assert {name for found in after for name in found.names} <= {"circle", "square"}
    both = sum(len(set(a.names) & set(b.names)) > 0 or not a.names for a, b in zip(before, after, strict=True))
    assert both >= 0.8 * len(images)
    assert (quantized / "detect.py").read_bytes() == Path(runner.__file__).read_bytes()


def test_the_report_has_the_figures_of_both(quantized):
    facts = json.loads((quantized / f"{NAME}_int8.json").read_text())
    assert facts["passed"] and facts["limit"] == 10 and facts["threads"] >= 1
    assert facts["points"] == pytest.approx(100 * (facts["int8"]["mAP"] - facts["fp32"]["mAP"]))
    for side in ("fp32", "int8"):
        assert facts[side]["latency_ms"].keys() == {"1", "8"} and facts[side]["AP"].keys() == {"circle", "square"}
    assert facts["int8"]["megabytes"] * 1e6 == (quantized / f"{NAME}_int8_detect.onnx").stat().st_size
    text = (quantized / f"{NAME}_int8.md").read_text()
    assert "passed" in text and "CPUExecutionProvider" in text and "IoU above 0.5" in text


def test_too_much_lost_is_refused_by_name(run, tmp_path, capsys):
    assert run("--limit", "-100") == 1
    names = sorted(path.name for path in (tmp_path / "int8").glob("*.onnx"))
    assert names == [f"{NAME}_int8.refused.onnx", f"{NAME}_int8_detect.refused.onnx"]
    assert "REFUSED" in capsys.readouterr().out
    assert not json.loads((tmp_path / "int8" / f"{NAME}_int8.json").read_text())["passed"]


def test_bad_calibration_is_refused(run, tmp_path, monkeypatch):
    def empty(records, image_size, count, seed):
        """An image that the network sees as zeros: the ranges become far too small."""
        return [{"images": np.tile(np.uint8([103, 116, 123]), (1, *image_size, 1))}]

    monkeypatch.setattr(tool, "image_feeds", empty)
    assert run() == 1
    facts = json.loads((tmp_path / "int8" / f"{NAME}_int8.json").read_text())
    assert facts["points"] < -5 and facts["limit"] == 1


def test_files_are_not_overwritten_unasked(run, tmp_path, capsys):
    out = tmp_path / "int8"
    out.mkdir()
    (out / f"{NAME}_int8.onnx").write_text("mine")
    assert run() == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / f"{NAME}_int8.onnx").read_text() == "mine"
    assert run("--overwrite", "--limit", "50") == 0
    assert read_metadata(load_model(out / f"{NAME}_int8.onnx"))["kind"] == "raw"


def test_without_a_training_set_there_is_nothing_to_calibrate_with(run, tmp_path, capsys):
    assert run("DATASET.TRAIN_SETS=missing") == 2
    error = capsys.readouterr().err
    assert "calibrating needs images of the training set" in error and error.count("\n") == 1
    assert not (tmp_path / "int8").exists()


def test_missing_packages_are_named(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run() == 2
    assert "pip install" in capsys.readouterr().err


def test_interleaved_detectors_are_refused_by_name(tmp_path, capsys):
    path = tmp_path / "x.yml"
    path.write_text(
        "MODEL: {SSDS: lstm_ssd_interleaved, NETS: mobilenet_v1_050, IMAGE_SIZE: 64, "
        "RNN: {SMALL_NETS: slim_mobilenet_v2_035_stride16}}\nDATASET: {DATASET: custom, CLASSES: [a, b]}\nDEVICE: cpu\n"
        f"EXP_DIR: {tmp_path / 'run'}\n"
    )
    torch.save(create_model(load_config(path, ["MODEL.NUM_CLASSES=3"])).state_dict(), tmp_path / "w.pth")
    assert main(["--cfg", str(path), "--checkpoint", str(tmp_path / "w.pth")]) == 2
    assert "lstm_ssd_interleaved is not quantised" in capsys.readouterr().err


def small_graph(nodes, inputs, outputs, sizes):
    weights = [onnx.numpy_helper.from_array(np.full(size, 0.1, np.float32), name) for name, size in sizes.items()]
    kinds = {"images": onnx.TensorProto.UINT8}
    values = [
        [
            onnx.helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), shape)
            for name, shape in part
        ]
        for part in (inputs, outputs)
    ]
    graph = onnx.helper.make_graph(nodes, "small", *values, weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def conv(name, source, target):
    return onnx.helper.make_node("Conv", [source, f"{name}.w"], [target], name=name)


@pytest.fixture
def branching():
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["images"], ["f"], to=1), node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2]),
        conv("stem", "x", "a"), node("Relu", ["a"], ["b"]), conv("middle", "b", "c"), node("Relu", ["c"], ["d"]),
        conv("boxes", "d", "loc"), conv("classes", "d", "e"), node("Softmax", ["e"], ["conf"], axis=1),
    ]  # fmt: skip
    sizes = {f"{name}.w": (3, 3, 1, 1) for name in ("stem", "middle", "boxes", "classes")}
    shape = [1, 3, "height", "width"]
    outputs = [("loc", shape), ("conf", shape)]
    return small_graph(nodes, [("images", [1, "height", "width", 3])], outputs, sizes)


def test_the_ends_of_the_network_stay_in_float(branching):
    assert float_layers(branching.graph) == ["boxes", "classes", "stem"]
    rng = np.random.default_rng(0)
    feeds = [{"images": rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)} for _ in range(3)]
    found = quantize_graph(branching, feeds, "minmax")
    assert num_int8_layers(found) == (1, 4)
    assert [entry.domain for entry in found.opset_import] == [""]


@pytest.mark.parametrize(("method", "share"), [("percentile", 0.8), ("entropy", 1.0)])
def test_other_methods_leave_out_outliers(branching, method, share):
    rng = np.random.default_rng(0)
    images = rng.normal(100, 10, (40, 1, 32, 32, 3)).astype(np.uint8)
    images[0, 0, 0, 0] = 255
    feeds = [{"images": image} for image in images]

    def largest_step(how):
        model = quantize_graph(branching, feeds, how)
        scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        values = [onnx.numpy_helper.to_array(value) for value in model.graph.initializer if value.name in scales]
        return max(map(float, values))

    assert largest_step(method) < share * largest_step("minmax") + 1e-6


class Videos:
    """Videos of so many frames, of which some cannot be read; the value of a frame's pixels is its index."""

    name, is_video = "videos", True

    def __init__(self, lengths, unreadable=()):
        self.video_offsets, self.unreadable = np.cumsum([0, *lengths]), unreadable

    def __len__(self):
        return int(self.video_offsets[-1])

    def video_of(self, indices):
        return np.searchsorted(self.video_offsets, indices, side="right") - 1

    def read(self, index):
        if index in self.unreadable:
            raise UnreadableImage(f"{index}: no image")
        return np.full((8, 8, 3), index, np.uint8)


def test_images_are_drawn_once_and_by_the_seed():
    records = Videos([30], unreadable=(3, 4))
    drawn = [int(feed["images"].flat[0]) for feed in image_feeds(records, (4, 6), 10, seed=1)]
    assert len(set(drawn)) == 10 and not {3, 4} & set(drawn)
    assert drawn == [int(feed["images"].flat[0]) for feed in image_feeds(records, (4, 6), 10, seed=1)]
    assert drawn != [int(feed["images"].flat[0]) for feed in image_feeds(records, (4, 6), 10, seed=2)]
    assert len(image_feeds(records, (4, 6), 100, seed=1)) == 28
    assert image_feeds(records, (4, 6), 1, seed=1)[0]["images"].shape == (1, 4, 6, 3)
    with pytest.raises(UserError, match="none of its images"):
        image_feeds(Videos([2], unreadable=(0, 1)), (4, 6), 10, seed=1)


def test_frames_come_with_the_states_after_those_before():
    node = onnx.helper.make_node
    nodes = [
        node("Add", ["state_h0", "one"], ["next_h0"]), node("Sub", ["state_c0", "one"], ["next_c0"]),
        node("Identity", ["images"], ["loc"]),
    ]  # fmt: skip
    states = [("state_h0", ["batch", 1, 1, 1]), ("state_c0", ["batch", 1, 1, 1])]
    outputs = [("next_h0", ["batch", 1, 1, 1]), ("next_c0", ["batch", 1, 1, 1])]
    model = small_graph(nodes, [("images", ["batch", 4, 4, 3]), *states], outputs, {"one": (1, 1, 1, 1)})
    feeds = frame_feeds(model, Videos([15, 2, 40]), (4, 4), 60, seed=0)
    assert len(feeds) == 60
    before = None
    for feed in feeds:
        index, h, c = (float(feed[name].flat[0]) for name in ("images", "state_h0", "state_c0"))
        assert c == pytest.approx(-h)
        if h:
            assert index == before[0] + 1 and h == pytest.approx(before[1] + 0.1)
        before = index, h
    assert max(float(feed["state_h0"].flat[0]) for feed in feeds) == pytest.approx(0.9)
