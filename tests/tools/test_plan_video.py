"""The plan tool on recurrent detectors: memory, extractors, stages, and what does not fit together."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from lib.config import load_config
from lib.config.stages import stage_of
from lib.modeling.complexity import count_macs
from lib.modeling.model_builder import create_model
from lib.modeling.nets import Backbone
from lib.modeling.nets.interleaved import Policy
from lib.solver.checkpoint import scope_prefixes
from lib.solver.optim import LearningRate
from lib.solver.stages import epoch_lengths as lengths_of_loaders
from lib.tools import plan_rate
from lib.tools.plan import main, make_plan
from lib.tools.plan_memory import training_memory
from lib.tools.plan_rate import collect_rate, rate_points
from lib.tools.plan_table import WIDTH
from lib.tools.plan_text import format_plan
from lib.tools.plan_video import collect_interleaving, heavy_share, seen_by
from lib.tools.plan_video_findings import find_video_problems
from lib.tools.plan_video_text import extractor_notes
from lib.tools.plan_words import VARIANTS
from lib.utils.errors import UserError
from lib.utils.state import map_state

CFGS = Path(__file__).parents[2] / "experiments/cfgs"

FITTING = """\
MODEL:
  SSDS: {ssds}
  NETS: mobilenet_v1_025
  NUM_CLASSES: 4
  IMAGE_SIZE: [96, 96]
  FEATURE_LAYER: {layers}
  STEPS: {steps}
  SIZES: {sizes}
  ASPECT_RATIOS: {ratios}
  RNN: {{IN_USE: True, USE_LSTM_AFTER_EPOCH: 4, FREEZE_BASE_EPOCHS: 2, BACKPROP_STEPS: 5, FRAMES_IN_VIDEO: 40,
    BATCH_SIZE: 2, {small}}}
TRAIN: {{MAX_EPOCHS: 10, BATCH_SIZE: 8, OPTIMIZER: {{OPTIMIZER: sgd}}, LR_SCHEDULER: {{SCHEDULER: SGDR}}}}
"""
"""Configurations in which everything fits together."""

LITE, CELLS, TWO = "lstm_ssd_lite", "lstm_ssd", "lstm_ssd_interleaved"
LAYERS = {
    "ssd_lite_RNN": "[[11, 13, L], [128, 256, 64]]",
    "lstm_ssd_lite": "[[11, 13, L], [128, 256, 64]]",
    "lstm_ssd": "[[11, 12, S], [128, 256, 64]]",
    TWO: "[[13, S], [256, 64]]",
}


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The file of a variant."""
    folder = tmp_path_factory.mktemp("plans")

    def file_of(ssds):
        last = ssds == TWO  # it has one level less
        lists = {
            "steps": [[16, 16], [32, 32], [48, 48]][last:],
            "sizes": [[20, 20], [36, 36], [60, 60], [80, 80]][last:],
            "ratios": [[1, 2]] * (3 - last),
        }
        small = "SMALL_NETS: mobilenet_v1_025_stride16" if last else ""
        path = folder / f"{ssds}.yml"
        text = FITTING.format(ssds=ssds, layers=LAYERS[ssds], small=small, **lists)
        path.write_text(text + f"EXP_DIR: {folder / 'run'}\n")
        return path

    return file_of


@pytest.fixture(scope="module")
def drawn_of(file_of):
    """(plan, model) of a variant's file with overrides, made once."""

    @cache
    def drawn_of(ssds, *overrides):
        return make_plan(load_config(file_of(ssds), overrides))[:2]

    return drawn_of


@pytest.fixture(scope="module")
def plan_of(drawn_of):
    return lambda *words: drawn_of(*words)[0]


@pytest.fixture(scope="module")
def rate_of(file_of):
    def rate_of(ssds, *overrides, images=None, videos=None):
        return collect_rate(load_config(file_of(ssds), overrides), images, videos)[0]

    return rate_of


@pytest.fixture(scope="module")
def findings_of(file_of, plan_of, rate_of):
    """The findings on keys of MODEL.RNN that change neither the layers nor their number."""

    def findings_of(ssds, *overrides):
        cfg = load_config(file_of(ssds), overrides)
        return find_video_problems(cfg, replace(plan_of(ssds), rate=rate_of(ssds, *overrides)))

    return findings_of


def text_of(plan) -> str:
    return format_plan(plan, Backbone([], []))


def section(text: str, title: str) -> str:
    part = next(part for part in text.split("\n\n") if part.startswith(title))
    return " ".join(part.split())


# ----------------------------------------------------------------------------------------------------- findings


@pytest.mark.parametrize("ssds", LAYERS)
def test_what_fits_together_has_no_findings(plan_of, ssds):
    assert plan_of(ssds).findings == []


def video_findings(path):
    return [finding for finding in make_plan(load_config(path))[0].findings if "RNN" in finding or "no pre" in finding]


def test_a_shipped_file_that_trained_well_has_no_findings():
    assert make_plan(load_config(CFGS / "video/lstm_ssd_resnet18_shapes_video.yml"))[0].findings == []


@pytest.mark.slow
def test_findings_on_shipped_files_are_true():
    """Published files without an 'L' set IN_USE all the same."""
    for path in sorted((CFGS / "video").glob("*.yml")):
        assert not video_findings(path), path
    for path in sorted((CFGS / "lstm").glob("*.yml")):
        cfg, findings = load_config(path), video_findings(path)
        assert len(findings) == (cfg.MODEL.RNN.IN_USE and "L" not in cfg.MODEL.FEATURE_LAYER[0]), path
        assert all("it changes nothing, since ssd_lite_RNN has no 'L' in FEATURE_LAYER" in text for text in findings)


RNN = "MODEL.RNN."
MISFITS = [
    (CELLS, "POLICY=large", "POLICY: not read by lstm_ssd, only by lstm_ssd_interleaved"),
    (CELLS, "SMALL_NETS=mobilenet_v1", "SMALL_NETS: not read by lstm_ssd, only"),
    (LITE, "CELL_LEVELS=[1]", "CELL_LEVELS: not read by lstm_ssd_lite, only by lstm_ssd;"),
    ("ssd_lite_RNN", "CELL_BOUND=none", "CELL_BOUND: not read by ssd_lite_RNN, only by lstm_ssd, "),
    (TWO, "CELL_LEVELS=[0]", "CELL_LEVELS: not read by lstm_ssd_interleaved"),
    (TWO, "CELL_BOUND=none", "CELL_BOUND: none lets the memory in 4 groups grow"),
    (TWO, "TRAIN_POLICY=large", "TRAIN_POLICY: large shows SMALL_NETS no frame"),
    (TWO, "TRAIN_POLICY=small", "TRAIN_POLICY: small shows NETS no frame"),
    (TWO, "ADAPT_THRESHOLD=0.3", "ADAPT_THRESHOLD: not read under POLICY fixed"),
    (TWO, "INTERVAL=0", "INTERVAL: 0 leaves SMALL_NETS no frame under POLICY fixed"),
    (TWO, "INTERVAL=4 POLICY=random", "INTERVAL: not read under POLICY random and TRAIN_POLICY random"),
    (CELLS, "USE_LSTM_AFTER_EPOCH=10", "USE_LSTM_AFTER_EPOCH: 10 of 10 epochs train on stills"),
    (LITE, "IN_USE=False", "IN_USE: False, so the memory of lstm_ssd_lite is built"),
    (CELLS, "FRAMES_IN_VIDEO=4", "FRAMES_IN_VIDEO: 4 frames of a video do not fill a clip of 5"),
    (CELLS, "USE_LSTM_AFTER_EPOCH=0", "FREEZE_BASE_EPOCHS: 2 epochs hold a base that has learnt nothing yet"),
]


@pytest.mark.parametrize(("ssds", "keys", "said"), MISFITS, ids=[f"{ssds}-{keys}" for ssds, keys, _ in MISFITS])
def test_each_misfit_is_found_alone(findings_of, ssds, keys, said):
    (finding,) = findings_of(ssds, *(RNN + key for key in keys.split()))
    assert finding.startswith(RNN + said) and ";" in finding and "\n" not in finding


WITHOUT_L = "MODEL.FEATURE_LAYER=[[11,13,S],[128,256,64]]"
OTHER_MODELS = [
    (TWO, ["MODEL.RNN.IN_USE=False"], "MODEL.RNN.IN_USE: False, so the memory"),
    (CELLS, ["MODEL.SOURCE_NORM=batch"], "MODEL.SOURCE_NORM: not read by lstm_ssd, only by"),
    (
        CELLS,
        ["MODEL.RNN.CELL_LEVELS=[]"],
        "clips from epoch 5 on teach it no more than stills, since lstm_ssd has no l",
    ),
    (LITE, [WITHOUT_L, "MODEL.SSDS=ssd_lite_RNN"], "since ssd_lite_RNN has no 'L' in FEATURE_LAYER; give one"),
    (
        LITE,
        [WITHOUT_L, "MODEL.SSDS=ssd_lite", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=10"],
        "MODEL.RNN.IN_USE: it changes nothing, since ssd_lite has no memory; take lstm_ssd_lite,",
    ),
]


@pytest.mark.parametrize(("ssds", "overrides", "said"), OTHER_MODELS, ids=lambda v: v[-1] if type(v) is list else None)
def test_memory_that_is_missing_or_idle_is_found_alone(plan_of, ssds, overrides, said):
    (finding,) = plan_of(ssds, *overrides).findings
    assert said in finding and ";" in finding


@pytest.mark.parametrize("overrides", [
    ["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "MODEL.PRETRAINED=weights.pth"],
    ["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "RESUME_CHECKPOINT=stills.pth"],
    ["MODEL.RNN.CELL_BOUND=none"],
    ["MODEL.RNN.FRAMES_IN_VIDEO=5"],
])  # fmt: skip
def test_neighbours_of_misfits_stay_quiet(findings_of, overrides):
    assert findings_of(CELLS, *overrides) == []


def test_a_fixed_policy_without_frames_between_never_trains_the_small_extractor(findings_of):
    assert findings_of(TWO, "MODEL.RNN.TRAIN_POLICY=fixed") == []
    clips_alone = ["MODEL.RNN.TRAIN_POLICY=fixed", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=0"]
    assert not any("no frame" in finding for finding in findings_of(TWO, *clips_alone))
    assert any("fixed shows SMALL_NETS no frame" in finding for finding in
               findings_of(TWO, *clips_alone, "MODEL.RNN.INTERVAL=0"))  # fmt: skip


def test_one_frame_at_a_time_is_told_by_the_key_that_asks_for_it(plan_of):
    tiny = ["MODEL.IMAGE_SIZE=64", "MODEL.STEPS=[]", "MODEL.SIZES=[0.4,0.9]", "MODEL.RNN.BATCH_SIZE=1"]
    (finding,) = plan_of(CELLS, *tiny, "MODEL.RNN.BACKPROP_STEPS=1").findings
    assert finding.startswith("MODEL.RNN.BATCH_SIZE: training will fail on 1 image")
    clips_alone = ["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "MODEL.RNN.FREEZE_BASE_EPOCHS=0", "TRAIN.BATCH_SIZE=1"]
    assert plan_of(CELLS, *tiny, *clips_alone).findings == []


# -------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize("ssds", LAYERS)
def test_the_state_is_what_a_frame_leaves_behind(file_of, plan_of, ssds):
    overrides = ["MODEL.RNN.CELL_LEVELS=[0,1,2]"] if ssds == "lstm_ssd" else []
    plan, model = plan_of(ssds, *overrides), create_model(load_config(file_of(ssds), overrides)).eval()
    with torch.inference_mode():
        predictions = model(torch.zeros(2, 3, 96, 96))
    sizes = []
    state = predictions.state["memory"] if ssds == TWO else predictions.state
    map_state(lambda tensor: sizes.append(tensor.nbytes // 2), state)
    assert sum(cell.state_bytes for cell in plan.cells) == sum(sizes)
    assert plan.inference.fp32["state of the videos"] == plan.inference.images * sum(sizes)
    assert [cell.level for cell in plan.cells] == {"lstm_ssd": [0, 1, 2], TWO: [0]}.get(ssds, [2])


def test_cells_of_several_levels(plan_of):
    plan = plan_of("lstm_ssd", "MODEL.RNN.CELL_LEVELS=[1,2]", "MODEL.RNN.CELL_CHANNELS=[96,24]")
    assert [(cell.inputs, cell.channels, cell.map) for cell in plan.cells] == [([256], 96, (3, 3)), ([64], 24, (2, 2))]
    assert sum(cell.parameters for cell in plan.cells) == plan.parameters["neck.cells"]
    assert [level.channels for level in plan.levels] == [128, 96, 24]
    assert "behind it" not in plan.levels[0].source
    assert plan.levels[1].source == "layer 12 of the base; behind it a Bottleneck-LSTM of 96 channels"


def test_layers_behind_the_last_level_are_shown_and_not_built(plan_of):
    plan = plan_of("lstm_ssd")
    assert (len(plan.layers), plan.num_layers) == (14, 13)
    table = section(text_of(plan), "BASE NETWORK")
    assert "of which 13 are built" in table and table.count("not built") == 1
    assert plan_of("lstm_ssd", "MODEL.FEATURE_LAYER=[[11,'/32',S],[128,256,64]]").num_layers == 14


def test_image_sizes_fit_the_layers_that_are_built(plan_of):
    cut = ["MODEL.FEATURE_LAYER=[[5,11,S],[64,128,64]]", "MODEL.STEPS=[]", "MODEL.SIZES=[0.2,0.6]"]
    (finding,) = plan_of(CELLS, *cut, "TRAIN.IMAGE_SIZES=[104,112]").findings
    assert finding.startswith("TRAIN.IMAGE_SIZES: [104, 104]: no multiples of the base's stride of 16 px")


@pytest.mark.parametrize("ssds", [*LAYERS, "fssd_lite", "fpn"])
def test_parts_of_the_cost_are_words_of_the_scope(drawn_of, ssds):
    if ssds in LAYERS:
        plan, model = drawn_of(ssds)
    else:
        words = [f"MODEL.SSDS={ssds}", "MODEL.NETS=mobilenet_v1_025", "MODEL.NUM_CLASSES=4"]
        plan, model, _ = make_plan(load_config(None, words))
    for part in plan.parameters:
        (prefix,) = scope_prefixes(part, model, "TRAIN.TRAINABLE_SCOPE")
        within = [parameter for name, parameter in model.named_parameters() if name.startswith(f"{prefix}.")]
        assert plan.parameters[part] == sum(parameter.numel() for parameter in within), part
    assert sum(plan.parameters.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert set(plan.macs) <= {*plan.parameters, "other"}


# ------------------------------------------------------------------------------------------------- extractors


def test_frames_of_the_published_interleaved_detector():
    """Counts by hand from the layout of the released model: 4.77 M parameters; 1154 M, 93 M and, at 1 of 10, 199 M."""
    plan = make_plan(load_config(CFGS / "video/interleaved_mobilenetv2_vid.yml", ["MODEL.RNN.SMALL_NETS=auto"]))[0]
    facts = plan.interleaving
    assert plan.findings == []
    assert "is what MODEL.RNN.SMALL_NETS auto becomes" in section(text_of(plan), "SMALL NETWORK")
    assert sum(plan.parameters.values()) == 4_771_473
    assert (plan.parameters["base"], plan.parameters["backbone.small"]) == (3_509_376, 258_784)
    frames = [sum(frame.macs.values()) / 1e6 for frame in (facts.heavy, facts.light)]
    assert [round(macs) for macs in (*frames, facts.mean_macs / 1e6)] == [1154, 93, 199]
    assert facts.light.parameters < facts.heavy.parameters < 4_771_473
    assert [layer.map for layer in facts.small_layers][-1] == plan.layers[-1].map == (10, 10)


POLICIES = {"fixed": 1 / 10, "adaptive": 1 / 10, "async": 1 / 10, "random": 1 / 2, "large": 1.0, "small": 0.0}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_is_told_in_words(plan_of, policy):
    plan = plan_of(TWO)
    told = " ".join(extractor_notes(replace(plan, interleaving=replace(plan.interleaving, policy=policy))))
    assert f"Inference, POLICY {policy}: " in told and "Training, TRAIN_POLICY random: " in told
    assert heavy_share(policy, 9, True) == POLICIES[policy]


def test_the_mean_is_that_of_frames_counted_one_by_one(file_of, drawn_of):
    (plan, model), costs = drawn_of(TWO), []
    facts = collect_interleaving(load_config(file_of(TWO), ["MODEL.RNN.POLICY=random"]), model)
    for kind in ("large", "small"):
        with seen_by(model, kind):
            costs.append(sum(count_macs(model, (96, 96)).values()))
    assert facts.mean_macs == round(sum(costs) / 2)
    assert plan.macs == plan.interleaving.heavy.macs and sum(plan.macs.values()) == costs[0]


@pytest.mark.parametrize("policy", ["fixed", "random", "small"])
def test_the_share_is_that_of_the_policy_itself(policy):
    """Many frames of many videos, as the extractor chooses them."""
    rule, chosen, age = Policy(policy, interval=4), [], torch.zeros(40, dtype=torch.int64)
    torch.manual_seed(0)
    for _ in range(50):
        chosen.append(rule.choose(age, torch.zeros(40)))
        age = torch.where(chosen[-1], 1, age + (age > 0))
    share = float(torch.stack(chosen).float().mean())
    assert share == pytest.approx(heavy_share(policy, 4, True), abs=0.03)


def test_without_memory_every_frame_is_the_first(plan_of):
    assert plan_of(TWO, "MODEL.RNN.IN_USE=False").interleaving.heavy_share == 1


def test_the_small_extractor_is_told(plan_of):
    text = text_of(plan_of(TWO))
    assert "mobilenet_v1_025 and mobilenet_v1_025_stride16, images" in " ".join(text.split())
    assert "It is MODEL.RNN.SMALL_NETS, and sees the image at half its size, 48 x 48" in section(text, "SMALL NETWORK")


# ------------------------------------------------------------------------------------------- training and rate


def kept_by_a_step(cfg, clips: bool) -> int:
    """Bytes that a real forward pass keeps for the backward pass."""
    model = create_model(cfg).train()
    model.switch_memory(clips)
    rnn = cfg.MODEL.RNN
    frames, rows = (rnn.BACKPROP_STEPS, rnn.BATCH_SIZE) if clips else (1, cfg.TRAIN.BATCH_SIZE)
    own = {StorageWeakRef(t.untyped_storage()) for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        kept[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    first = torch.zeros(frames, rows, dtype=torch.bool)
    first[0] = True
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        predictions = model(torch.zeros(frames * rows, 3, *cfg.MODEL.IMAGE_SIZE), None, first if clips else None)
    size = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    del predictions
    return size


@pytest.mark.parametrize("ssds", LAYERS)
@pytest.mark.parametrize("clips", [False, True], ids=["stills", "clips"])
def test_activations_are_those_of_all_frames_of_a_clip(file_of, plan_of, ssds, clips):
    policy = "fixed" if clips else "large"  # of stills the extractors see halves that chance decides
    overrides = [f"MODEL.RNN.TRAIN_POLICY={policy}"] if ssds == TWO else []
    cfg, plan = load_config(file_of(ssds), overrides), plan_of(ssds, *overrides)
    memory = plan.clips if clips else plan.training
    assert (memory.images, memory.frames) == ((10, 5) if clips else (8, 1))
    assert memory.fp32["activations"] == pytest.approx(kept_by_a_step(cfg, clips), rel=0.03)


def test_extractors_that_share_the_frames_share_the_memory(file_of, drawn_of):
    (plan, model), kept = drawn_of(TWO), {}
    for policy in ("large", "small", "random"):
        cfg = load_config(file_of(TWO), [f"MODEL.RNN.TRAIN_POLICY={policy}"])
        kept[policy] = training_memory(cfg, model, plan.rate.stages, clips=True).fp32["activations"]
    assert kept["random"] == pytest.approx((kept["large"] + kept["small"]) / 2)
    assert kept["random"] == plan.clips.fp32["activations"]


@pytest.mark.parametrize("rnn", [
    {}, {"USE_LSTM_AFTER_EPOCH": 0}, {"USE_LSTM_AFTER_EPOCH": 10}, {"FREEZE_BASE_EPOCHS": 0}, {"IN_USE": False},
    {"FREEZE_BASE_EPOCHS": 50},
])  # fmt: skip
def test_stages_are_those_of_the_solver(file_of, rate_of, rnn):
    overrides = [f"MODEL.RNN.{key}={value}" for key, value in rnn.items()]
    cfg = load_config(file_of("lstm_ssd"), overrides)
    rate = rate_of("lstm_ssd", *overrides, images=100)
    for stage in rate.stages:
        for epoch in range(stage.first, stage.last + 1):
            assert (stage.clips, stage.base_held) == stage_of(cfg, epoch)
    assert [stage.first for stage in rate.stages[1:]] == [stage.last + 1 for stage in rate.stages[:-1]]
    assert (rate.stages[0].first, rate.stages[-1].last) == (1, 10)
    loaders = {False: range(13), True: range(10)}  # 100 images by 8, and by 5 x 2
    expected, lengths = lengths_of_loaders(cfg, loaders), plan_rate.epoch_lengths(cfg, 100)
    assert [lengths.total(epochs) for epochs in range(11)] == [expected.total(epochs) for epochs in range(11)]


def test_points_of_epochs_that_differ_are_those_of_the_rule(file_of):
    cfg = load_config(file_of("lstm_ssd"), ["TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS=2"])
    rule = LearningRate(cfg, plan_rate.epoch_lengths(cfg, 1000))  # 4 x 125 and 6 x 100 steps
    points = rate_points(cfg, rule)
    assert all(value == rule.at(step) and epoch == rule.lengths.epochs_at(step) for step, epoch, value, _ in points)
    named = {what: step for step, _, _, what in points if what}
    assert named["clips begin"] == 500 and named["the base learns again"] == 700
    assert named["after WARM_UP_EPOCHS, SGDR begins"] == 250 and points[-1][0] == 1099
    assert {2.0, 4.0, 6.0, 8.0} <= {epoch for _, epoch, _, _ in points}  # quarters of the cosine, by epochs


@pytest.mark.parametrize(("schedule", "at"), [
    ({"SCHEDULER": "multi_step", "STEPS": [3, 7]}, {250: "STEPS 3", 700: "the base learns again, STEPS 7"}),
    ({"SCHEDULER": "SGDR", "RESTART_EPOCHS": 5, "RESTART_FACTOR": 1}, {600: "restart"}),
])  # fmt: skip
def test_steps_and_restarts_fall_on_the_right_epochs(file_of, schedule, at):
    cfg = load_config(file_of("lstm_ssd"), [f"TRAIN.LR_SCHEDULER.{key}={value}" for key, value in schedule.items()])
    points = rate_points(cfg, LearningRate(cfg, plan_rate.epoch_lengths(cfg, 1000)))
    assert at.items() <= {step: what for step, _, _, what in points}.items()


def test_clips_show_so_many_frames_of_long_videos(plan_of, rate_of):
    steps = [rate_of(CELLS, images=4000, videos=videos).stages[-1].steps_per_epoch for videos in (10, 100, None)]
    assert steps == [40, 400, 400]  # 10 x 40 frames, or all 4000, in clips of 5 x 2
    plan = replace(plan_of(CELLS), rate=rate_of(CELLS, images=4000, videos=10))
    told = section(text_of(plan), "LEARNING RATE")
    assert "4,000 frames in 10 videos, of each of which clips show 40 at most" in told
    assert "taking it that no video has more than the 40 of" in section(text_of(plan_of(CELLS)), "LEARNING RATE")


# --------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("ssds", LAYERS)
def test_everything_fits_a_terminal(plan_of, ssds):
    text = text_of(plan_of(ssds))
    assert max(map(len, text.splitlines())) <= WIDTH and text.isascii()
    rate = section(text, "LEARNING RATE")
    assert "10 epochs: 4 of 1,250 steps, 6 of 1,000 steps" in rate
    assert "5-6 clips of 5 frames of 2 videos held on 1,000" in rate
    assert section(text, "RECURRENT LAYERS").startswith("RECURRENT LAYERS 1, with ")


def test_clips_alone_have_one_table_of_training(plan_of):
    text = text_of(plan_of(CELLS, "MODEL.RNN.USE_LSTM_AFTER_EPOCH=0"))
    memory = section(text, "MEMORY")
    assert memory.count("training, ") == 1 and "training, clips of 5 frames of 2 videos, 96 x 96" in memory
    assert "in proportion to MODEL.RNN.BACKPROP_STEPS times BATCH_SIZE" in memory


def test_stills_have_no_sections_of_videos():
    text = text_of(make_plan(load_config(CFGS / "ssd_lite_mobilenetv1_shapes.yml"))[0])
    assert not any(word in text for word in ("RECURRENT", "SMALL NETWORK", "clips", "heavy", "videos"))


@pytest.mark.parametrize("ssds", LAYERS)
def test_explained_tokens_are_known_to_the_variant(plan_of, ssds):
    """The message about an unknown token lists the ones there are."""
    with pytest.raises(UserError) as error:
        plan_of(ssds, "MODEL.FEATURE_LAYER=[[13,Q],[256,64]]")
    allowed = str(error.value).partition("allowed: ")[2].partition(", or one")[0]
    assert {token.strip("'") for token in allowed.split(", ")} == set(VARIANTS[ssds].tokens)


def test_command_takes_videos_and_writes_all_facts(file_of, tmp_path, capsys):
    facts = tmp_path / "plan.json"
    options = ["--cfg", str(file_of(TWO)), "--out", str(tmp_path), "--json", str(facts)]
    assert main([*options, "--images", "400", "--videos", "2"]) == 0
    plan, text = json.loads(facts.read_text()), capsys.readouterr().out
    assert f"{sum(plan['parameters'].values()):,}" in text
    assert [stage["steps_per_epoch"] for stage in plan["rate"]["stages"]] == [50, 8, 8]
    assert plan["cells"][0]["inputs"] == [256, 256] and plan["cells"][0]["groups"] == 4
    assert plan["interleaving"]["small_net"] == "mobilenet_v1_025_stride16"
    assert plan["clips"]["images"] == 10
    assert main([*options, "--videos", "0"]) == 2
    assert capsys.readouterr().err.count("error: ") == 1
