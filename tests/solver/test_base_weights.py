"""MODEL.PRETRAINED in whole runs: what a fresh run starts from, what later phases see, and what is refused."""

import hashlib
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms import functional as F

from lib.config import load_config
from lib.dataset.transforms import create_transforms
from lib.modeling.model_builder import create_backbone, create_model
from lib.predictor import ObjectDetector
from lib.solver import base_weights
from lib.solver import checkpoint as ckpt
from lib.solver.base_weights import load_base_weights
from lib.solver.solver import Solver
from lib.utils.errors import UserError

V2 = ["MODEL.NETS=mobilenet_v2", "MODEL.NUM_CLASSES=4", "MODEL.SSDS=ssd_lite", "MODEL.IMAGE_SIZE=64"]
V1 = ["MODEL.NETS=mobilenet_v1_025", *V2[1:]]


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.7)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
    return model.eval()


@pytest.fixture(scope="module")
def weights_file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture
def untrained(monkeypatch):
    """Runs whose epochs change nothing, so that their checkpoints hold what they started from."""

    def pass_over(self, task, state, *_):
        state.epoch, state.batch = state.epoch + 1, 0

    monkeypatch.setattr(Solver, "_train_epoch", pass_over)


@pytest.fixture
def fresh_run(tiny, untrained):
    """Function (overrides) -> the solver of a training with mobilenet_v2 that has run."""

    def run(*overrides):
        solver = Solver(tiny("MODEL.NETS=mobilenet_v2", "TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False", *overrides))
        solver.run()
        return solver

    return run


def message_of(model, cfg):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_base_weights(model, cfg)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert "\n" not in str(caught.value) and str(caught.value).startswith("MODEL.PRETRAINED: ")
    return str(caught.value)


def test_a_photograph_gives_torchvisions_features(fresh_run, theirs, weights_file):
    solver = fresh_run(f"MODEL.PRETRAINED={weights_file}")
    bgr = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image, *_ = create_transforms(solver.cfg, train=False)(bgr, np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    images = torch.as_tensor(np.ascontiguousarray(image))
    images = images[None] if images.shape[0] == 3 else images.permute(2, 0, 1)[None]
    rgb = F.to_tensor(np.ascontiguousarray(bgr[:, :, ::-1]))
    expected = F.normalize(rgb, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None].double()
    backbone = solver.model.backbone.double().eval()
    backbone.emit(range(18))
    with torch.no_grad():
        outputs, _ = backbone(solver.normalize(images).double())
        for index, layer in enumerate(theirs.double().features[:18]):
            expected = layer(expected)
            assert (outputs[index] - expected).abs().max() < 1e-5 * expected.abs().max(), index
    theirs.float()


def test_later_phases_need_the_same_stem_and_colors_but_not_the_file(fresh_run, tiny, weights_file, tmp_path):
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights_file.read_bytes())
    fresh_run(f"MODEL.PRETRAINED={copy}", "PHASE=train")
    copy.unlink()
    solver = fresh_run(f"MODEL.PRETRAINED={copy}", "TRAIN.MAX_EPOCHS=2", "PHASE=train,test")
    assert isinstance(solver.model.backbone.layers[0].conv[2], torch.nn.ReLU6)
    path = ckpt.last_checkpoint(tmp_path / "run")
    content = ckpt.read_checkpoint(path)
    assert content["config"]["DATASET"]["COLOR_ORDER"] == "RGB"
    assert content["config"]["MODEL"]["STEM_ACTIVATION"] == "relu6"
    detector = ObjectDetector(tiny("MODEL.NETS=mobilenet_v2", f"MODEL.PRETRAINED={copy}"), path)
    assert isinstance(detector.model.backbone.layers[0].conv[2], torch.nn.ReLU6)
    with pytest.raises(UserError, match="was trained with MODEL.STEM_ACTIVATION relu6, now it is relu;"):
        fresh_run("PHASE=test")
    with pytest.raises(UserError, match="was trained with MODEL.STEM_ACTIVATION relu6, now it is relu;"):
        ObjectDetector(tiny("MODEL.NETS=mobilenet_v2"), path)
    words = ["MODEL.NETS=mobilenet_v2", "MODEL.STEM_ACTIVATION=relu6"]
    assert ObjectDetector(tiny(*words), path).normalize.means.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53]
    )
    with pytest.raises(UserError, match="was trained with DATASET.COLOR_ORDER RGB, now it is BGR;"):
        ObjectDetector(tiny(*words, "DATASET.PIXEL_MEANS=[1, 2, 3]"), path)


@pytest.mark.parametrize("scope", [None, "loc,conf", ""])
def test_the_average_begins_with_them_and_a_checkpoint_goes_on_top(fresh_run, weights_file, tmp_path, scope):
    first = fresh_run(f"EXP_DIR={tmp_path / 'first'}", "SEED=1").model.state_dict()
    resumed = next((tmp_path / "first").glob("*.pth"))
    on_top = [] if scope is None else [f"RESUME_CHECKPOINT={resumed}", f"TRAIN.RESUME_SCOPE={scope}"]
    fresh_run(f"MODEL.PRETRAINED={weights_file}", *on_top)
    content = ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / "run"))
    theirs = torch.load(weights_file, weights_only=True)["features.0.0.weight"]
    for part in ("model", "ema"):
        stem, head = (content[part][name] for name in ("backbone.layers.0.conv.0.weight", "head.loc.0.weight"))
        assert torch.equal(stem, first["backbone.layers.0.conv.0.weight"] if scope == "" else theirs)
        assert torch.equal(head, first["head.loc.0.weight"]) == (scope is not None)


def test_imagenet_takes_the_file_of_torchvision(theirs, weights_file, tmp_path, monkeypatch, caplog):
    name = f"mobilenet_v2-{hashlib.sha256(weights_file.read_bytes()).hexdigest()[:8]}.pth"
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / name).write_bytes(weights_file.read_bytes())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known = {"mobilenet_v2": SimpleNamespace(url=f"http://127.0.0.1:9/models/{name}")}
    monkeypatch.setattr(base_weights, "IMAGENET_WEIGHTS", known)
    cfg = load_config(None, [*V2, "MODEL.PRETRAINED=imagenet"])
    model = create_model(cfg)
    with caplog.at_level(logging.INFO):
        load_base_weights(model, cfg)
    assert torch.equal(model.backbone.layers[17].conv[6].weight, theirs.state_dict()["features.17.conv.2.weight"])
    assert [record.getMessage() for record in caplog.records] == [
        f"base mobilenet_v2: all of its 260 tensors from {cache / name} (torchvision's names)"
    ]


def test_vgg16_needs_the_fully_connected_layers(tmp_path):
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]).state_dict()
    features = {f"features.{name}": tensor[:1].expand_as(tensor) for name, tensor in features.items()}
    torch.save(features, tmp_path / "features.pth")
    row = torch.randn(25088)
    connected = {
        "classifier.0.weight": row.expand(4096, -1), "classifier.0.bias": torch.arange(4096.0),
        "classifier.3.weight": torch.randn(4096).expand(4096, -1), "classifier.3.bias": torch.zeros(4096),
    }  # fmt: skip
    torch.save(features | connected, tmp_path / "whole.pth")
    words = ["MODEL.NUM_CLASSES=4", f"MODEL.PRETRAINED={tmp_path / 'features.pth'}"]
    cfg = load_config(None, words)
    model = create_model(cfg)
    message = message_of(model, cfg)
    assert "4 not in the file (backbone.layers.31.weight, backbone.layers.31.bias, backbone.layers.33" in message
    cfg.MODEL.PRETRAINED = str(tmp_path / "whole.pth")
    load_base_weights(model, cfg)
    assert torch.equal(model.backbone.layers[31].bias, torch.arange(0.0, 4096, 4))
    assert torch.equal(model.backbone.layers[31].weight[7, 5, 1], row.view(512, 7, 7)[5, 3, ::3])


def family_names(model):
    return {name.replace("backbone.layers", "base"): tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_file_in_published_names(tmp_path, caplog, wrap):
    cfg = load_config(None, [*V1, f"MODEL.PRETRAINED={tmp_path / 'w.pth'}"])
    torch.manual_seed(1)
    source, model, before = create_model(cfg), create_model(cfg), create_model(cfg)
    before.load_state_dict(model.state_dict())
    torch.save(wrap(family_names(source)), tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        load_base_weights(model, cfg)
    for name, tensor in model.state_dict().items():
        expected = source if name.startswith("backbone.") else before
        assert torch.equal(tensor, expected.state_dict()[name]), name
    assert "does not say which images its weights expect" in caplog.text and "COLOR_ORDER RGB" in caplog.text
    given = load_config(
        None, [*V1, f"MODEL.PRETRAINED={tmp_path / 'w.pth'}", "DATASET.COLOR_ORDER=BGR", "DATASET.PIXEL_STDS=[1,1,1]"]
    )
    caplog.clear()
    load_base_weights(model, given)
    assert not caplog.records


def test_other_images_than_the_weights_know_are_named(fresh_run, weights_file, tmp_path, caplog):
    cfg = load_config(None, [*V2, f"MODEL.PRETRAINED={weights_file}", "DATASET.PIXEL_STDS=[1,1,1]"])
    with caplog.at_level(logging.WARNING):
        load_base_weights(create_model(cfg), cfg)
    (record,) = caplog.records
    assert "DATASET.PIXEL_STDS is [1.0, 1.0, 1.0], but the weights of " in record.getMessage()
    assert record.getMessage().endswith("expect [58.395, 57.12, 57.375]")
    caplog.clear()
    fresh_run("PHASE=train")
    run = ckpt.last_checkpoint(tmp_path / "run")
    cfg = load_config(None, [*V2, f"MODEL.PRETRAINED={run}", "DATASET.COLOR_ORDER=BGR"])
    logging.getLogger("lib").propagate = True
    with caplog.at_level(logging.WARNING):
        load_base_weights(create_model(cfg), cfg)
    named = sorted(record.getMessage().split(" is ")[0] for record in caplog.records)
    assert named == ["DATASET.PIXEL_MEANS", "DATASET.PIXEL_STDS", "MODEL.STEM_ACTIVATION"]


def test_files_that_do_not_fit(theirs, weights_file, tmp_path):
    cfg = load_config(None, [*V2, f"MODEL.PRETRAINED={tmp_path / 'w.pth'}"])
    model = create_model(cfg)
    state = theirs.state_dict()
    del state["features.3.conv.1.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    assert "1 not in the file (backbone.layers.3.conv.3.weight)" in message_of(model, cfg)
    torch.save(theirs.state_dict() | {"features.9.conv.3.bias": torch.ones(5)}, tmp_path / "w.pth")
    assert "1 of another shape (backbone.layers.9.conv.7.bias [5] for [64])" in message_of(model, cfg)
    torch.save(theirs.state_dict() | {"features.9.conv.3.bias": torch.full((64,), torch.nan)}, tmp_path / "w.pth")
    assert "backbone.layers.9.conv.7.bias holds values that are no numbers" in message_of(model, cfg)
    half = load_config(None, ["MODEL.NETS=mobilenet_v2_050", *V2[1:], f"MODEL.PRETRAINED={weights_file}"])
    assert "of another shape (backbone.layers.0.conv.0.weight [32, 3, 3, 3] for [16, 3, 3, 3]" in message_of(
        create_model(half), half
    )
    for other in ("vgg16", "mobilenet_v1"):
        cfg = load_config(None, [f"MODEL.NETS={other}", *V2[1:], f"MODEL.PRETRAINED={weights_file}"])
        cfg.MODEL.SSDS = "ssd" if other == "vgg16" else "ssd_lite"
        cfg.MODEL.IMAGE_SIZE = [300, 300]
        assert "not in the file (backbone.layers.0." in message_of(create_model(cfg), cfg)


def test_sources_that_are_no_file(tmp_path):
    cfg = load_config(None, [*V2, "MODEL.PRETRAINED=ImageNet1k"])
    model = create_model(cfg)
    assert "'ImageNet1k' is no file; allowed: imagenet, a .pth file, or its http(s) address" in message_of(model, cfg)
    cfg.MODEL.PRETRAINED = str(tmp_path / "none.pth")
    assert "none.pth: no such checkpoint" in message_of(model, cfg)


@pytest.mark.parametrize("net", ["mobilenet_v2_050", "mobilenet_v2_cut", "mobilenet_v1"])
def test_bases_without_torchvision_weights_are_refused_when_built(net):
    with pytest.raises(UserError, match=f"no ImageNet weights for {net}; it has them for vgg16, .*, mobilenet_v2;"):
        create_backbone(load_config(None, [f"MODEL.NETS={net}", "MODEL.PRETRAINED=imagenet"]))


def test_a_resnet_from_torchvision(tmp_path, caplog):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    cfg = load_config(None, ["MODEL.NETS=resnet_18", *V2[1:], f"MODEL.PRETRAINED={tmp_path / 'resnet18.pth'}"])
    model = create_model(cfg)
    with caplog.at_level(logging.INFO):
        load_base_weights(model, cfg)
    assert torch.equal(model.backbone.layers[8].downsample[0].weight, theirs["layer3.0.downsample.0.weight"])
    assert [record.getMessage().split(" ", 2)[2] for record in caplog.records] == [
        f"all of its 75 tensors from {tmp_path / 'resnet18.pth'} (torchvision's names)"
    ]
    cfg = load_config(None, ["MODEL.NETS=resnet_34", *V2[1:], f"MODEL.PRETRAINED={tmp_path / 'resnet18.pth'}"])
    assert "a ResNet of [2, 2, 2] blocks, the base has [3, 4, 6]" in message_of(create_model(cfg), cfg)


@pytest.fixture(scope="module")
def darknet_file(tmp_path_factory):
    """A file for darknet_19 that counts up, with 7 values more."""
    path = tmp_path_factory.mktemp("darknet") / "darknet19.conv.23"
    with torch.device("meta"):
        base = create_backbone(load_config(None, ["MODEL.NETS=darknet_19"]))
    values = sum(t.numel() for name, t in base.state_dict().items() if not name.endswith("num_batches_tracked"))
    header = np.array([0, 2, 0], "<i4").tobytes() + np.array([5], "<i8").tobytes()
    path.write_bytes(header + np.arange(values + 7, dtype="<f4").tobytes())
    return path


def test_a_file_of_darknets(darknet_file, caplog):
    cfg = load_config(None, ["MODEL.NETS=darknet_19", *V2[1:], f"MODEL.PRETRAINED={darknet_file}"])
    assert (cfg.DATASET.COLOR_ORDER, cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS) == ("RGB", [0] * 3, [255] * 3)
    model = create_model(cfg)
    with caplog.at_level(logging.INFO):
        load_base_weights(model, cfg)
    assert model.backbone.layers[0].conv[1].bias[:3].tolist() == [0, 1, 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        f"base darknet_19: all of its 90 tensors from {darknet_file} (Darknet's, version 0.2.0; 7 values behind those "
        "of the base are left)"
    )


def test_files_of_darknets_that_do_not_fit(darknet_file, tmp_path, caplog):
    cfg = load_config(None, [*V1, f"MODEL.PRETRAINED={darknet_file}"])
    assert "Darknet's files fit darknet_19, darknet_53, not mobilenet_v1_025" in message_of(create_model(cfg), cfg)
    short = tmp_path / "yolo.weights"
    short.write_bytes(darknet_file.read_bytes()[:-400])
    cfg = load_config(None, ["MODEL.NETS=darknet_19", *V2[1:], f"MODEL.PRETRAINED={short}"])
    model = create_model(cfg)
    assert f"{short}: too short: " in message_of(model, cfg)
    cfg.MODEL.PRETRAINED = "darknet19"
    assert "allowed: imagenet, a .pth or .weights file, or its http(s) address" in message_of(model, cfg)
    given = ["DATASET.PIXEL_STDS=[1,1,1]", f"MODEL.PRETRAINED={darknet_file}"]
    cfg = load_config(None, ["MODEL.NETS=darknet_19", *V2[1:], *given])
    with caplog.at_level(logging.WARNING):
        load_base_weights(model, cfg)
    (record,) = caplog.records
    assert "DATASET.PIXEL_STDS is [1.0, 1.0, 1.0], but the weights of " in record.getMessage()


@pytest.fixture
def timm_hub(monkeypatch):
    """timm's hub, which has the weights of test_resnet only; gives their state dict."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("test_resnet").state_dict()

    def answer(name, *_, **__):
        if "test_resnet" not in name:
            raise OSError(f"{name} is not to be had.\nTry again later.")
        return dict(theirs)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", answer)
    return theirs


TIMM = ["MODEL.NETS=timm/test_resnet", *V2[1:]]


def test_timms_own_weights(timm_hub, caplog):
    cfg = load_config(None, [*TIMM, "MODEL.PRETRAINED=imagenet", "DATASET.PIXEL_MEANS=[1,2,3]"])
    model = create_model(cfg)
    with caplog.at_level(logging.INFO, logger="lib"):
        load_base_weights(model, cfg)
    own = {name.removeprefix("layers.net."): t for name, t in model.backbone.state_dict().items()}
    assert own and all(torch.equal(tensor, timm_hub[name]) for name, tensor in own.items())
    said = [record.getMessage() for record in caplog.records if record.name.startswith("lib")]
    assert "tensors from timm's hub (timm's names)" in said[1]
    assert said[2:] == [
        "DATASET.PIXEL_MEANS is [1.0, 2.0, 3.0], but the weights of timm's hub expect [127.5, 127.5, 127.5]"
    ]


def test_a_hub_that_does_not_answer_is_told_in_one_line(timm_hub):
    cfg = load_config(None, ["MODEL.NETS=timm/test_efficientnet", *V2[1:], "MODEL.PRETRAINED=imagenet"])
    message = message_of(create_model(cfg), cfg)
    assert "timm cannot fetch the weights of timm/test_efficientnet: timm/test_efficientnet" in message
    assert message.endswith("is not to be had.")


def test_a_file_of_timms(timm_hub, tmp_path, caplog):
    torch.save(timm_hub, tmp_path / "w.pth")
    cfg = load_config(None, [*TIMM, f"MODEL.PRETRAINED={tmp_path / 'w.pth'}"])
    model = create_model(cfg)
    with caplog.at_level(logging.WARNING, logger="lib"):
        load_base_weights(model, cfg)
    assert torch.equal(model.backbone.layers.net.conv1[0].weight, timm_hub["conv1.0.weight"])
    assert not [record for record in caplog.records if record.name.startswith("lib")]
    torch.save({"conv1.0.weight": timm_hub["conv1.0.weight"]}, tmp_path / "w.pth")
    assert "not in the file (backbone.layers.net." in message_of(model, cfg)


def test_a_run_on_a_network_of_timm_goes_on(tiny, timm_hub):
    words = ["MODEL.NETS=timm/test_resnet", "MODEL.PRETRAINED=imagenet", "TRAIN.TRACK_MAP=False"]
    first = Solver(tiny(*words, "TRAIN.MAX_EPOCHS=1"))
    first.run()
    second = Solver(tiny(*words, "TRAIN.MAX_EPOCHS=2", "PHASE=train,test"))
    second.run()
    stem = "backbone.layers.net.conv1.0.weight"
    assert not torch.equal(first.model.state_dict()[stem], second.model.state_dict()[stem])
