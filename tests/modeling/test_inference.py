"""A detector made ready to run predicts what the detector itself does, compiled or not, for any number of images."""

import shutil
import threading

import pytest
import torch

from lib.config import load_config
from lib.layers.normalize import Normalize
from lib.modeling import inference
from lib.modeling.inference import COMPILE_WORTH, InferenceNetwork, resolve_compile
from lib.modeling.model_builder import create_model

CPU = torch.device("cpu")
SMALL = ["MODEL.NETS=mobilenet_v1_025", "MODEL.SSDS=ssd_lite", "MODEL.IMAGE_SIZE=64", "MODEL.NUM_CLASSES=4"]
MEMORY = ["MODEL.SSDS=lstm_ssd", "MODEL.RNN.IN_USE=True"]
TWO = ["MODEL.SSDS=lstm_ssd_interleaved", "MODEL.NETS=slim_mobilenet_v2_035", "MODEL.RNN.IN_USE=True",
       "MODEL.RNN.INTERVAL=2"]  # fmt: skip
NORMALIZE = Normalize((100, 110, 120), (50, 60, 70))


@pytest.fixture
def model():
    return detector()


@pytest.fixture
def compiled_shapes(monkeypatch):
    """Takes the place of the compiler: runs what it is given and lists the shapes of the images."""
    shapes, options = [], []

    def compile_nothing(function, **kwargs):
        options.append(kwargs["options"])

        def run(pixels, *others):
            shapes.append(tuple(pixels.shape))
            return function(pixels, *others)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return shapes, options


def detector(*overrides):
    torch.manual_seed(0)
    return create_model(load_config(None, [*SMALL, *overrides])).eval()


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_predicts_what_the_detector_does(model, memory_format):
    images = pixels().contiguous(memory_format=memory_format)
    with torch.no_grad():
        expected = model(NORMALIZE(images))
    found = InferenceNetwork(model, NORMALIZE, CPU)(images)
    torch.testing.assert_close(found.loc, expected.loc, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.conf, expected.conf, atol=1e-4, rtol=1e-4)
    assert not found.loc.requires_grad


@pytest.mark.parametrize("overrides", [[], MEMORY, TWO], ids=["ssd_lite", "lstm_ssd", "interleaved"])
def test_parts_and_frames_are_those_of_the_detector(overrides):
    model = detector(*overrides)
    network, names = InferenceNetwork(model, NORMALIZE, CPU), []

    class Part:
        def __init__(self, name):
            names.append(name)

        def __enter__(self): ...

        def __exit__(self, *_): ...

    state = other = whole = None
    for _ in range(4):
        images = pixels(1)
        with torch.no_grad():
            expected = model(NORMALIZE(images), state)
        state = expected.state
        in_parts = network.run_in_parts(images, other, Part)
        other = in_parts.state
        found = network(images, whole)
        whole = found.state
        for output in (in_parts, found):
            torch.testing.assert_close(output.conf, expected.conf, atol=1e-4, rtol=1e-4)
    assert names == ["normalize", "backbone", "neck", "head"] * 4
    assert network.is_recurrent == bool(overrides)


def test_half_precision_stays_close_and_leaves_the_detector_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = pixels()
    full, half = (InferenceNetwork(model, NORMALIZE, CPU, dtype)(images) for dtype in (None, torch.bfloat16))
    assert 0 < (full.loc - half.loc).abs().max() < 0.05 * full.loc.abs().max()
    assert half.priors.dtype == torch.float32 and torch.equal(half.priors, full.priors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_base_alone_gives_the_maps_that_the_neck_gets(model):
    images = pixels()
    with torch.no_grad():
        expected, _ = model.backbone(NORMALIZE(images))
    found = InferenceNetwork(model, NORMALIZE, CPU).backbone(images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_smaller_last_batch_needs_no_compiling(model, compiled_shapes):
    shapes, options = compiled_shapes
    network, plain = InferenceNetwork(model, NORMALIZE, CPU, None, "default"), InferenceNetwork(model, NORMALIZE, CPU)
    for count in (4, 3, 1):
        images = pixels(count)
        found, expected = network(images), plain(images)
        assert found.conf.shape == expected.conf.shape
        torch.testing.assert_close(found.conf, expected.conf, atol=1e-5, rtol=1e-5)
    assert set(shapes) == {(4, 3, 64, 64)} and options == [None]


def test_frames_with_a_state_are_never_filled_up(compiled_shapes):
    network = InferenceNetwork(detector(*MEMORY), NORMALIZE, CPU, None, "default")
    state = network(pixels(2)).state
    network(pixels(2), state)
    assert network(pixels(1)).conf.shape[0] == 1


def test_warming_up_compiles_once_for_each_kind_of_images(model, compiled_shapes):
    shapes, _ = compiled_shapes
    network = InferenceNetwork(model, NORMALIZE, CPU, None, "max")
    network.warm_up(pixels(2))
    count = len(shapes)
    network.warm_up(pixels(2))
    assert count > 0 and len(shapes) == count
    plain = InferenceNetwork(model, NORMALIZE, CPU)
    plain.warm_up(pixels(2))
    assert len(shapes) == count


def test_a_compiler_that_fails_costs_one_line(model, monkeypatch, caplog):
    def broken(function, **kwargs):
        def run(*inputs):
            raise RuntimeError("\nfatal error: Python.h: No such file or directory\nand a page more")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    network, plain = InferenceNetwork(model, NORMALIZE, CPU, None, "default"), InferenceNetwork(model, NORMALIZE, CPU)
    images = pixels()
    assert torch.equal(network(images).conf, plain(images).conf) and torch.equal(network(images).loc, plain(images).loc)
    assert network.compile_mode == "none" and "not compiled" in network.describe()
    (line,) = caplog.messages
    assert line.startswith("MODEL.COMPILE: compiling failed (fatal error: Python.h")
    assert "a page more" not in line


def test_threads_compile_once_and_get_the_same(model, monkeypatch):
    running, most = [0], [0]

    def slow_compile(function, **kwargs):
        done = []

        def run(*inputs):
            if not done:
                running[0] += 1
                most[0] = max(most[0], running[0])
                threading.Event().wait(0.05)
                running[0] -= 1
                done.append(True)
            return function(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", slow_compile)
    network, images = InferenceNetwork(model, NORMALIZE, CPU, None, "default"), pixels()
    found = [None] * 4

    def work(index):
        found[index] = network(images).conf

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most[0] == 1 and all(torch.equal(conf, found[0]) for conf in found)


@pytest.mark.parametrize("choice, count, mode", [
    ("auto", 1, "none"), ("auto", COMPILE_WORTH - 1, "none"), ("auto", COMPILE_WORTH, "default"),
    ("auto", None, "default"), ("none", None, "none"), ("default", 1, "default"), ("max", 1, "max"),
])  # fmt: skip
def test_auto_compiles_for_many_images_only(monkeypatch, choice, count, mode):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert resolve_compile(choice, count, CPU) == mode


def test_without_a_compiler_one_line_says_so(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(inference.shutil, "which", lambda name: None)
    assert resolve_compile("auto", None, CPU) == "none" and resolve_compile("auto", 1, CPU) == "none"
    assert caplog.messages == [
        "MODEL.COMPILE: there is no C++ compiler here, so the network runs without being compiled"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], MEMORY, TWO], ids=["ssd_lite", "lstm_ssd", "interleaved"])
def test_compiled_networks_predict_the_same(overrides, caplog):
    model = detector(*overrides)
    network, plain = InferenceNetwork(model, NORMALIZE, CPU, None, "default"), InferenceNetwork(model, NORMALIZE, CPU)
    state = other = None
    for _ in range(4):
        images = pixels(1)
        found, expected = network(images, state), plain(images, other)
        state, other = found.state, expected.state
        torch.testing.assert_close(found.conf, expected.conf, atol=1e-4, rtol=1e-4)
    assert network.compile_mode == "default", caplog.text
