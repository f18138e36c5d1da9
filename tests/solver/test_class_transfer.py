"""Class predictions are taken over by name."""

import pytest
import torch

from lib.config import load_config
from lib.modeling.model_builder import create_model
from lib.solver.checkpoint import FAMILY_PREFIXES, copy_weights
from lib.solver.class_transfer import match_classes
from lib.solver.solver import Solver
from lib.utils.class_names import COCO_CLASSES, VOC_CLASSES, published_class_names

HEADS = {
    "conv3": ["MODEL.FEATURE_LAYER=[[11, 13, 'S'], [128, 256, 64]]"],
    "separable": ["MODEL.FEATURE_LAYER=[[11, 13, 'S'], [128, 256, 64]]"],
    "tower": ["MODEL.FEATURE_LAYER=[[13, 'S'], [256, 256]]"],
}


def build(num_classes, head="conv3", seed=0, *words):
    torch.manual_seed(seed)
    words = ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=64", *HEADS[head], *words]
    return create_model(load_config(None, [*words, f"MODEL.HEAD={head}", f"MODEL.NUM_CLASSES={num_classes}"])).eval()


def logits(model):
    """Logits and offsets for an image."""
    torch.manual_seed(9)
    with torch.inference_mode():
        out = model(torch.randn(2, 3, 64, 64))
    return out.conf, out.loc


def close(a, b):
    """Equal up to the order in which a convolution sums, which may depend on the place of its outputs."""
    return (a - b).abs().max() < 1e-6 * b.abs().max()


def run_file(model, names):
    return {"format": 1, "model": model.state_dict(), "class_names": list(names)}


def family_file(model):
    """The weights under published names, without class names."""
    ours = {here: word for word, here in FAMILY_PREFIXES.items()}
    state = model.state_dict()
    return {ours[".".join(n.split(".")[:2])] + n[len(".".join(n.split(".")[:2])) :]: t for n, t in state.items()}


@pytest.mark.parametrize("head", HEADS)
def test_permuted_classes_give_permuted_outputs(head):
    source, model = build(5, head, 1), build(5, head, 2)
    report = copy_weights(model, run_file(source, "abcd"), "w.pth", class_names=("c", "a", "d", "b"))
    assert report.complete and not report.classes.new
    (conf, loc), (before, offsets) = logits(model), logits(source)
    assert close(conf, before[..., [0, 3, 1, 4, 2]]) and torch.equal(loc, offsets)
    assert not close(conf, before)
    for ours, theirs in zip(model.head.conf_predictors(), source.head.conf_predictors(), strict=True):
        for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            assert torch.equal(a.unflatten(0, (-1, 5)), b.unflatten(0, (-1, 5))[:, [0, 3, 1, 4, 2]])


@pytest.mark.parametrize("head", HEADS)
def test_shared_classes_are_taken_over_and_new_ones_start_fresh(head):
    source, model, fresh = build(4, head, 1), build(6, head, 2), build(6, head, 2)
    names = ("dog", "bus", "cat", "ape", "car")
    report = copy_weights(model, run_file(source, ("cat", "sun", "dog")), "w.pth", class_names=names)
    assert report.classes.taken == ["dog", "cat"] and report.classes.dropped == ["sun"]
    assert report.classes.new == ["bus", "ape", "car"] and not report.complete
    assert "2 classes taken over by name, 3 new, 1 dropped" in str(report) and not report.mismatched
    conf, before = logits(model)[0], logits(source)[0]
    assert close(conf[..., [0, 1, 3]], before[..., [0, 3, 1]])
    for predictor, other in zip(model.head.conf_predictors(), fresh.head.conf_predictors(), strict=True):
        rows, fresh_rows = (p.weight.detach().view(-1, 6, *p.weight.shape[1:]) for p in (predictor, other))
        assert torch.equal(rows[:, [2, 4, 5]], fresh_rows[:, [2, 4, 5]])


def test_the_same_names_in_the_same_order_are_a_plain_load():
    source, model = build(4, seed=1), build(4, seed=2)
    report = copy_weights(model, run_file(source, "abc"), "w.pth", class_names=("a", "b", "c"))
    assert report.complete and report.classes is None and torch.equal(logits(model)[0], logits(source)[0])


def test_the_scope_holds_for_classes_too():
    model, fresh = build(3, seed=2), build(3, seed=2)
    report = copy_weights(model, run_file(build(4, seed=1), "abc"), "w.pth", "base", ("c", "x"))
    assert "head.conf.0.weight" in report.out_of_scope
    assert torch.equal(model.head.conf[0].weight, fresh.head.conf[0].weight)
    assert report.classes is None and "by name" not in str(report)


def test_a_predictor_that_reads_other_channels_is_left_whole():
    narrow = "MODEL.FEATURE_LAYER=[[11, 13, 'S'], [128, 256, 32]]"
    source, model, fresh = build(4, "conv3", 1, narrow), build(3, seed=2), build(3, seed=2)
    report = copy_weights(model, run_file(source, "abc"), "w.pth", class_names=("c", "x"))
    assert report.classes.taken == ["c"] and "head.conf.2.weight" in {name for name, *_ in report.mismatched}
    assert torch.equal(model.head.conf[2].bias, fresh.head.conf[2].bias)
    assert not torch.equal(model.head.conf[1].weight, fresh.head.conf[1].weight)


def test_from_the_classes_of_coco_to_those_of_voc():
    source, model = build(81, seed=1), build(21, seed=2)
    report = copy_weights(model, family_file(source), "w.pth", class_names=VOC_CLASSES)
    assert report.complete and len(report.classes.taken) == 20 and len(report.classes.dropped) == 60
    assert "tvmonitor (there tv)" in report.classes.table() and "those of COCO" in report.classes.table()
    column = COCO_CLASSES.index("motorcycle") + 1
    assert close(logits(model)[0][..., 1 + VOC_CLASSES.index("motorbike")], logits(source)[0][..., column])


def test_from_a_class_for_every_category_id_to_the_80_that_exist():
    source, model = build(91, seed=1), build(81, seed=2)
    report = copy_weights(model, family_file(source), "w.pth", class_names=COCO_CLASSES)
    assert report.complete and len(report.classes.dropped) == 10
    conf, before = logits(model)[0], logits(source)[0]
    assert close(conf[..., [0, 1, 80]], before[..., [0, 1, 90]]) and published_class_names(91)[12] == "stop sign"


def test_as_many_classes_as_voc_need_not_be_those_of_voc():
    names = tuple(f"kind {i}" for i in range(19)) + ("person",)
    source, model = build(21, seed=1), build(21, seed=2)
    report = copy_weights(model, family_file(source), "w.pth", class_names=names)
    assert report.complete and report.classes is None and torch.equal(logits(model)[0], logits(source)[0])
    report = copy_weights(model, family_file(source), "w.pth", class_names=VOC_CLASSES[::-1])
    assert report.complete and close(logits(model)[0][..., 1:], logits(source)[0][..., 1:].flip(2))


@pytest.mark.parametrize("count, names, whose", [(8, ("a", "b"), "file"), (21, (), "run")])
def test_unknown_names_leave_the_predictions_as_they_are(count, names, whose):
    model, fresh = build(3, seed=2), build(3, seed=2)
    report = copy_weights(model, family_file(build(count, seed=1)), "w.pth", class_names=names)
    assert {name.split(".")[1] for name, _, _ in report.mismatched} == {"conf"}
    assert f"the class names of the {whose} are not known, so no class is taken over by name" in str(report)
    assert torch.equal(model.head.conf[0].weight, fresh.head.conf[0].weight)
    assert not torch.equal(model.head.loc[0].weight, fresh.head.loc[0].weight)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "x", "a")])
def test_four_boxes_fill_the_first_four_of_six(names):
    ratios = "MODEL.ASPECT_RATIOS=[[1, 2], [1, 2, 3], [1, 2, 3]]"
    source, model, fresh = build(4, "conv3", 1, ratios), build(4, seed=2), build(4, seed=2)
    report = copy_weights(model, run_file(source, "abc"), "w.pth", class_names=names)
    assert report.grown == ("head.conf.0",) and not report.complete and not report.mismatched
    assert "of 6 boxes a cell the first 4 filled in head.conf.0" in str(report)
    classes = [0, 1, 2, 3] if names[0] == "a" else [0, 3, 1]
    here = [0, 1, 2, 3] if names[0] == "a" else [0, 1, 3]
    theirs, ours, before = (m.head.conf[0].bias.detach().view(-1, 4) for m in (source, model, fresh))
    assert torch.equal(ours[:4, here], theirs[:, classes]) and torch.equal(ours[4:], before[4:])
    theirs, ours, before = (m.head.loc[0].weight.detach() for m in (source, model, fresh))
    assert torch.equal(ours[:16], theirs) and torch.equal(ours[16:], before[16:])


def test_names_that_differ_only_in_spelling_are_not_mixed_up():
    match = match_classes(["Person", "traffic light", "A", "a"], ["person", "a", "A"])
    assert match.rows == [(0, 0), (2, 4), (3, 3)]  # two that would be one: letter by letter
    match = match_classes(["Person", "traffic light"], ["traffic_light", "person"])
    assert match.rows == [(0, 0), (1, 2), (2, 1)]


def test_a_training_starts_from_weights_for_other_classes(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Solver, "_train_epoch", lambda self, task, state, *_: setattr(state, "epoch", state.epoch + 1))
    cfg = tiny("TRAIN.TRACK_MAP=False")
    solver = Solver(cfg)
    names = solver.class_names
    solver.run()
    first = next((tmp_path / "run").glob("*epoch_3.pth"))
    content = torch.load(first, weights_only=True)
    content["class_names"] = [*reversed(names[1:]), "elsewhere"]
    torch.save(content, tmp_path / "w.pth")
    solver = Solver(
        tiny("TRAIN.TRACK_MAP=False", f"EXP_DIR={tmp_path / 'b'}", f"RESUME_CHECKPOINT={tmp_path / 'w.pth'}")
    )
    solver.run()
    shown = capsys.readouterr().out
    assert f"new here     1  {names[0]}" in shown and "dropped      1  elsewhere" in shown
    stored, own = content["ema"]["head.conf.0.bias"], solver.model.state_dict()["head.conf.0.bias"]
    rows, count = range(2, len(names) + 1), len(names) + 1
    assert torch.equal(own.view(-1, count)[:, 0], stored.view(-1, count)[:, 0])
    for row in rows:
        assert torch.equal(own.view(-1, count)[:, row], stored.view(-1, count)[:, count - row])
