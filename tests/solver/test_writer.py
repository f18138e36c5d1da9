import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as BoardAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util
from torch import nn

from lib.config import load_config
from lib.evaluation import VOCMeanAP
from lib.modeling.model_builder import create_model
from lib.solver import writer as writer_module
from lib.solver.figures import ap_figure, confusion_figure, error_figure, pr_figure, render_figure
from lib.solver.model_graph import write_graph
from lib.solver.writer import RunWriter, hparam_values, pr_table, read_log


def events(folder):
    """What a reader of event files sees."""
    reader = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "images", "tensors"), 0))
    return reader.Reload()


def board(folder):
    """What TensorBoard itself sees: everything as tensors."""
    return BoardAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def scalar_steps(folder, tag):
    return [event.step for event in events(folder).Scalars(tag)]


def event_files(folder):
    return sorted(path.name for path in Path(folder).glob("events.out.tfevents.*"))


def test_nothing_is_created_before_the_first_entry(tmp_path):
    with RunWriter(tmp_path / "log", tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_scalars_reach_tensorboard_and_the_json_log(tmp_path):
    with RunWriter(tmp_path / "log", tmp_path / "run") as writer:
        writer.scalars({"Train/loc_loss": 1.5, "Eval AP/Größe (gross)": np.float32(0.25)}, 10)
        writer.scalars({"Train/loc_loss": 1.25}, 20)
    read = events(tmp_path / "log")
    assert [(e.step, e.value) for e in read.Scalars("Train/loc_loss")] == [(10, 1.5), (20, 1.25)]
    assert read.Scalars("Eval AP/Größe (gross)")[0].value == 0.25  # spaces, brackets and umlauts as they are
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0]["Train/loc_loss"] == 1.5 and lines[0]["Eval AP/Größe (gross)"] == 0.25
    assert abs(lines[0]["time"] - read.Scalars("Train/loc_loss")[0].wall_time) < 1
    assert not (tmp_path / "log" / "log.jsonl").exists()


def test_descriptions_stand_with_their_scalars(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.scalars({"Test/mAP": 0.5, "Test/fps": 20.0}, 10, {"Test/mAP": "at IoU 0.5"})
    assert board(tmp_path).SummaryMetadata("Test/mAP").summary_description == "at IoU 0.5"
    assert [scalar.value for tag in ("Test/mAP", "Test/fps") for scalar in events(tmp_path).Scalars(tag)] == [0.5, 20.0]


def test_the_json_log_is_on_the_disk_after_every_call_and_strict_json(tmp_path):
    writer = RunWriter(tmp_path)
    writer.scalars({"a": math.nan, "b": math.inf, "c": 1}, 0)

    def refuse(constant):
        raise AssertionError(constant)

    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert line["a"] is None and line["b"] is None and line["c"] == 1
    writer.close()
    assert math.isnan(events(tmp_path).Scalars("a")[0].value)


def test_a_half_written_last_line_spoils_no_other(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    path.write_text('{"time": 1.0, "step": 1, "a": 2.0}\n{"time": 2.0, "st')
    with RunWriter(tmp_path) as writer:
        writer.scalars({"a": 3.0}, 2)
    with caplog.at_level(logging.WARNING):
        records = read_log(path)
    assert [(record["step"], record["a"]) for record in records] == [(1, 2.0), (2, 3.0)]
    assert "line 2" in caplog.text


def test_a_killed_process_loses_no_line(tmp_path):
    code = (
        "import os, sys; from lib.solver.writer import RunWriter\n"
        "w = RunWriter(sys.argv[1]); [w.scalars({'a': i}, i) for i in range(5)]; os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 9
    assert [record["a"] for record in read_log(tmp_path / "log.jsonl")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("reader", [events, board])
def test_a_resumed_run_hides_what_came_after(tmp_path, reader):
    with RunWriter(tmp_path) as writer:
        for step in (10, 20, 30, 40):
            writer.scalars({"loss": step}, step)
    with RunWriter(tmp_path, purge_step=20) as writer:
        writer.scalars({"loss": 300}, 30)
    with RunWriter(tmp_path) as writer:  # a later phase hides nothing
        writer.scalars({"mAP": 0.5}, 30)
    read = reader(tmp_path)
    steps = [e.step for e in (read.Scalars("loss") if reader is events else read.Tensors("loss"))]
    assert steps == [10, 20, 30]
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path / "log.jsonl") if "loss" in r] == [
        (10, 10), (20, 20), (30, 300)
    ]  # fmt: skip


def test_two_resumes_in_a_row(tmp_path):
    for start in (None, 20, 10):
        with RunWriter(tmp_path) as writer:
            if start is not None:
                writer.hide_after(start)
            first = 10 if start is None else start + 10
            for step in range(first, 41, 10):
                writer.scalars({"loss": 1.0}, step)
    assert scalar_steps(tmp_path, "loss") == [10, 20, 30, 40]
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [10, 20, 30, 40]


def test_names_that_are_no_unicode_stop_nothing(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.scalars({"file\udcff": 1.0}, 1)
        writer.image("images/file\udcff", np.zeros((8, 8, 3), np.uint8), 1)
        writer.pr_curves({"class\udcff": curve()}, 1)
        writer.text("text\udcff", "path\udcff", 1)
        writer.hparams({"NETS": "net\udcff"}, {"mAP": 0.5})
    assert scalar_steps(tmp_path, "file?") == [1] and read_log(tmp_path / "log.jsonl")[0]["file?"] == 1.0


def test_two_writers_of_one_second_keep_both_files(tmp_path):
    for step in range(3):
        with RunWriter(tmp_path) as writer:
            writer.scalars({"a": step}, step)
    assert scalar_steps(tmp_path, "a") == [0, 1, 2] and len(event_files(tmp_path)) == 3


def test_image_comes_back_pixel_by_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with RunWriter(tmp_path) as writer:
        writer.image("visualize/prior boxes/level 1 (19x19)", image, 7, "what is seen")
        writer.image("large", np.zeros((400, 4000, 3), np.uint8), 7)
    read = events(tmp_path)
    (entry,) = read.Images("visualize/prior boxes/level 1 (19x19)")
    decoded = cv2.imdecode(np.frombuffer(entry.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert entry.step == 7 and (entry.height, entry.width) == (40, 60)
    np.testing.assert_array_equal(decoded, image)
    assert (read.Images("large")[0].height, read.Images("large")[0].width) == (160, 1600)
    assert (
        board(tmp_path).SummaryMetadata("visualize/prior boxes/level 1 (19x19)").summary_description == "what is seen"
    )


def test_figure_is_drawn_and_closed(tmp_path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(3, 2), dpi=50)
    axes.plot([0, 1], [0, 1])
    with RunWriter(tmp_path) as writer:
        writer.figure("plots/line", figure, 1)
    assert not plt.fignum_exists(figure.number)
    (entry,) = events(tmp_path).Images("plots/line")
    assert (entry.height, entry.width) == (100, 150)


def test_text(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.text("run/configuration", "**bold** text", 3)
    (event,) = board(tmp_path).Tensors("run/configuration")
    assert tensor_util.make_ndarray(event.tensor_proto).tolist() == [b"**bold** text"]


CORRECT = np.array([1, 1, 0, 1, 0, 0, 1, 0], bool)
SCORES = np.array([0.95, 0.9, 0.9, 0.7, 0.5, 0.3, 0.3, 0.02])


def curve(correct=CORRECT, scores=SCORES, num_objects=6):
    hits = np.cumsum(correct)
    return hits / np.arange(1, len(correct) + 1), hits / num_objects, scores


def test_pr_table_counts_the_detections_at_or_above_each_threshold():
    tp, fp, tn, fn, precision, recall = pr_table(*curve())
    for index, threshold in enumerate(np.linspace(0, 1, 127)):
        kept = threshold <= SCORES
        assert tp[index] == (kept & CORRECT).sum() and fp[index] == (kept & ~CORRECT).sum()
        assert fn[index] == 6 - tp[index] and tn[index] == 0
        assert recall[index] == pytest.approx(tp[index] / 6)
        assert precision[index] == pytest.approx(tp[index] / kept.sum() if kept.any() else 0)
    assert (np.diff(recall) <= 0).all()


@pytest.mark.parametrize("correct, scores", [([], []), ([False, False], [0.8, 0.1]), ([True], [1.0]), ([True], [0.0])])
def test_pr_table_of_few_detections(correct, scores):
    table = pr_table(*curve(np.array(correct, bool), np.array(scores, float), 3))
    assert np.isfinite(table).all() and np.shape(table) == (6, 127)
    assert table[5][0] == pytest.approx(sum(correct) / 3)


def test_pr_curves_stand_under_class_names_as_tensorboard_wants_them(tmp_path):
    from tensorboard.plugins.pr_curve import metadata

    with RunWriter(tmp_path) as writer:
        writer.pr_curves({"red cell": curve(), "Größe": curve()}, 5, description="at IoU 0.5")
    read = board(tmp_path)
    assert read.SummaryMetadata("pr_curve/Größe").summary_description == "at IoU 0.5"
    assert set(read.PluginTagToContent("pr_curves")) == {"pr_curve/red cell", "pr_curve/Größe"}
    content = metadata.parse_plugin_metadata(read.PluginTagToContent("pr_curves")["pr_curve/red cell"])
    data = tensor_util.make_ndarray(read.Tensors("pr_curve/red cell")[0].tensor_proto)
    assert content.num_thresholds == data.shape[1] == 127
    np.testing.assert_allclose(data[metadata.TRUE_POSITIVES_INDEX], pr_table(*curve())[0])
    np.testing.assert_allclose(data[metadata.FALSE_NEGATIVES_INDEX], 6 - pr_table(*curve())[0])
    np.testing.assert_allclose(data[metadata.PRECISION_INDEX], pr_table(*curve())[4], rtol=1e-6)
    np.testing.assert_allclose(data[metadata.RECALL_INDEX], pr_table(*curve())[5], rtol=1e-6)


def test_the_metric_feeds_the_pr_page(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.pr_curves(VOCMeanAP(("a", "b")).pr_curves(), 1)
        writer.scalars({"x": 1.0}, 1)
    assert scalar_steps(tmp_path, "x") == [1]


CONFIG = {
    "MODEL": {"NETS": "mobilenet_v2", "IMAGE_SIZE": [300, 320], "CLIP": True},
    "TRAIN": {"BATCH_SIZE": 16, "OPTIMIZER": {"LEARNING_RATE": 0.01, "EPS": 1e-8}},
    "SEED": 3,
    "EXP_DIR": "x",
}


def test_hparams_have_short_names():
    assert hparam_values({**CONFIG, "AMP": None}) == {
        "NETS": "mobilenet_v2", "IMAGE_SIZE": "300x320", "BATCH_SIZE": 16.0, "LEARNING_RATE": 0.01, "SEED": 3.0,
        "AMP": "none",
    }  # fmt: skip
    dotted = {"MODEL.NETS": "vgg16", "TRAIN.BATCH_SIZE": 32, "TRAIN.OPTIMIZER.EPS": 1}
    assert hparam_values(dotted) == {"NETS": "vgg16", "BATCH_SIZE": 32.0}


def hparams_page(root):
    """Rows of TensorBoard's own HParams page over the runs in `root`: session name -> (settings, metrics)."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(root))
    multiplexer.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(root))))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN]
    )
    request_context = RequestContext()
    metadata = context.hparams_metadata(request_context, "")
    experiment = context.experiment_from_metadata(
        request_context, "", True, metadata, context.hparams_from_data_provider(request_context, "", 0)
    )
    groups = list_session_groups.Handler(request_context, context, "", request).run().session_groups
    names = {info.name.tag: info.display_name for info in experiment.metric_infos}
    rows = {}
    for group in groups:
        (session,) = group.sessions
        settings = {key: value.string_value or value.number_value for key, value in group.hparams.items()}
        rows[session.name] = settings, {names[m.name.tag]: round(m.value, 4) for m in group.metric_values}
    return rows


def test_one_hparams_row_a_run_with_the_latest_values(tmp_path):
    for run, rate in (("a", 0.01), ("b", 0.02)):
        with RunWriter(tmp_path / run) as writer:
            writer.scalars({"Test/mAP": 0.4}, 900)
            writer.hparams(CONFIG, {"mAP": 0.4, "fps": 20, "parameters": 1000, "nothing": math.nan})
            writer.scalars({"Test/mAP": 0.5}, 1000)
        with RunWriter(tmp_path / run, purge_step=950) as writer:  # the same run again, changed
            changed = {**CONFIG, "TRAIN": {"BATCH_SIZE": 8, "OPTIMIZER": {"LEARNING_RATE": rate}}}
            writer.hparams(changed, {"mAP": 0.6 + rate, "fps": 25, "parameters": 1000})
            writer.scalars({"Test/mAP": 0.7}, 960)
    rows = hparams_page(tmp_path)
    assert set(rows) == {"a", "b"}
    for run, rate in (("a", 0.01), ("b", 0.02)):
        settings, metrics = rows[run]
        assert settings["BATCH_SIZE"] == 8 and settings["LEARNING_RATE"] == rate and settings["NETS"] == "mobilenet_v2"
        assert metrics == {"mAP": pytest.approx(0.6 + rate), "fps": 25, "parameters": 1000}
        assert sum("hparams" in name for name in event_files(tmp_path / run)) == 1
    assert scalar_steps(tmp_path / "a", "Test/mAP") == [900, 960], "the curves of the run stay apart"


def test_hparams_write_what_the_plugin_reads(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.hparams(CONFIG, {"mAP": 0.4})
    content = board(tmp_path).PluginTagToContent("hparams")
    start = hparams_metadata.parse_session_start_info_plugin_data(content[hparams_metadata.SESSION_START_INFO_TAG])
    assert start.hparams["LEARNING_RATE"].number_value == 0.01
    assert hparams_metadata.SESSION_END_INFO_TAG in content


class BrokenFile:
    """A file on a full disk."""

    def __init__(self, broken):
        self.broken, self.closed = broken, False

    def write_event(self, event):
        if self.broken:
            raise OSError(28, "No space left on device")

    def flush(self):
        self.write_event(None)

    def close(self):
        self.closed = True
        self.flush()


def test_a_full_disk_warns_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    opened = []
    real = writer_module.EventsWriter

    def open_events(*arguments):
        opened.append(BrokenFile(True) if len(opened) < 2 else real(*arguments))
        return opened[-1]

    monkeypatch.setattr(writer_module, "EventsWriter", open_events)
    with RunWriter(tmp_path) as writer, caplog.at_level(logging.WARNING):
        for step in range(4):
            writer.scalars({"a": step}, step)
            writer.image("b", np.zeros((8, 8, 3), np.uint8), step)
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    assert opened[0].closed, "the broken file is given up"
    assert scalar_steps(tmp_path, "a") == [1, 2, 3], "logging goes on in a new file once there is room"
    assert [record["a"] for record in read_log(tmp_path / "log.jsonl")] == [0, 1, 2, 3]


def test_a_log_folder_that_cannot_be_made_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with RunWriter(tmp_path / "file" / "log") as writer, caplog.at_level(logging.WARNING):
        writer.scalars({"a": 1}, 1)
        writer.image("b", np.zeros((8, 8, 3), np.uint8), 1)
        writer.pr_curves({"c": curve()}, 1)
        writer.text("d", "text", 1)
        writer.hparams(CONFIG, {"mAP": 0.1})
        writer.flush()
    assert len(caplog.records) == 1 and "file" in caplog.text


def test_a_broken_json_log_leaves_tensorboard_alone(tmp_path):
    (tmp_path / "run" / "log.jsonl").mkdir(parents=True)
    with RunWriter(tmp_path / "log", tmp_path / "run") as writer:
        for step in (1, 2):
            writer.scalars({"a": 1}, step)
    assert scalar_steps(tmp_path / "log", "a") == [1, 2]


def test_writing_goes_on_after_close(tmp_path):
    writer = RunWriter(tmp_path)
    for step in (1, 2):
        writer.scalars({"a": 1}, step)
        writer.close()
    assert scalar_steps(tmp_path, "a") == [1, 2] and len(read_log(tmp_path / "log.jsonl")) == 2


def test_pr_figure_names_every_class_in_its_colour():
    curves = {"dog": curve(), "_hidden $x$ 血": curve(CORRECT[::-1])}
    figure = pr_figure(curves, ["cat", "dog", "_hidden $x$ 血"])
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == 2 and any("dog" in label for label in labels) and any("_hidden" in label for label in labels)
    from lib.utils.draw import class_color

    (line,) = (line for line in axes.lines if "dog" in line.get_label())
    np.testing.assert_allclose(np.array(line.get_color()) * 255, class_color(2)[::-1], atol=40)
    np.testing.assert_allclose(line.get_xdata(), curves["dog"][1])
    assert render_figure(figure).std() > 5


def test_pr_figure_of_many_classes_stays_readable():
    names = [f"class {index}" for index in range(30)]
    figure = pr_figure({name: curve(CORRECT[: 2 + i % 6], SCORES[: 2 + i % 6]) for i, name in enumerate(names)})
    assert len(figure.axes[0].get_legend().get_texts()) == 10
    assert render_figure(pr_figure({})).shape[2] == 3


def test_ap_figure_sorts_and_says_what_is_unknown():
    figure = ap_figure({"dog": 0.3, "cat": 0.95, "cow": math.nan}, 0.625)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "cow"]
    assert [bar.get_width() for bar in axes.patches] == [0.95, 0.3, 0]
    assert {"0.950", "0.300", "no objects"} <= {text.get_text() for text in axes.texts}
    assert "0.625" in axes.get_title(loc="left")
    assert render_figure(figure).ndim == 3
    assert render_figure(ap_figure({}, math.nan)).ndim == 3


def graph_of(folder):
    """The nodes of the graph that TensorBoard finds, by name."""
    return {node.name: node for node in events(folder).Graph().node}


def test_a_graph_has_the_operations_of_the_model_and_what_they_read(tmp_path):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

        def forward(self, images):
            return (self.left(images) + self.right(images)).flatten(1)

    model = Sum().train()
    with RunWriter(tmp_path) as writer:
        write_graph(writer, model, (8, 10), torch.device("cpu"))
    nodes = graph_of(tmp_path)
    assert set(nodes) == {"images", "left/convolution", "right/0/convolution", "right/1/relu", "add"}
    assert list(nodes["left/convolution"].input) == ["images"]
    assert list(nodes["right/1/relu"].input) == ["right/0/convolution"]
    assert list(nodes["add"].input) == ["left/convolution", "right/1/relu"]
    (shape,) = nodes["left/convolution"].attr["_output_shapes"].list.shape
    assert [side.size for side in shape.dim] == [1, 4, 8, 10]
    assert model.training and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("variant", ["ssd_lite", "ssd_lite_RNN", "lstm_ssd_interleaved"])
def test_models_with_and_without_memory_have_a_graph(tmp_path, variant):
    net = "mobilenet_v1" if variant == "lstm_ssd_interleaved" else "mobilenet_v1_025"
    names = ["MODEL.IMAGE_SIZE=[64,64]", "MODEL.NUM_CLASSES=4", f"MODEL.SSDS={variant}", f"MODEL.NETS={net}"]
    with RunWriter(tmp_path) as writer:
        write_graph(writer, create_model(load_config(None, names)), (64, 64), torch.device("cpu"))
    nodes = graph_of(tmp_path)
    assert {name.split("/")[0] for name in nodes} >= {"images", "backbone", "neck", "head"}
    assert all(source in nodes for node in nodes.values() for source in node.input)


def test_a_model_without_a_graph_stops_nothing(tmp_path, caplog):
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("no such thing\nand more")

    with RunWriter(tmp_path) as writer:
        write_graph(writer, Broken(), (8, 8), torch.device("cpu"))
        writer.scalars({"Train/loss": 1.0}, 1)
    (record,) = caplog.records
    assert record.getMessage() == "TensorBoard shows no graph of the model: no such thing"
    assert scalar_steps(tmp_path, "Train/loss") == [1]


@pytest.mark.parametrize("num_classes", [3, 40])
def test_confusion_figure_says_what_it_counts(num_classes):
    names = [f"class {i}" for i in range(num_classes - 1)] + ["_$x$ 血", "background"]
    counts = np.diag(np.arange(1, num_classes + 2))
    counts[-1, -1] = 0
    counts[0, 1] = 77
    confusion = {"names": names, "counts": counts.tolist(), "iou_threshold": 0.5, "score_threshold": 0.25}
    figure = confusion_figure(confusion)
    (axes,) = figure.axes
    assert "IoU 0.5, score 0.25 or more" in axes.get_title()
    assert [tick.get_text() for tick in axes.get_yticklabels()][-1] == "background"
    shares = np.asarray(axes.get_images()[0].get_array())
    assert shares[0, 1] == pytest.approx(77 / 78) and shares[-1].sum() == 0
    numbers = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert (((1, 0), "77") in numbers) == (num_classes == 3) == bool(numbers), "counts only where there is room"
    assert render_figure(figure).std() > 5


def test_error_figure_tells_cost_and_number():
    costs = {"localisation": (12, 0.25), "duplicate": (3, -0.001), "missed": (0, math.nan)}
    (axes,) = error_figure(costs, 0.5).axes
    assert "IoU 0.5" in axes.get_title(loc="left") and "0.500" in axes.get_title(loc="left")
    assert [text.get_text() for text in axes.texts] == [
        "+0.250  (12 errors)", "-0.001  (3 errors)", "+0.000  (0 errors)"
    ]  # fmt: skip
    assert render_figure(error_figure(dict.fromkeys(costs, (0, math.nan)), math.nan)).ndim == 3
