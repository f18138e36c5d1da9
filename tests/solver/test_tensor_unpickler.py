"""Files with pickled objects beside their weights: the weights are read, nothing runs."""

import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from lib.solver.checkpoint import read_checkpoint
from lib.solver.tensor_unpickler import load_tensors
from lib.utils.errors import UserError

CONTAINERS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def weights():
    return {"vgg.0.weight": torch.randn(4, 3, 3, 3), "half": torch.randn(5).half(), "steps": torch.tensor(7)}


def old_checkpoint(weights):
    """What training scripts of that time saved: a whole optimizer with state, figures of numpy, a set."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    others = {"optimizer": optimizer, "loss": np.float64(2.5), "curve": np.arange(3), "seen": {1, 2}}
    return {"epoch": 3, "model": weights, "parameter": parameter, "shape": torch.Size([2, 3]), **others}


@CONTAINERS
def test_weights_beside_a_pickled_optimizer_are_read(weights, tmp_path, caplog, as_zip):
    path = tmp_path / "w.pth"
    torch.save(old_checkpoint(weights), path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    content = read_checkpoint(path)
    assert content["epoch"] == 3 and content["shape"] == (2, 3)
    assert content["parameter"].equal(torch.full((3,), 0.9))
    assert all(tensor.equal(content["model"][name]) for name, tensor in weights.items())
    assert all(tensor.dtype == content["model"][name].dtype for name, tensor in weights.items())
    (record,) = caplog.records
    assert "holds more than weights" in record.getMessage() and "numpy" in record.getMessage()


@CONTAINERS
@pytest.mark.parametrize("beside", [True, False])
def test_code_in_a_file_does_not_run(weights, tmp_path, as_zip, beside):
    path, trace = tmp_path / "w.pth", tmp_path / "harmed"
    content = {"model": {"a": Harmful(trace), **(weights if beside else {})}}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    if beside:
        assert read_checkpoint(path)["model"]["half"].equal(weights["half"])
    else:
        with pytest.raises(UserError, match=r"refused, because reading it would run code .* \(posix.mkdir\)"):
            read_checkpoint(path)
    assert not trace.exists()


@CONTAINERS
@pytest.mark.parametrize("content", [torch.nn.Linear(2, 2), {"format": 1, "model": {}, "optimizer": Harmful("x")}])
def test_whole_models_and_runs_with_objects_are_refused(tmp_path, monkeypatch, as_zip, content):
    monkeypatch.chdir(tmp_path)
    if isinstance(content, dict):
        content["model"] = {"w": torch.ones(2)}
    torch.save(content, "w.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UserError, match=r"w.pth: refused, .* a state_dict holds none"):
        read_checkpoint("w.pth")
    assert os.listdir(tmp_path) == ["w.pth"]


def with_pickle(path, weights, pickled: bytes):
    """A file of torch with another pickle in its place."""
    torch.save(weights, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)


@pytest.mark.parametrize(
    "change",
    [b"N}\x8c\x04evil\x8c\x01xs\x86b", b"}\x8c\x04evil\x8c\x01xsb"],
    ids=["slot", "attribute"],
)
def test_a_pickle_cannot_change_what_it_may_call(weights, tmp_path, change):
    with_pickle(tmp_path / "w.pth", weights, b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\n" + change + b".")
    with pytest.raises(pickle.UnpicklingError, match="change a function"):
        load_tensors(tmp_path / "w.pth")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil")


def test_numbers_of_numpy_from_python_2_do_not_stand_in_the_way(weights, tmp_path):
    number = b"cnumpy.core.multiarray\nscalar\n(N" + b"U\x08" + np.float64(0.1).tobytes() + b"tR"
    pickled = b"\x80\x02}(U\x04loss" + number + b"U\x05shapectorch\nSize\n)Ru."
    with_pickle(tmp_path / "w.pth", weights, pickled)
    content, left_out = load_tensors(tmp_path / "w.pth")
    assert content["shape"] == () and left_out == ["numpy.core.multiarray.scalar"]


def with_two_contents(path):
    """Give an archive a second table of contents: zipfile reads the one right before the end, without the last name,
    and torch the one that the end points to."""
    data = path.read_bytes()
    end = data.rfind(b"PK\5\6")
    size, offset = struct.unpack("<II", data[end + 12 : end + 20])
    other = data[offset : offset + size].replace(b"constants", b"otherwise")
    path.write_bytes(data[: offset + size] + other + data[end:])


def test_programs_and_archives_of_other_kinds_are_refused(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        archive.writestr("w/constants.pkl", b"")
    with pytest.raises(pickle.UnpicklingError, match="TorchScript"):
        load_tensors(tmp_path / "w.pth")
    with_two_contents(tmp_path / "w.pth")
    assert not any("constants" in name for name in zipfile.ZipFile(tmp_path / "w.pth").namelist())
    with pytest.raises(pickle.UnpicklingError, match="TorchScript"):
        load_tensors(tmp_path / "w.pth")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "w.pth", "storages")
    with pytest.raises(pickle.UnpicklingError, match="first versions of torch"):
        load_tensors(tmp_path / "w.tar")
