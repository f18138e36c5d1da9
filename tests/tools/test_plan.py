"""The plan tool: what it says of a configuration, what it finds, and what stays quiet."""

import json
import logging
from pathlib import Path

import pytest

from lib.config import load_config
from lib.modeling.ssds import SSDS
from lib.solver.optim import LearningRate
from lib.tools.plan import draw_rate, main, make_plan
from lib.tools.plan_rate import rate_points, steps_per_epoch
from lib.tools.plan_table import WIDTH
from lib.tools.plan_text import format_plan
from lib.tools.plan_words import VARIANTS
from lib.utils.errors import UserError

CFGS = Path(__file__).parents[2] / "experiments/cfgs"

SMALL = """\
MODEL:
  SSDS: ssd_lite
  NETS: mobilenet_v1_025
  IMAGE_SIZE: [96, 96]
  FEATURE_LAYER: [[5, 11, 13, S], [64, 128, 256, 64]]
  STEPS: [[8, 8], [16, 16], [32, 32], [48, 48]]
  SIZES: [[16, 16], [32, 32], [48, 48], [64, 64], [80, 80]]
  ASPECT_RATIOS: [[1, 2], [1, 2], [1, 2], [1, 2]]
TRAIN: {MAX_EPOCHS: 20, OPTIMIZER: {OPTIMIZER: sgd}, LR_SCHEDULER: {SCHEDULER: SGDR}}
"""
"""A configuration in which everything fits together."""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(SMALL + f"EXP_DIR: {tmp_path / 'run'}\n")
    return path


@pytest.fixture
def plan_of(small):
    def plan_of(*overrides):
        return make_plan(load_config(small, overrides), str(small))[0]

    return plan_of


def text_of(cfg):
    plan, model, _ = make_plan(cfg)
    return format_plan(plan, model.backbone)


def section(text: str, title: str) -> list[str]:
    return next(part for part in text.split("\n\n") if part.startswith(title)).splitlines()


# ----------------------------------------------------------------------------------------------------- findings


def test_what_fits_together_has_no_findings(plan_of):
    assert plan_of().findings == []


@pytest.mark.parametrize("name", ["ssd_vgg16_voc", "ssd_lite_mobilenetv1_shapes", "ssd_lite_mobilenetv2_bccd"])
def test_files_that_trained_well_have_no_findings(name):
    assert make_plan(load_config(CFGS / f"{name}.yml"))[0].findings == []


# overrides -> what the one finding says
MISFITS = {
    ("MODEL.STEPS=[[16,16],[16,16],[32,32],[48,48]]",): "MODEL.STEPS: level 0: priors stand 16 px .*give [[8, 8], ",
    ("MODEL.STEPS=[[8,8],[16,16],[32,32],[24,24]]",): "MODEL.STEPS: level 3: priors stand 24 px apart",
    ("MODEL.SIZES=[[16,16],[48,48],[32,32],[64,64],[80,80]]",): "level 2, the coarser one, has smaller priors",
    ("MODEL.SIZES=[[5,5],[32,32],[48,48],[64,64],[80,80]]",): "level 0: its smallest priors, about 5 px, leave gaps",
    ("MODEL.SIZES=[[16,16],[90,90],[91,91],[92,92],[93,93]]", "MODEL.FEATURE_LAYER=[[5,6,13,S],[64,128,256,64]]"):
        "level 1: its largest priors, about 90.5 px, are beyond what its cells see of the image (59 px)",
    ("MODEL.SIZES=[[16,16],[32,32],[48,48],[99,99],[99,99]]",): "level 3: larger than the image of 96 x 96 px",
    ("MODEL.SIZES=[[16,16],[32,32],[48,48],[64,64],[80,80],[90,90]]",): "MODEL.SIZES: .*the first 5 of 6 SIZES",
    ("MODEL.ASPECT_RATIOS=[[2],[1,2],[1,2],[1,2]]",): "MODEL.ASPECT_RATIOS: level 0: without 1 .*write [1, 2]",
    ("MODEL.ASPECT_RATIOS=[[1,2],[1,2,0.5],[1,2],[1,2]]",): "level 1: 0.5 makes priors that are there already",
    ("MODEL.IMAGE_SIZE=[96,144]",): "1 gives 16 x 10.7 px; add 1.5 for priors that are square in pixels",
    ("MODEL.IMAGE_SIZE=[32,32]", "MODEL.STEPS=[]", "MODEL.SIZES=[0.5,0.9]"):
        "MODEL.FEATURE_LAYER: levels 2, 3 have maps of one cell each",
    ("MODEL.IMAGE_SIZE=64", "TRAIN.BATCH_SIZE=1", "MODEL.STEPS=[]", "MODEL.SIZES=[0.3,0.9]"):
        "TRAIN.BATCH_SIZE: training will fail on 1 image",
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), MISFITS.items(), ids=lambda v: v[0].partition("=")[0] if v else None)
def test_each_misfit_is_found_alone(plan_of, overrides, said):
    (finding,) = plan_of(*overrides).findings
    position = 0
    for part in said.split(".*"):
        position = finding.find(part, position)
        assert position >= 0, finding
    assert finding.startswith(("MODEL.", "TRAIN.")) and ";" in finding and "\n" not in finding


UNREAD = {
    "MODEL.NECK_WIDTH=64": "MODEL.NECK_WIDTH: not read by ssd_lite, only by fpn",
    "MODEL.RFB_BLOCK=paper": "MODEL.RFB_BLOCK: not read by ssd_lite",
    "MODEL.DEPTH_MULTIPLIER=0.5": "MODEL.DEPTH_MULTIPLIER: not read by mobilenet_v1_025",
    "MODEL.STEM_ACTIVATION=relu6": "MODEL.STEM_ACTIVATION: not read by mobilenet_v1_025",
    "MODEL.NORM_IN_TRUNK=True MODEL.SOURCE_NORM=none": "MODEL.NORM_IN_TRUNK: without effect",
    "TRAIN.IMAGE_SIZES=[96,100]": "TRAIN.IMAGE_SIZES: [100, 100]: no multiples",
    "TRAIN.LR_SCHEDULER.SCHEDULER=multi_step TRAIN.LR_SCHEDULER.STEPS=[10,30]": "TRAIN.LR_SCHEDULER.STEPS: 30: never",
    "TRAIN.LR_SCHEDULER.RESTART_EPOCHS=3": "TRAIN.LR_SCHEDULER.RESTART_EPOCHS: not read by multi_step",
}


def test_keys_without_effect_are_found(plan_of):
    findings = plan_of(*(word for words in UNREAD for word in words.split())).findings
    assert len(findings) == len(UNREAD)
    assert all(finding.startswith(said) for finding, said in zip(findings, UNREAD.values(), strict=True))


def test_a_warm_up_to_the_end_is_found(plan_of):
    (finding,) = plan_of("TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS=20").findings
    assert "WARM_UP_EPOCHS: 20 of 20 epochs leave none for SGDR" in finding


def test_a_cosine_that_is_cut_short_is_found(plan_of):
    (finding,) = plan_of("TRAIN.LR_SCHEDULER.RESTART_EPOCHS=5").findings  # cycles end at 5, 15 and 35 of 20 epochs
    assert "cut short by epoch 20" in finding and finding.endswith("MAX_EPOCHS at which one ends, 15 or 35")


def test_levels_lost_to_unequal_lists_are_findings_and_not_log(plan_of, caplog):
    findings = plan_of(
        "MODEL.ASPECT_RATIOS=[[1,2],[1,2],[1,2]]", "MODEL.FEATURE_LAYER=[[5,11,13,S],[64,128,256,64]]"
    ).findings
    assert "unequal length: the first 3 levels are built, without tokens ['S']" in findings[0]
    assert "the 3 levels use the first 3 of 4 STEPS and the first 4 of 5 SIZES" in findings[1]
    assert not caplog.records


def test_base_layers_that_nothing_reads_are_found(plan_of):
    findings = plan_of("MODEL.FEATURE_LAYER=[[5,11],[64,128]]", "MODEL.ASPECT_RATIOS=null", "MODEL.STEPS=[]").findings
    assert any("layers 12 to 13 of the base: no prediction depends on" in finding for finding in findings)


def test_steps_of_another_network_are_told_once_with_the_right_ones():
    """The small-object file whose steps are those of the plain VGG."""
    cfg = load_config(CFGS / "ssd_vgg16_voc.yml", ["MODEL.NETS=vgg16_S2L2_5"])
    cfg.MODEL.FEATURE_LAYER[0][0] = 29
    (finding,) = make_plan(cfg)[0].findings
    assert finding.startswith("MODEL.STEPS: levels 0, 1, 2, 3, 4, 5: priors stand 8, 16, 32, 64, 100, 300 px apart")
    assert "give [[4, 4], [12, 12], [24, 24], [48, 48], [60, 60], [100, 100]], or leave STEPS empty" in finding
    cfg.MODEL.STEPS = [[4, 4], [12, 12], [24, 24], [48, 48], [60, 60], [100, 100]]
    assert make_plan(cfg)[0].findings == []


# -------------------------------------------------------------------------------------------------------- facts


def test_levels_of_ssd300():
    levels = make_plan(load_config(CFGS / "ssd_vgg16_voc.yml"))[0].levels
    assert [level.map[0] for level in levels] == [38, 19, 10, 5, 3, 1]
    assert [level.num_priors for level in levels] == [8664, 2166, 600, 150, 36, 4]
    assert [level.receptive_field[0] for level in levels[:2]] == [92, 420]
    assert [level.pitch for level in levels] == [(s, s) for s in (8, 16, 32, 64, 100, 300)]
    assert levels[0].source == "layer 22 of the base, through an L2 norm"
    assert levels[0].priors[:3] == [(30, 30), (42.426, 42.426), (42.426, 21.213)]
    assert levels[5].priors[-1] == (186.676, 300)  # cut by CLIP


def test_priors_and_steps_of_oblong_images(plan_of):
    level = plan_of("MODEL.IMAGE_SIZE=[96,192]", "MODEL.STEPS=[]").levels[1]
    assert level.map == (6, 12)
    assert level.pitch == (16, 16)
    assert level.priors[0] == (32, 16)  # the smaller of 32 / 96 and 32 / 192 counts for both sides


def test_steps_that_are_not_given_follow_from_the_maps(plan_of):
    assert plan_of("MODEL.STEPS=[]", "MODEL.IMAGE_SIZE=100").levels[0].pitch == (100 / 13, 100 / 13)


def test_places_and_strides_are_explained(plan_of):
    plan = plan_of("MODEL.FEATURE_LAYER=[['/8','12.2',13,S],[64,null,256,64]]")
    assert plan.levels[0].source == "layer 5 of the base, the last one of stride 8, through an L2 norm"
    assert plan.levels[1].source == "place 2 inside layer 12 of the base"
    assert plan.levels[3].source.startswith("extra level behind the base")


@pytest.mark.parametrize("variant", SSDS.names())
def test_usual_levels_are_spelled_out_and_mean_the_same(plan_of, variant):
    free = [f"MODEL.SSDS={variant}", "MODEL.ASPECT_RATIOS=null", "MODEL.STEPS=[]", "MODEL.SIZES=[0.2,0.9]"]
    free += ["MODEL.NETS=mobilenet_v1_S1L0"] if "dual" in variant else []
    usual = plan_of("MODEL.FEATURE_LAYER=null", *free)
    written = plan_of(f"MODEL.FEATURE_LAYER={usual.feature_layer}", *free)
    assert not usual.feature_layer_given and written.feature_layer_given
    assert usual.levels == written.levels
    assert usual.parameters == written.parameters


def test_memory_grows_with_batch_and_largest_image(plan_of):
    few, larger = plan_of("TRAIN.BATCH_SIZE=8").training, plan_of("TRAIN.BATCH_SIZE=8", "TRAIN.IMAGE_SIZES=[96,192]")
    assert larger.training.image_size == (192, 192)
    assert larger.training.fp32["activations"] == pytest.approx(4 * few.fp32["activations"], rel=0.05)
    weights = {few.fp32[part] for part in ("weights", "gradients", "optimizer state", "averaged weights")}
    assert weights == {4 * sum(larger.parameters.values())}


def test_frozen_parts_need_no_gradients(plan_of):
    plan = plan_of("TRAIN.TRAINABLE_SCOPE=loc,conf", "TRAIN.OPTIMIZER.OPTIMIZER=adam", "TRAIN.EMA_DECAY=0")
    learnt = 4 * (plan.parameters["loc"] + plan.parameters["conf"])
    assert plan.training.fp32["gradients"] == learnt
    assert plan.training.fp32["optimizer state"] == 2 * learnt
    assert plan.training.fp32["averaged weights"] == 0


def test_missing_number_of_classes_is_assumed_and_told(small):
    assert "21 classes with the background (assumed" in " ".join(text_of(load_config(small)).split())
    text = text_of(load_config(small, ["MODEL.NUM_CLASSES=4"]))
    assert "4 classes with the background" in " ".join(text.split()) and "MODEL.NUM_CLASSES" not in text


# ------------------------------------------------------------------------------------------------ learning rate


@pytest.mark.parametrize("schedule", [
    {"SCHEDULER": "SGDR", "RESTART_EPOCHS": 3}, {"SCHEDULER": "multi_step", "STEPS": [5, 9], "GAMMA": 0.1},
    {"SCHEDULER": "step", "STEPS": [4], "GAMMA": 0.5}, {"SCHEDULER": "exponential"},
])  # fmt: skip
def test_rates_are_those_of_the_solver(small, schedule):
    overrides = [f"TRAIN.LR_SCHEDULER.{key}={value}" for key, value in schedule.items()]
    cfg = load_config(small, [*overrides, "TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS=2"])
    rule = LearningRate(cfg, 100)
    points = rate_points(cfg, rule)
    steps = [step for step, *_ in points]
    assert all(value == rule.at(step) and epoch == step / 100 for step, epoch, value, _ in points)
    assert steps == sorted(steps) and (steps[0], steps[-1]) == (0, 1999)
    assert 200 in steps  # where the schedule begins
    if schedule["SCHEDULER"] == "multi_step":
        assert {600, 1000} <= set(steps)
        assert rule.at(599) > rule.at(600)


def test_steps_of_an_epoch_count_the_last_batch_and_accumulation(small):
    cfg = load_config(small, ["TRAIN.BATCH_SIZE=8", "TRAIN.ACCUMULATE=2"])
    assert [steps_per_epoch(cfg, images) for images in (1, 16, 17, 33)] == [1, 1, 2, 3]


def test_the_curve_is_the_rule(small):
    rule = LearningRate(load_config(small), 50)
    (line,) = draw_rate(rule, 20, "title").axes[0].lines
    epochs, rates = line.get_data()
    assert (epochs[0], epochs[-1]) == (0, 999 / 50)
    assert list(rates) == [rule.at(round(epoch * 50)) for epoch in epochs]


# --------------------------------------------------------------------------------------------------------- text


def test_every_variant_is_explained():
    assert set(SSDS.names()) <= set(VARIANTS)


FLAT = [name for name, variant in VARIANTS.items() if variant.levels == "tokens" and name in SSDS]


@pytest.mark.parametrize("name", FLAT)
def test_explained_tokens_are_known_to_the_variant(name, plan_of):
    """The message about an unknown token lists the ones there are."""
    net = "mobilenet_v1_S1L0" if "dual" in name else "mobilenet_v1"
    with pytest.raises(UserError) as error:
        plan_of(f"MODEL.SSDS={name}", f"MODEL.NETS={net}", "MODEL.FEATURE_LAYER=[[5,11,13,Q],[256,512,1024,64]]")
    allowed = str(error.value).partition("allowed: ")[2].partition(", or one")[0]
    known = {token.strip("'") for token in allowed.split(", ")}
    assert known <= set(VARIANTS[name].tokens)


def test_base_table_shows_runs_and_taps(small):
    rows = section(text_of(load_config(small, ["MODEL.NETS=vgg16", "MODEL.SSDS=ssd",
        "MODEL.FEATURE_LAYER=[[20,22,34,S],[512,512,1024,64]]"])), "BASE NETWORK")  # fmt: skip
    rows = [" ".join(row.split()) for row in rows]
    assert "10-15 3 x conv 3x3 + ReLU 4 256 24 x 24 24-40" in rows
    assert "17-20 2 x conv 3x3 + ReLU 8 512 12 x 12 60-76 <- level 0" in rows  # a tapped layer ends its run
    assert "21-22 conv 3x3 + ReLU 8 512 12 x 12 92 <- level 1" in rows
    assert "31-32 conv 3x3, dilation 6 + ReLU 16 1024 6 x 6 420" in rows


OTHERS = [
    ("fssd_lite", "mobilenet_v1_025", "[[[5,11,13],[64,128,256]],[['',S,S,''],[64,64,64,64]]]"),
    ("yolo_v3", "mobilenet_v1_025", "[[[B],[11,B],[5,B]],[[64],[32,64],[32,64]]]"),
    ("fpn", "resnet_18", "null"),
    ("rfb", "vgg16", "null"),
    ("ssd_lite_dual", "mobilenet_v1_S1L0", "null"),
]


@pytest.mark.parametrize(("name", "net", "layers"), OTHERS)
def test_every_kind_of_variant_fits_a_terminal(small, name, net, layers):
    if name not in SSDS:
        pytest.skip(f"{name} is not there")
    cfg = load_config(small, [f"MODEL.SSDS={name}", f"MODEL.NETS={net}", f"MODEL.FEATURE_LAYER={layers}",
        "MODEL.ASPECT_RATIOS=null", "MODEL.STEPS=[]", "MODEL.SIZES=[0.2,0.9]"])  # fmt: skip
    lines = text_of(cfg).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isascii() for line in lines)


# ------------------------------------------------------------------------------------------------------ command


def test_command_prints_and_writes_the_same_facts(small, tmp_path, capsys):
    out, facts = tmp_path / "pictures", tmp_path / "facts" / "plan.json"
    options = ["--cfg", str(small), "--out", str(out), "--json", str(facts), "--images", "640"]
    assert main([*options, "MODEL.NECK_WIDTH=64"]) == 0
    text = capsys.readouterr().out
    titles = ["Plan of", "BASE NETWORK", "WHAT FEATURE_LAYER", "LEVELS", "COST", "MEMORY", "LEARNING RATE", "FINDINGS"]
    assert all(part.startswith(title) for part, title in zip(text.split("\n\n"), titles, strict=True))
    assert (out / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    plan = json.loads(facts.read_text())
    assert plan["plan of"] == str(small)
    assert [level["map"] for level in plan["levels"]] == [[12, 12], [6, 6], [3, 3], [2, 2]]
    assert plan["findings"][0].startswith("MODEL.NECK_WIDTH")
    assert plan["rate"]["steps_per_epoch"] == 20
    assert f"{sum(plan['parameters'].values()):,}" in text
    assert main(options) == 0  # its own file may be written again
    assert json.loads(facts.read_text())["findings"] == []


def test_picture_goes_to_the_run_by_default(small, tmp_path, capsys):
    assert main(["--cfg", str(small)]) == 0
    assert (tmp_path / "run" / "plan" / "learning_rate.png").exists()
    assert "10,000 images (assumed" in capsys.readouterr().out


def test_the_same_configuration_prints_the_same(small, capsys):
    texts = []
    for _ in range(2):
        main(["--cfg", str(small)])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_warnings_of_the_file_are_findings(small, capsys):
    small.write_text(small.read_text() + "DEVICE_ID: 0\n")
    assert main(["--cfg", str(small)]) == 0
    captured = capsys.readouterr()
    assert "DEVICE_ID" in captured.out and "FINDINGS  1" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("words", [
    ["MODEL.NETTS=x"], ["MODEL.NETS=mobilenet"], ["MODEL.FEATURE_LAYER=[[],[]]"], ["MODEL.STEPS=[[8,8]]"],
    ["TRAIN.TRAINABLE_SCOPE=bsae"], ["--images", "0"], ["--images", "many"], ["--jsn", "x"],
])  # fmt: skip
def test_what_cannot_be_built_is_one_line(small, capsys, words):
    assert main(["--cfg", str(small), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error: ") == 1 and "Traceback" not in captured.err


def test_other_files_are_not_overwritten(small, tmp_path, capsys):
    notes = tmp_path / "notes.json"
    for content in ("my notes\n", "[1]\n", "3\n"):
        notes.write_text(content)
        assert main(["--cfg", str(small), "--json", str(notes)]) == 2
        assert notes.read_text() == content
    assert main(["--cfg", str(small), "--out", str(notes)]) == 2
    assert "--out" in capsys.readouterr().err


def test_the_log_is_as_before(small):
    logger = logging.getLogger("lib")
    before = list(logger.handlers), logger.propagate
    make_plan(load_config(small))
    assert (list(logger.handlers), logger.propagate) == before
