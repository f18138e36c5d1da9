"""Exported ONNX files find what torch finds; damaged ones are refused."""

import shutil
import sys

import cv2
import numpy as np
import pytest
import torch

from lib.dataset.shapes import Parameters, write_dataset
from lib.dataset.shapes_folder import VideoParameters
from lib.dataset.shapes_video import write_videos
from lib.layers.box import xyxy_to_cxcywh
from lib.layers.postprocess import PostProcess
from lib.structures import Detections, Predictions
from lib.tools import export as export_tool
from lib.tools.export import export_model, main
from lib.tools.export_gate import Refused, gate, open_records
from lib.tools.export_tail import append_postprocess
from lib.tools.onnx_metadata import load_model, read_metadata, write_metadata
from lib.tools.onnx_session import OnnxDetector, score_onnx
from lib.tools.same_detections import Limits, SameDetections
from lib.utils.errors import UserError

from .exporting import LSTM, damage, load

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

STILL = ("MODEL.SSDS=ssd_lite", "DATASET.COLOR_ORDER=RGB", "POST_PROCESS.MAX_DETECTIONS=20", "DATASET.TEST_SETS=test")
LITE = (*LSTM, "MODEL.SSDS=lstm_ssd_lite", "MODEL.FEATURE_LAYER=[[11, 13, L], [128, 256, 32]]")
INTERLEAVED = (
    *LSTM, "MODEL.SSDS=lstm_ssd_interleaved", "MODEL.FEATURE_LAYER=[[13, S], [256, 32]]", "MODEL.RNN.INTERVAL=2",
    "MODEL.RNN.SMALL_NETS=mobilenet_v1_025_stride16",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set of images without plain areas, where all priors would score the same."""
    out, rng = tmp_path_factory.mktemp("pictures") / "data", np.random.default_rng(0)
    write_dataset(out, Parameters(num_train=1, num_val=1, num_test=9, size=96, classes=2), num_workers=0)
    for path in (out / "JPEGImages").iterdir():
        image = cv2.imread(str(path))
        cv2.imwrite(str(path), cv2.add(image, rng.integers(0, 99, image.shape, dtype=np.uint8)))
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos") / "data"
    write_videos(out, VideoParameters(num_train=1, num_val=1, num_test=2, size=64, frames=7, classes=2), 1)
    return out


@pytest.fixture(scope="module")
def still(tmp_path_factory, pictures):
    """(source, records, what was exported) of a detector of stills."""
    folder = tmp_path_factory.mktemp("still")
    source = load(folder, *STILL, f"DATASET.DATASET_DIR={pictures}")
    records = open_records(source)
    return source, records, export_model(source, folder / "out", records)


def initializer(model, name: str = "", kind: str = ""):
    """(tensor, its values) of a name, or of the first weight that a node of a kind reads."""
    if kind:
        name = next(node.input[1] for node in model.graph.node if node.op_type == kind)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return tensor, onnx.numpy_helper.to_array(tensor).copy()


def replace(model, name: str = "", kind: str = "", change=None) -> None:
    tensor, values = initializer(model, name, kind)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))


def test_detections_are_those_of_torch(still):
    figures = still[2].figures
    assert figures["images"] == 9 and figures["detections"] > 50
    assert figures["borderline"] <= 1 and figures["mAP"] == pytest.approx(figures["mAP_torch"], abs=1e-6)


def test_the_network_takes_bgr_pixels_in_batches_of_any_number(still):
    source, records, done = still
    session = ort.InferenceSession(str(done.raw[0]))
    assert [(value.name, value.type) for value in session.get_inputs()] == [("images", "tensor(uint8)")]
    for count in (1, 5):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        loc, conf, priors = session.run(None, {"images": pixels})
        expected = source.model(
            source.detector.normalize(torch.from_numpy(pixels[..., ::-1].copy()).permute(0, 3, 1, 2))
        )
        for found, value in zip((loc, conf, priors), expected[:3], strict=True):
            np.testing.assert_allclose(found, value.detach().numpy(), atol=1e-4)


def test_the_file_says_what_it_is(still):
    source, _, done = still
    facts = read_metadata(load_model(done.detect[0]))
    assert facts["class_names"] == ["circle", "square"] and facts["kind"] == "detect"
    assert facts["input"]["size"] == [64, 64] and facts["inside"]["color_order"] == "RGB"
    assert facts["post_process"]["max_detections"] == 20 and facts["checkpoint"] == "x_epoch_1.pth"
    assert facts["measured"]["images"] == 9 and facts["versions"]["torch"] == torch.__version__
    assert "SSDS: ssd_lite" in facts["config"]


def test_score_of_the_file_is_that_of_the_gate(still):
    source, records, done = still
    for path in (done.raw[0], done.detect[0]):
        figures = score_onnx(path, source.cfg, records)
        assert figures["mAP"] == pytest.approx(done.figures["mAP_torch"], abs=1e-6) and figures["images"] == 9


@pytest.mark.parametrize("kind", ["raw", "detect"])
@pytest.mark.parametrize("what", ["weight", "priors", "classes", "names", "rules"])
def test_damaged_files_are_refused(still, tmp_path, what, kind):
    source, records, done = still

    def change(model):
        if what == "weight":
            replace(model, kind="Conv", change=lambda w: w + 0.05 * (np.arange(w.size).reshape(w.shape) == 3))
        elif what == "priors":
            replace(model, "priors", change=lambda p: p + np.float32([0.004, 0, 0, 0]))
        elif what == "classes":
            last = [node for node in model.graph.node if "conf" in node.output][0]
            swapped = onnx.helper.make_node("Gather", ["conf_before", "order"], ["conf"], axis=2)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, 2, 1]), "order"))
            last.output[list(last.output).index("conf")] = "conf_before"
            model.graph.node.insert(list(model.graph.node).index(last) + 1, swapped)
        elif what == "names":
            write_metadata(model, {"class_names": ["square", "circle"]})
        else:
            write_metadata(model, {"post_process": read_metadata(model)["post_process"] | {"score_threshold": 0.02}})

    damaged = damage((done.raw if kind == "raw" else done.detect)[0], tmp_path, change)
    with pytest.raises(Refused):
        gate(source, damaged, records)


@pytest.mark.parametrize("rule", ["score_threshold", "iou_threshold", "max_detections", "clip", "variance"])
def test_other_rules_in_the_graph_are_refused(still, tmp_path, rule):
    source, records, done = still
    other = {"score_threshold": 0.7, "iou_threshold": 0.5, "max_detections": 10, "clip": True, "variance": (0.1, 0.19)}
    rules = PostProcess(**vars(source.rules) | {rule: other[rule]})
    model = append_postprocess(load_model(done.raw[0]), rules)
    write_metadata(model, {"kind": "detect"})
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(Refused):
        gate(source, tmp_path / "x.onnx", records)


def test_a_refused_export_leaves_nothing_that_looks_whole(still, tmp_path, monkeypatch):
    source, records, _ = still
    original = export_tool.append_postprocess
    weaker = PostProcess(**vars(source.rules) | {"iou_threshold": 0.4})
    monkeypatch.setattr(export_tool, "trace", lambda *_: load_model(still[2].raw[0]))
    monkeypatch.setattr(export_tool, "append_postprocess", lambda model, rules: original(model, weaker))
    with pytest.raises(Refused):
        export_model(source, tmp_path / "out", records)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".refused"}


def test_files_in_the_way_are_not_overwritten(still):
    source, records, done = still
    with pytest.raises(UserError, match="--overwrite"):
        export_model(source, done.raw[0].parent, records)


def tail_of(rules: PostProcess, num_priors: int, num_classes: int):
    """A session of the tail alone: loc, conf and priors in, detections out."""
    shapes = {"loc": ["b", num_priors, 4], "conf": ["b", num_priors, num_classes], "priors": [num_priors, 4]}
    describe = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [f"{name}_in"], [name]) for name in shapes], "raw",
        [describe(f"{name}_in", 1, shape) for name, shape in shapes.items()],
        [describe(name, 1, shape) for name, shape in shapes.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return ort.InferenceSession(append_postprocess(model, rules).SerializeToString())


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"sigmoid": True, "score_threshold": 0.3},
        {"max_detections": 7, "iou_threshold": 0.3},
        {"max_per_image": 9, "clip": True, "variance": (0.2, 0.4)},
        {"score_threshold": 0.0, "max_detections": 500},
        {"score_threshold": 0.999},
    ],
    ids=str,
)
@pytest.mark.parametrize("num_classes", [2, 6])
def test_the_tail_has_the_rules_of_postprocess(rules, num_classes):
    rng, num_priors, batch = torch.Generator().manual_seed(1), 60, 3
    loc, conf = (torch.randn(batch, num_priors, n, generator=rng) * 2 for n in (4, num_classes))
    priors = torch.rand(num_priors, 4, generator=rng) * 0.5 + 0.1
    rules = PostProcess(**rules)
    session = tail_of(rules, num_priors, num_classes)
    feed = {"loc_in": loc.numpy(), "conf_in": conf.numpy(), "priors_in": priors.numpy()}
    boxes, scores, labels, counts = session.run(None, feed)
    for i, expected in enumerate(rules(Predictions(loc, conf, priors))):
        count = counts[i]
        assert count == len(expected) and not scores[i, count:].any() and not labels[i, count:].any()
        assert labels[i, :count].tolist() == expected.labels.tolist()
        np.testing.assert_allclose(scores[i, :count], expected.scores.numpy(), atol=1e-6)
        np.testing.assert_allclose(boxes[i, :count], expected.boxes.numpy(), atol=1e-5)


def compared(ours: list, theirs: list, candidates: list, **rules) -> tuple[int, list[str]]:
    """(borderline, faults) of detections [(x1, y1, x2, y2, score, label)] in an image of 100 x 100 pixels, where torch
    has these candidates for both classes."""
    tables = [torch.tensor(rows, dtype=torch.float32).reshape(-1, 6) for rows in (ours, theirs, candidates)]
    sides = [Detections(rows[:, :4], rows[:, 4], rows[:, 5].long(), ("a", "b")) for rows in tables[:2]]
    priors, logits = xyxy_to_cxcywh(tables[2][:, :4] / 100), tables[2][:, 4:5].logit().expand(-1, 3)
    same = SameDetections(PostProcess(sigmoid=True, **rules), (100, 100), Limits())
    same.add("x", (100, 100), *sides, Predictions(torch.zeros_like(priors), logits, priors))
    return same.total.borderline, same.total.faults


def test_rounding_may_decide_only_at_a_threshold():
    box = (10, 10, 30, 30)
    sure, faint = (*box, 0.9, 1), (60, 60, 80, 80, 0.01003, 1)
    assert compared([sure], [(10, 10.001, 30, 30, 0.90001, 1)], [sure]) == (0, [])
    assert compared([sure], [sure, faint], [sure, faint], score_threshold=0.01) == (1, [])
    assert compared([sure], [sure, faint], [sure, faint], score_threshold=0.009)[1]
    overlap = 20 * (1 - 0.5) / 1.5  # a shift that makes the overlap one half
    near = (10 + overlap, 10, 30 + overlap, 30, 0.8, 1)
    assert compared([sure, near], [sure], [sure, near], iou_threshold=0.5) == (1, [])
    assert compared([sure, near], [sure], [sure, near], iou_threshold=0.45)[1]
    twin = (12, 10, 32, 30, 0.9, 1)
    assert compared([sure], [twin], [sure, twin], iou_threshold=0.5) == (2, [])
    assert compared([sure], [twin], [sure], iou_threshold=0.5)[1]
    assert compared([sure], [(*box, 0.9, 2)], [sure])[1] and compared([sure], [], [sure])[1]
    assert compared([sure], [(*box, 0.91, 1)], [sure])[1]


def test_command_exports_and_checks(still, tmp_path, caplog, monkeypatch):
    source, _, done = still
    monkeypatch.setattr(export_tool, "trace", lambda *_: load_model(done.raw[0]))
    run = shutil.copytree(source.checkpoint.parent, tmp_path / "run")
    assert main(["--checkpoint", str(run), "--images", "3"]) == 0
    names = {done.raw[0].name, done.detect[0].name, "detect.py"}
    assert {path.name for path in (run / "export").iterdir()} == names
    assert main(["--checkpoint", str(source.checkpoint), "--check", str(done.detect[0]), "--images", "3"]) == 0
    damaged = damage(done.detect[0], tmp_path, lambda model: write_metadata(model, {"class_names": ["a", "b"]}))
    assert main(["--checkpoint", str(run), "--check", str(damaged), "--images", "3"]) == 1


def test_without_a_data_set_noise_is_compared(still, tmp_path):
    source, _, done = still
    for path in (done.raw[0], done.detect[0]):
        assert gate(source, path, None)["images"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--cfg FILE or --checkpoint PATH is missing"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--images", "-1"], "allowed: 0 and more"),
        (["--check", "nowhere.onnx"], "nowhere.onnx: no such file"),
        (["MODEL.NETTS=x"], "did you mean"),
        (["--out", "FILE"], "is a file"),
    ],
)
def test_mistakes_are_one_line(still, tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    given = [] if not words or words[0] == "--checkpoint" else ["--checkpoint", str(still[0].checkpoint)]
    assert main([*words, *given, *(["--images", "1"] if given and "--images" not in words else [])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_file_of_another_kind_is_told(still, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot open it"):
        OnnxDetector(tmp_path / "x.onnx")
    damaged = damage(still[2].raw[0], tmp_path, lambda model: model.ClearField("metadata_props"))
    with pytest.raises(UserError, match="does not say what it is"):
        OnnxDetector(damaged)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_told_with_the_command_that_installs_them(still, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["--checkpoint", str(still[0].checkpoint)]) == 2
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err


def test_what_cannot_be_exported_is_told(tmp_path):
    random = (*INTERLEAVED, "MODEL.RNN.POLICY=random")
    with pytest.raises(UserError, match="MODEL.RNN.POLICY: random"):
        load(tmp_path, *random)
    with pytest.raises(UserError, match="--dynamic-size: lstm_ssd_lite"):
        load(tmp_path, *LITE).graph(dynamic_size=True)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fixed", "adaptive", "small"])
def test_two_extractors_are_two_files_that_take_turns(tmp_path, videos, policy):
    words = *INTERLEAVED, f"MODEL.RNN.POLICY={policy}", "MODEL.RNN.ADAPT_THRESHOLD=0.3"
    source = load(tmp_path, *words, f"DATASET.DATASET_DIR={videos}")
    done = export_model(source, tmp_path / "out", open_records(source))
    assert len(done.raw) == len(done.detect) == (1 if policy == "small" else 2)
    assert done.figures["images"] == 14 and done.figures["detections"] > 50
    for path in [*done.raw, *done.detect]:
        gate(source, path, open_records(source))


VARIANTS = {
    "ssd": (), "rfb": (), "rfb_lite": (), "fssd": (), "fssd_lite": (), "yolo_v2": (), "yolo_v3": (), "fpn": (),
    "bifpn": (), "dssd": (), "tdm": (), "ssd_dual": ("MODEL.NETS=mobilenet_v1_025_stride8",),
    "ssd_lite_dual": ("MODEL.NETS=mobilenet_v1_025_stride8",), "lstm_ssd_lite": LITE,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_be_exported(tmp_path, variant):
    source = load(tmp_path, *VARIANTS[variant], f"MODEL.SSDS={variant}")
    done = export_model(source, tmp_path / "out", None)
    assert done.figures["detections"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("lstm")])
def test_priors_follow_the_size(tmp_path, pictures, variant):
    steps = ["MODEL.SIZES=[[8, 8], [16, 16], [24, 24], [32, 32], [40, 40], [48, 48], [64, 64]]"]
    words = [*VARIANTS[variant], *steps, f"MODEL.SSDS={variant}", "DATASET.TEST_SETS=test", "MODEL.IMAGE_SIZE=[96, 64]"]
    source = load(tmp_path, *words, f"DATASET.DATASET_DIR={pictures}")
    done = export_model(source, tmp_path / "out", open_records(source), dynamic_size=True)
    session = ort.InferenceSession(str(done.raw[0]))
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    _, _, priors = session.run(None, {"images": np.zeros((1, 160, 128, 3), np.uint8)})
    expected = source.run(np.zeros((1, 160, 128, 3), np.uint8)).priors
    np.testing.assert_allclose(priors, expected.numpy(), atol=1e-6)
