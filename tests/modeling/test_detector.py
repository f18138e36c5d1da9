"""The assembled detectors: geometry, contract of the forward, and the errors a configuration can meet."""

import pytest
import torch

from lib.config import load_config
from lib.layers.prior_box import num_boxes_per_cell
from lib.modeling.model_builder import create_criterion, create_model, create_postprocess
from lib.modeling.ssds import SSDS
from lib.structures import Target
from lib.utils.errors import UserError


def config(*overrides):
    return load_config(None, ["MODEL.NUM_CLASSES=4", *overrides])


def pairs(*values):
    return str([[v, v] for v in values])


G38 = [
    f"MODEL.STEPS={pairs(8, 16, 32, 64, 100, 300)}",
    f"MODEL.SIZES={pairs(30, 60, 111, 162, 213, 264, 315)}",
    "MODEL.ASPECT_RATIOS=[[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2],[1,2]]",
]
G19 = [
    f"MODEL.STEPS={pairs(16, 32, 64, 100, 150, 300)}",
    f"MODEL.SIZES={pairs(45, 90, 135, 180, 225, 270, 315)}",
    G38[2],
]

# variant, base, FEATURE_LAYER, geometry, classes, priors, parameters: the reference family's figures
REFERENCE = [
    ("ssd", "vgg16", "[[22,34,'S','S','',''],[512,1024,512,256,256,256]]", G38, 21, 11620, 26_515_936),
    ("ssd", "vgg16", "[[22,34,'S','S','',''],[512,1024,512,256,256,256]]", G38, 81, 11620, 35_088_736),
    ("ssd_lite", "mobilenet_v1", "[[11,13,S,S,S,S],[512,1024,512,256,256,128]]", G19, 21, 2990, 7_844_832),
    ("ssd_lite", "mobilenet_v1", "[[11,13,S,S,S,S],[512,1024,512,256,256,128]]", G19, 81, 2990, 16_141_152),
    ("ssd_lite", "mobilenet_v2", "[[13,17,S,S,S,S],[96,320,512,256,256,128]]", G19, 21, 2990, 4_577_792),
    ("ssd_lite_RNN", "mobilenet_v2", "[[13,17,S,S,S,S],[96,320,512,256,256,128]]", G19, 5, 2990, 3_333_120),
    ("ssd_lite_RNN", "mobilenet_v2", "[[13,17,S,S,S],[96,320,512,256,256]]", G19, 5, 2986, 3_240_540),
    ("ssd_lite_RNN", "mobilenet_v2_075", "[[13,17,S],[72,240,512]]", G19, 5, 2916, 1_831_234),
]


@pytest.mark.parametrize("variant, net, layers, geometry, classes, num_priors, num_parameters", REFERENCE)
def test_reference_figures(variant, net, layers, geometry, classes, num_priors, num_parameters):
    cfg = config(
        f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", f"MODEL.FEATURE_LAYER={layers}", *geometry,
        f"MODEL.NUM_CLASSES={classes}",
    )  # fmt: skip
    model = create_model(cfg)
    assert model.priors.shape == (num_priors, 4)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


@pytest.mark.parametrize(
    "name", ["cut1_train_prune3", "ssd_lite_mobilenetv2_train_voc", "cfgs__ssd_lite_mobilenetv1_train_coco"]
)
def test_parity_with_published_networks(shared, name):
    """loc and conf of the original code for weights and an image that the script of the figures draws."""
    import subprocess
    import sys

    script = shared / "parity" / "check.py"
    result = subprocess.run([sys.executable, str(script), "-k", name], capture_output=True, text=True)
    assert result.stdout.strip().endswith("1 passed, 0 failed"), result.stdout + result.stderr


@pytest.mark.slow
def test_parity_of_vgg(shared):
    test_parity_with_published_networks(shared, "__ssd_vgg16_train")


# The bases of the dual-path variants in the place of others.
TWO_PATHS = {"mobilenet_v1_025": "mobilenet_v1_S1L0", "vgg16": "vgg16_S1L2"}


@pytest.mark.parametrize("variant", SSDS.names())
@pytest.mark.parametrize("net", ["mobilenet_v1_025", "mobilenet_v2_025", "vgg16"])
@pytest.mark.parametrize("size", [(96, 160)])
def test_contract_on_a_non_square_image(variant, net, size):
    """Rows of loc, conf and priors correspond; the output does not depend on the mode or the rest of the batch."""
    if variant.endswith("_dual"):
        net = TWO_PATHS.get(net) or pytest.skip(f"{net} has no variant whose paths could part")
    cfg = config(f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", f"MODEL.IMAGE_SIZE={list(size)}")
    model = create_model(cfg).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        out = model(images)
        alone = model(images[1:])
    assert out.loc.shape == (2, len(model.priors), 4) and out.conf.shape == (2, len(model.priors), 4)
    assert out.state is None and out.priors is model.priors
    assert torch.allclose(out.loc[1], alone.loc[0], atol=1e-4) and torch.allclose(out.conf[1], alone.conf[0], atol=1e-4)


def test_rows_belong_to_the_cells_of_their_priors():
    """A change in one corner of the image moves only outputs whose priors lie near it, on the finest level."""
    cfg = config("MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=[256, 384]")
    model = create_model(cfg).eval()
    with torch.no_grad():
        plain = torch.zeros(1, 3, 256, 384)
        marked = plain.clone()
        marked[:, :, -8:, -8:] = 5.0  # bottom right
        moved = (model(plain).loc - model(marked).loc).abs().sum(2)[0] > 1e-6
    rows = (256 // 16) * (384 // 16) * num_boxes_per_cell([1, 2, 3])
    centres = model.priors[:rows][moved[:rows]][:, :2]
    assert len(centres) and (centres > 0.4).all()
    assert not moved[:rows].all()


def test_priors_do_not_travel_in_the_state_dict():
    model = create_model(config("MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2_025"))
    assert not any("priors" in name for name in model.state_dict())


def test_same_seed_same_weights():
    cfg = config("MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2_025")
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(create_model(cfg).state_dict()["backbone.layers.0.conv.0.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_building_leaves_batch_norm_statistics_fresh():
    model = create_model(config("MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2_025"))
    assert model.training
    assert all((tensor == 0).all() for name, tensor in model.state_dict().items() if name.endswith("running_mean"))


def test_overfits_one_image():
    """A few dozen steps on one picture find both of its objects, where they are and as what they are."""
    torch.manual_seed(0)
    cfg = config(
        "MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2_050", "MODEL.IMAGE_SIZE=96", "POST_PROCESS.IOU_THRESHOLD=0.3"
    )
    model, criterion, postprocess = create_model(cfg), create_criterion(cfg), create_postprocess(cfg)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.55, 0.4, 0.95, 0.9]])
    image = torch.randn(1, 3, 96, 96) * 0.1
    image[:, 0, 10:58, 10:48] += 2
    image[:, 1, 38:86, 53:91] += 2
    targets = [Target(boxes=boxes, labels=torch.tensor([2, 3]))] * 4
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(60):
        losses = criterion(model(image.expand(4, -1, -1, -1)), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = postprocess(model.train()(image.expand(4, -1, -1, -1)))[:1]
    best = found.select(torch.arange(2))
    order = best.labels.argsort()
    assert best.labels[order].tolist() == [2, 3] and best.scores.min() > 0.7
    assert (best.boxes[order] - boxes).abs().max() < 0.06


BAD = [
    (["MODEL.NETS=mobilnet_v2"], "MODEL.NETS: 'mobilnet_v2' is unknown; did you mean 'mobilenet_v2'?"),
    (["MODEL.SSDS=sdd"], "MODEL.SSDS: 'sdd' is unknown; did you mean 'ssd'?"),
    (["MODEL.FEATURE_LAYER=[[22,34,X],[512,1024,512]]"], "'X'"),
    (["MODEL.FEATURE_LAYER=[[22,35],[512,1024]]"], "layers 0 to 34"),
    (["MODEL.FEATURE_LAYER=[[34,22],[1024,512]]"], "ascending"),
    (["MODEL.FEATURE_LAYER=[[22,34],[512,512]]"], "1024 channels, not 512"),
    (["MODEL.FEATURE_LAYER=[[S],[512]]"], "first entry must be a layer of the base"),
    (["MODEL.FEATURE_LAYER=[[S,34],[512,1024]]"], "layers of the base come first"),
    (["MODEL.FEATURE_LAYER=[22,34]"], "two lists"),
    (["MODEL.FEATURE_LAYER=[]"], "expected [tokens, channels], two lists, got []"),
    (["MODEL.SSDS=fpn", "MODEL.FEATURE_LAYER=[]"], "expected [tokens, channels], two lists, got []"),
    (
        [
            "MODEL.NETS=mobilenet_v1_025",
            "MODEL.FEATURE_LAYER=[['12.2',13,S],[null,256,128]]",
            "MODEL.NORM_IN_TRUNK=true",
        ],
        "MODEL.NORM_IN_TRUNK: the first source, '12.2', lies inside a layer",
    ),
    (["MODEL.FEATURE_LAYER=[[22,34],[512,0]]"], "positive number"),
    (["MODEL.STEPS=[[8,8],[16,16]]"], "MODEL.STEPS has 2 entries, the model 6 levels"),
    (["MODEL.SIZES=[[30,30],[60,60]]"], "MODEL.SIZES has 2 entries"),
    (["MODEL.SIZES=[0.1,0.2,0.3]"], "two fractions"),
    (["MODEL.ASPECT_RATIOS=[[1,[1,2]],[1],[1],[1],[1],[1]]"], "not a mixture"),
    (["MODEL.ASPECT_RATIOS=[[1],[-2],[1],[1],[1],[1]]"], "level 1"),
    (["MODEL.IMAGE_SIZE=60"], "MODEL.IMAGE_SIZE [60, 60] does not pass through vgg16"),
    (["MODEL.NETS=mobilenet_v2_cut", "MODEL.SSDS=ssd_lite", "MODEL.BASE_STRUCTURE=[1,2]"], "has 2 entries; allowed: 7"),
]


@pytest.mark.parametrize("overrides, expected", BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_geometry_is_one_clear_line(overrides, expected):
    usual = ["MODEL.FEATURE_LAYER=[[22,34,'S','S','',''],[512,1024,512,256,256,256]]"]
    if any("FEATURE_LAYER" in o or "cut" in o for o in overrides):
        usual = []
    with pytest.raises(UserError) as error:
        create_model(config(*usual, *overrides))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_levels_beyond_the_shortest_list_are_cut_and_named(caplog):
    cfg = config(
        "MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2", "MODEL.FEATURE_LAYER=[[13,17,S,S,S],[96,320,512,256]]",
        "MODEL.ASPECT_RATIOS=[[1],[1],[1],[1],[1],[1]]",
    )  # fmt: skip
    model = create_model(cfg)
    assert len(model.neck.channels) == 4
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "first 4 levels" in record.getMessage()
    assert "without tokens ['S'] and the last 2 lists of ASPECT_RATIOS" in record.getMessage()


def test_images_of_another_size_get_priors_of_the_same_pixels():
    """Multi-resolution training: boxes stay as large in pixels, in the middle of the cells of the larger map."""
    cfg = config(
        "MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=128",
        "MODEL.FEATURE_LAYER=[[5,11,13],[64,128,256]]", f"MODEL.STEPS={pairs(8, 16, 32)}",
        f"MODEL.SIZES={pairs(16, 32, 64, 100)}", "MODEL.ASPECT_RATIOS=[[1,2],[1,2],[1,2]]",
    )  # fmt: skip
    model = create_model(cfg).eval()
    with torch.no_grad():
        usual, large, tall = (model(torch.zeros(1, 3, *size)) for size in ((128, 128), (192, 192), (256, 128)))
    assert usual.priors is model.priors and model(torch.zeros(1, 3, 192, 192)).priors is large.priors
    for predictions, (height, width) in ((usual, (128, 128)), (large, (192, 192)), (tall, (256, 128))):
        priors, pixels = predictions.priors, predictions.priors * torch.tensor([width, height, width, height])
        assert predictions.loc.shape == (1, len(priors), 4) and predictions.conf.shape == (1, len(priors), 4)
        assert len(priors) == 4 * sum((height // s) * (width // s) for s in (8, 16, 32))
        torch.testing.assert_close(pixels[0, :2], torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(usual.priors[:4, 2:] * 128, large.priors[:4, 2:] * 192)
    assert large.priors.shape != usual.priors.shape


def test_a_training_size_that_does_not_fit_the_network_is_refused():
    with pytest.raises(UserError, match=r"TRAIN.IMAGE_SIZES \[16, 16\] does not pass through vgg16"):
        create_model(config("TRAIN.IMAGE_SIZES=[300, [16, 16]]"))
