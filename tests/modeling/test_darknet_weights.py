"""Darknet's files of weights: the order of what they hold, both forms of the header, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.layers.blocks import conv_bn
from lib.modeling.darknet_weights import read_darknet_weights
from lib.modeling.nets import NETS
from lib.modeling.nets.darknet import DARKNETS
from lib.utils.errors import UserError

HEADERS = {"0.1.0": ([0, 1, 0], "<i4"), "0.2.5": ([0, 2, 5], "<i8"), "1001.2.0": ([1001, 2, 0], "<i4")}


def write(path, values, version="0.2.5"):
    """A file of Darknet's: version, number of images seen, values."""
    numbers, seen = HEADERS[version]
    values = np.concatenate([np.asarray(part, dtype="<f4").ravel() for part in values]) if len(values) else b""
    path.write_bytes(np.array(numbers, "<i4").tobytes() + np.array([32_013_312], seen).tobytes() + bytes(values))
    return path


def random_convolution(generator, in_channels, channels, kernel):
    """bias, weight, mean, variance of the norm, weight of the convolution: what stands in the file for one."""
    norm = [
        generator.normal(size=channels), generator.uniform(0.5, 1.5, channels), generator.normal(size=channels),
        generator.uniform(0.5, 2, channels),
    ]  # fmt: skip
    scale = (in_channels * kernel**2 / 2) ** -0.5
    return [*norm, generator.normal(size=(channels, in_channels, kernel, kernel)) * scale]


# The cfg of Darknet-19 up to its classifier: channels and kernel of the convolutions, a pool as M.
DARKNET_19 = [
    (32, 3), "M", (64, 3), "M", (128, 3), (64, 1), (128, 3), "M", (256, 3), (128, 1), (256, 3), "M",
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3), "M", (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
]  # fmt: skip


def darknet(images, cfg, parts):
    """The network of a cfg, by what stands in its file."""
    parts = iter(parts)
    for entry in cfg:
        if entry == "M":
            images = F.max_pool2d(images, 2, 2)
            continue
        bias, weight, mean, variance, kernel = (torch.tensor(next(parts), dtype=torch.float64) for _ in range(5))
        images = F.conv2d(images, kernel, padding=kernel.shape[-1] // 2)
        images = F.leaky_relu(F.batch_norm(images, mean, variance, weight, bias, eps=1e-5), 0.1)
    return images


def test_the_plain_network_is_darknets_own(tmp_path):
    generator = np.random.default_rng(0)
    parts, channels = [], 3
    for entry in DARKNET_19:
        if entry != "M":
            parts += random_convolution(generator, channels, *entry)
            channels = entry[0]
    parts = [part.astype(np.float32) for part in parts]
    with torch.device("meta"):
        net = NETS.get("darknet_19")()
    net.to_empty(device="cpu")
    weights = read_darknet_weights(write(tmp_path / "x.weights", [*parts, np.ones(1234)]), net)
    assert weights.left_over == 1234
    missing, unexpected = net.load_state_dict(weights.state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing) and not unexpected
    images = torch.rand(1, 3, 32, 64, dtype=torch.float64)
    net.double().eval().emit([16])
    with torch.no_grad():
        ours, theirs = net(images)[0][0], darknet(images, DARKNET_19, parts)
    assert ours.shape == theirs.shape and theirs.abs().max() > 1e-3
    assert (ours - theirs).abs().max() < 1e-9 * theirs.abs().max()


@pytest.mark.parametrize("name", DARKNETS)
def test_all_of_a_base_is_filled_in_the_order_of_its_layers(tmp_path, name):
    """Counting values show where each tensor came from."""
    with torch.device("meta"):
        net = NETS.get(name)()
    total = sum(t.numel() for key, t in net.state_dict().items() if not key.endswith("num_batches_tracked"))
    state, _, left_over = read_darknet_weights(write(tmp_path / "x.conv.1", [np.arange(total, dtype="f4")]), net)
    assert left_over == 0 and set(state) == {k for k in net.state_dict() if not k.endswith("num_batches_tracked")}
    start, convolutions = 0, [name.rpartition(".") for name in state if state[name].dim() == 4]
    convolutions.sort(key=lambda name: [int(part) for part in name[0].split(".") if part.isdigit()])
    for place, *_ in convolutions:
        layer, _, index = place.rpartition(".")
        norm = f"{layer}.{int(index) + 1}"
        for key in (f"{norm}.bias", f"{norm}.weight", f"{norm}.running_mean", f"{norm}.running_var", f"{place}.weight"):
            size = state[key].numel()
            assert state[key].shape == net.state_dict()[key].shape
            assert torch.equal(state[key].flatten(), torch.arange(start, start + size, dtype=torch.float32)), key
            start += size
    assert start == total


@pytest.fixture
def small():
    """A network of one convolution, 3 to 32 channels, whose file holds 992 values."""
    return nn.ModuleDict({"a": nn.Sequential(*conv_bn(3, 32))})


@pytest.mark.parametrize("version", HEADERS)
def test_the_number_of_images_seen_has_32_or_64_bits(tmp_path, small, version):
    path = write(tmp_path / "x.weights", [np.arange(999)], version)
    state, found, left_over = read_darknet_weights(path, small)
    assert (found, left_over) == (version, 7)
    assert state["a.1.bias"][:2].tolist() == [0, 1] and state["a.0.weight"].flatten()[-1] == 991


def test_what_is_no_such_file(tmp_path, small):
    path, total = tmp_path / "x.weights", 992

    def message():
        with pytest.raises(UserError) as caught:
            read_darknet_weights(path, small)
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
        return str(caught.value)

    assert "no such file" in message()
    write(path, [np.ones(total - 1)])
    assert f"too short: it holds {total - 1} values, the base takes {total};" in message()
    values = np.ones(total)
    values[3 * 32 + 5] = -1  # of the variances of the first norm
    write(path, [values])
    assert "of another network: what it has in the place of a.1.running_var" in message()
    for content in (b"", b"\0" * 11, b"<html>not found</html>", b"PK\3\4" * 9, b"version https://git-lfs.github.com"):
        path.write_bytes(content)
        assert "none of Darknet's files of weights" in message()
    write(path, [])
    assert "it holds 0 values" in message()
    path.unlink()
    path.mkdir()
    assert "is a folder" in message()
