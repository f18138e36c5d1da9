"""Detectors with memory: what they carry from frame to frame, and what they must not."""

import threading
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from lib.config import load_config
from lib.modeling.asynchronous import AsyncDetector
from lib.modeling.complexity import count_macs, count_parameters
from lib.modeling.model_builder import create_model
from lib.modeling.nets.interleaved import Policy
from lib.utils.errors import UserError
from lib.utils.state import keep_rows, map_state

SIDE = 96
LITE = ["MODEL.SSDS=lstm_ssd_lite", "MODEL.NETS=mobilenet_v1_025",
        "MODEL.FEATURE_LAYER=[[11, 13, S, L, L], [128, 256, 64, 32, 32]]"]  # fmt: skip
SINGLE = ["MODEL.SSDS=lstm_ssd", "MODEL.NETS=mobilenet_v1_025",
          "MODEL.FEATURE_LAYER=[[11, 12, S, S], [128, 256, 64, 64]]"]  # fmt: skip
SEVERAL = [*SINGLE, "MODEL.RNN.CELL_LEVELS=[0, 1, 3]", "MODEL.RNN.CELL_CHANNELS=[24, 64, 16]"]
INTERLEAVED = ["MODEL.SSDS=lstm_ssd_interleaved", "MODEL.NETS=slim_mobilenet_v2_035",
               "MODEL.FEATURE_LAYER=[[17, S, S], [112, 32, 32]]", "MODEL.RNN.CELL_CHANNELS=[16]",
               "MODEL.RNN.INTERVAL=2"]  # fmt: skip
MODELS = {"lite": LITE, "single": SINGLE, "several": SEVERAL, "interleaved": INTERLEAVED}


def build(settings, *more, seed=0):
    """A detector in double precision whose norms have seen something."""
    torch.manual_seed(seed)
    general = ["MODEL.NUM_CLASSES=4", f"MODEL.IMAGE_SIZE={SIDE}", "MODEL.RNN.IN_USE=True"]
    model = create_model(load_config(None, [*settings, *general, *more])).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean, so that one batch is enough
    with torch.no_grad():
        model(video(1, 16, seed)[0])
        for name, parameter in model.named_parameters():
            if name.startswith("head"):
                parameter.mul_(20)
    return model.eval()


def video(num_frames, rows=2, seed=1):
    """Frames [T, B, 3, H, W] of large blots, so that deep maps tell them apart."""
    torch.manual_seed(seed)
    blots = 3 * torch.randn(num_frames * rows, 3, 4, 4, dtype=torch.float64)
    return F.interpolate(blots, SIDE, mode="bilinear").unflatten(0, (num_frames, rows))


def stream(model, clip, first=None, state=None):
    """(loc and conf [T, B, P, .] joined, the last state) of frames one at a time."""
    found = []
    for t, images in enumerate(clip):
        out = model(images, state, None if first is None else first[t : t + 1])
        state = out.state
        found.append(torch.cat([out.loc, out.conf], 2))
    return torch.stack(found), state


def unrolled(model, clip, first=None, state=None):
    first = torch.zeros(clip.shape[:2], dtype=torch.bool) if first is None else first
    out = model(clip.flatten(0, 1), state, first)
    return torch.cat([out.loc, out.conf], 2).unflatten(0, clip.shape[:2]), out.state


def leaves(state):
    found = []
    map_state(found.append, state)
    return found


def assert_same_state(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(MODELS[request.param])


@torch.no_grad()
def test_a_clip_is_its_frames_one_after_another(model):
    clip = video(5)
    whole, end = unrolled(model, clip)
    single, other_end = stream(model, clip)
    torch.testing.assert_close(whole, single, rtol=1e-6, atol=1e-6)
    assert_same_state(end, other_end)


@torch.no_grad()
def test_clips_go_on_from_the_state_of_the_clip_before(model):
    clip = video(6)
    whole, _ = unrolled(model, clip)
    start, state = unrolled(model, clip[:2])
    rest, _ = unrolled(model, clip[2:], state=state)
    torch.testing.assert_close(torch.cat([start, rest]), whole)


@torch.no_grad()
def test_the_past_matters_until_a_video_begins(model):
    clip, other = video(4), video(4, seed=2)
    first = torch.zeros(4, 2, dtype=torch.bool)
    first[2, 1] = True  # row 1 begins a video in the third frame
    mixed = other.clone()
    mixed[2:] = clip[2:]
    found, _ = unrolled(model, clip, first)
    changed, _ = unrolled(model, mixed, first)
    assert not torch.allclose(found[2, 0], changed[2, 0], atol=1e-4)
    torch.testing.assert_close(found[2:, 1], changed[2:, 1])
    torch.testing.assert_close(found[2:, 1:], unrolled(model, clip[2:, 1:])[0])


@torch.no_grad()
def test_rows_do_not_see_each_other(model):
    clip = video(4, rows=3)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(unrolled(model, clip[:, order])[0], unrolled(model, clip)[0][:, order])
    _, state = unrolled(model, clip)
    going_on, _ = stream(model, clip[:1, :2], state=keep_rows(state, 2))
    torch.testing.assert_close(going_on, stream(model, clip[:1], state=state)[0][:, :2])


@torch.no_grad()
def test_not_finite_past_is_forgotten_too(model):
    clip = video(2)
    _, state = unrolled(model, clip)
    broken = map_state(lambda part: part * float("nan") if part.is_floating_point() else part, state)
    begins = torch.ones(1, 2, dtype=torch.bool)
    found, _ = unrolled(model, clip[:1], begins, broken)
    torch.testing.assert_close(found, unrolled(model, clip[:1])[0])


def test_gradient_reaches_the_first_frame_from_the_last(model):
    clip = video(4).requires_grad_()
    found, state = unrolled(model, clip)
    found[-1].square().sum().backward()
    assert clip.grad[0].abs().sum() > 0
    detached = map_state(torch.Tensor.detach, state)
    later = video(2, seed=3).requires_grad_()
    clip.grad = None
    unrolled(model, later, state=detached)[0].square().sum().backward()
    assert clip.grad is None and later.grad[0].abs().sum() > 0


@torch.no_grad()
def test_switched_off_memory_takes_every_frame_as_the_first(model):
    clip = video(3)
    model.switch_memory(False)
    try:
        found, state = stream(model, clip)
        single = torch.stack([stream(model, clip[t : t + 1])[0][0] for t in range(3)])
    finally:
        model.switch_memory(True)
    assert state is None
    torch.testing.assert_close(found, single)


@torch.no_grad()
def test_lstm_layers_without_memory_are_plain_extra_layers():
    recurrent = build(LITE)
    plain = build([*LITE[:2], LITE[2].replace(" L", " S")])
    weights = {name.replace("._conv_dw", ""): tensor for name, tensor in recurrent.state_dict().items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    recurrent.switch_memory(False)
    images = video(1)[0]
    torch.testing.assert_close(recurrent(images).conf, plain(images).conf)
    assert not plain.is_recurrent and plain(images, None, torch.zeros(1, 2, dtype=torch.bool)).state is None


# ------------------------------------------------------------------------------------------------ interleaved


def ran(model, clip, **settings):
    """Which extractor saw each frame of one video: 'L' or 's' for each, from the calls of the extractors themselves."""
    seen = []
    hooks = [
        model.backbone.layers[0].register_forward_hook(lambda *_: seen.append("L")),
        model.backbone.small.register_forward_hook(lambda *_: seen.append("s")),
    ]
    try:
        stream(model, clip, **settings)
    finally:
        for hook in hooks:
            hook.remove()
    return "".join(seen)


@torch.no_grad()
def test_only_the_chosen_extractor_runs_and_the_pattern_goes_on():
    model, clip = build(INTERLEAVED), video(8, rows=1)
    assert ran(model, clip) == "LssLssLs"
    _, state = unrolled(model, clip[:4])
    assert ran(model, clip[4:], state=state) == "ssLs"
    begins = torch.zeros(8, 1, dtype=torch.bool)
    begins[4] = True
    assert ran(model, clip, first=begins) == "LssLLssL"
    for kind, expected in (("large", "LLLLLLLL"), ("small", "ssssssss")):
        model.backbone.policy = Policy(kind)
        assert ran(model, clip) == expected


@torch.no_grad()
def test_single_frames_train_both_extractors_where_they_take_turns_later():
    model, counts = build(INTERLEAVED).train(), {}
    model.switch_memory(False)
    hooks = [
        model.backbone.layers[0].register_forward_hook(lambda _, given, __: counts.update(large=len(given[0]))),
        model.backbone.small.register_forward_hook(lambda _, given, __: counts.update(small=len(given[0]))),
    ]
    for interval, expected in ((9, {"large", "small"}), (0, {"large"})):
        counts.clear()
        model.backbone.training_policy = Policy("fixed", interval)
        model(torch.rand(16, 3, 64, 64, dtype=torch.double))
        assert set(counts) == expected and sum(counts.values()) == 16
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_light_frames_leave_the_carried_memory_untouched():
    model, clip = build(INTERLEAVED), video(3, rows=2)
    _, heavy = stream(model, clip[:1])
    found, light = stream(model, clip[1:], state=heavy)
    assert all(torch.equal(a, b) for a, b in zip(heavy["memory"], light["memory"], strict=True))
    assert light["age"].tolist() == [3, 3] and (light["drift"] > 0).all()
    forgetful, _ = stream(model, clip[1:])
    assert not torch.allclose(found, forgetful, atol=1e-4)
    model.backbone.policy = Policy("small")  # without another extractor it has to remember by itself
    _, before = stream(model, clip[:1])
    _, after = stream(model, clip[1:2], state=before)
    assert not torch.equal(before["memory"][0], after["memory"][0])


@torch.no_grad()
def test_light_frames_change_the_memory_where_they_may():
    model, clip = build([*INTERLEAVED, "MODEL.RNN.SMALL_UPDATES=True"]), video(4, rows=2)
    _, heavy = stream(model, clip[:1])
    _, light = stream(model, clip[1:2], state=heavy)
    assert light["age"].tolist() == [2, 2] and not torch.equal(heavy["memory"][0], light["memory"][0])
    whole, _ = unrolled(model, clip)
    torch.testing.assert_close(whole, stream(model, clip)[0])


@torch.no_grad()
def test_rows_may_disagree_on_the_extractor():
    model, clip = build(INTERLEAVED), video(4, rows=3)
    begins = torch.zeros(4, 3, dtype=torch.bool)
    begins[1, 1] = begins[2, 2] = True
    found, _ = unrolled(model, clip, begins)
    for row in range(3):
        alone, _ = stream(model, clip[:, row : row + 1], begins[:, row : row + 1])
        torch.testing.assert_close(found[:, row : row + 1], alone)


@torch.no_grad()
def test_adaptive_policy_follows_the_drift_of_the_memory():
    model, clip = build(INTERLEAVED), video(8, rows=1)
    model.backbone.policy = Policy("adaptive", interval=2, threshold=0.0)
    assert ran(model, clip) == "LsLsLsLs"
    model.backbone.policy = Policy("adaptive", interval=2, threshold=1e9)
    assert ran(model, clip) == "LssLssLs"
    still = clip[:1].expand(8, -1, -1, -1, -1)
    model.backbone.policy = Policy("adaptive", interval=7, threshold=1e9)
    _, state = stream(model, still)
    model.backbone.policy = Policy("adaptive", interval=7, threshold=float(state["drift"]) * 1.001)
    assert ran(model, still) == "Lsssssss"
    with pytest.raises(ValueError, match="frame to frame"):
        unrolled(model, clip)


def test_training_draws_the_extractor_for_every_row():
    model, clip = build(INTERLEAVED).train(), video(12, rows=4)
    torch.manual_seed(5)
    draws = torch.get_rng_state()
    first = torch.zeros(12, 4, dtype=torch.bool)
    chosen = []
    hook = model.backbone.register_forward_hook(lambda module, given, out: chosen.append(out[0].chosen))
    unrolled(model, clip, first)
    torch.set_rng_state(draws)
    unrolled(model, clip, first)
    hook.remove()
    assert torch.equal(*chosen)
    rows = chosen[0].unflatten(0, (12, 4))
    assert rows[0].all() and 10 < rows[1:].sum() < 34 and not (rows[1:] == rows[1:, :1]).all()


# ------------------------------------------------------------------------------------------------ sizes, mistakes


def costs(path):
    cfg = load_config(path)
    cfg.MODEL.NUM_CLASSES = 31
    with torch.device("meta"):
        model = create_model(cfg).eval()
    return model, sum(count_parameters(model).values()), sum(count_macs(model, cfg.MODEL.IMAGE_SIZE).values())


@pytest.mark.parametrize(
    "name, parameters, macs, priors",
    [
        # Liu and Zhu publish 3.24 M and 1.13 G, and 0.86 M and 0.19 G; the sizes of the priors are not published, and
        # the wide network's heads are not known well enough to meet its figures.
        ("lstm_ssd_mobilenetv1_vid", 3_126_755, 1_150_811_616, 2034),
        ("lstm_ssd_mobilenetv1_050_vid", 865_587, 198_627_760, 1284),
        ("lstm_ssd_mobilenetv1_tf_vid", 4_507_441, 792_047_296, 324),
        ("interleaved_mobilenetv2_vid", 4_771_473, 1_154_449_216, 534),
    ],
)
def test_published_video_models(name, parameters, macs, priors):
    model, *counted = costs(f"experiments/cfgs/video/{name}.yml")
    assert (*counted, len(model.priors)) == (parameters, macs, priors)


def test_light_frames_cost_a_twelfth_of_heavy_ones():
    model, _, heavy = costs("experiments/cfgs/video/interleaved_mobilenetv2_vid.yml")
    model.backbone.policy = Policy("small")
    light = sum(count_macs(model, (320, 320)).values())
    assert light == 93_204_416 and 12 < heavy / light < 13
    extractors = [sum(p.numel() for p in part.parameters()) for part in (model.backbone.layers, model.backbone.small)]
    assert extractors == [3_509_376, 258_784]  # 3.51 M and 0.26 M


@pytest.mark.parametrize(
    "settings, message",
    [
        ([*SINGLE, "MODEL.RNN.CELL_LEVELS=[4]"], "CELL_LEVELS: .4. given; allowed are numbers from 0 to 3"),
        ([*SINGLE, "MODEL.RNN.CELL_LEVELS=[1, 0]"], "ascending"),
        ([*SINGLE, "MODEL.RNN.CELL_CHANNELS=[1, 2]"], "2. given for 1 memories"),
        ([*INTERLEAVED, "MODEL.RNN.CELL_CHANNELS=[18]"], "4 groups: give one number that 4 divides"),
        ([*INTERLEAVED, "MODEL.RNN.SMALL_NETS=slim_mobilenet_v2_035"], "has a stride of 64 pixels of the whole ones"),
        (
            [*INTERLEAVED, "MODEL.RNN.SMALL_NETS=timm/resnet18"],
            "networks of timm .timm/resnet18. cannot be interleaved",
        ),
        ([*INTERLEAVED, "MODEL.RNN.SMALL_NETS=mobilnet"], "MODEL.RNN.SMALL_NETS: 'mobilnet' is unknown"),
        ([*INTERLEAVED, "MODEL.FEATURE_LAYER=[[13, 17, S], [32, 112, 32]]"], "has one level of the base"),
        ([*SINGLE[:2], "MODEL.FEATURE_LAYER=[[11, '12.2', S], [128, 128, 64]]"], "must be a whole layer"),
    ],
)
def test_mistakes_are_told_in_one_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        build(settings)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ asynchronous


def gated(model):
    """The detector with a large extractor that waits until it is let go, and what lets it."""
    gate, extract = threading.Semaphore(0), model.backbone.extract

    def wait(images):
        assert gate.acquire(timeout=10)
        return extract(images)

    model.backbone.extract = wait
    return AsyncDetector(model, nullcontext), gate


def wait_for(detector):
    detector._pending.exception(timeout=10)


@torch.inference_mode()
def test_no_frame_waits_for_the_large_extractor():
    """Its map enters the memory when it is done, and counts from the next frame on."""
    model, clip = build(INTERLEAVED), video(5, rows=1)
    plain = build(INTERLEAVED)
    detector, gate = gated(model)
    try:
        found, state = [], None
        for t, images in enumerate(clip):
            if t == 3:
                gate.release()
                wait_for(detector)
            out = detector(images, state)
            state = out.state
            found.append(torch.cat([out.loc, out.conf], 2))
        assert detector.num_large == 1
        plain.backbone.policy = Policy("fixed", interval=100)
        _, heavy = stream(plain, clip[:1])  # the large extractor began with the first frame
        later, _ = stream(plain, clip[3:], state=heavy)
        torch.testing.assert_close(torch.stack(found[3:]), later)
        plain.backbone.policy = Policy("small")
        for t in range(3):
            torch.testing.assert_close(found[t][None], stream(plain, clip[t : t + 1])[0])
    finally:
        gate.release(10)
        detector.close()


@torch.inference_mode()
def test_a_map_of_another_video_is_dropped():
    model, clip = build(INTERLEAVED), video(2, rows=1)
    detector, gate = gated(model)
    try:
        detector(clip[0])
        gate.release(10)
        wait_for(detector)
        out = detector(clip[1])
        assert detector.num_large == 0 and not out.state["memory"][0].any()
    finally:
        detector.close()
