import pickle

import pytest
import torch

from lib.config import load_config
from lib.modeling.model_builder import create_model
from lib.solver import checkpoint as ckpt
from lib.utils.errors import UserError


@pytest.fixture(scope="module")
def build():
    cfg = load_config(
        None, ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.NUM_CLASSES=4", "MODEL.IMAGE_SIZE=64"]
    )

    def build(seed=0, classes=4):
        torch.manual_seed(seed)
        cfg.MODEL.NUM_CLASSES = classes
        return create_model(cfg)

    return build


def family_state(model, prefix=""):
    """The model's state dict in the names of published checkpoints."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        for word, ours in ckpt.FAMILY_PREFIXES.items():
            if name.startswith(ours + "."):
                name = word + name[len(ours) :]
                break
        renamed[prefix + name] = tensor.clone()
    return renamed


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "iteration": 3}])
def test_published_names_fill_the_whole_model(build, tmp_path, prefix, wrap):
    source, model = build(1), build(2)
    torch.save(wrap(family_state(source, prefix)), tmp_path / "w.pth")
    report = ckpt.load_weights(model, tmp_path / "w.pth")
    assert report.complete and not report.unexpected
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_scope_fills_only_its_parts(build, tmp_path):
    source, model, untouched = build(1), build(2), build(2)
    torch.save(family_state(source), tmp_path / "w.pth")
    report = ckpt.load_weights(model, tmp_path / "w.pth", "base,norm")
    for name, tensor in model.state_dict().items():
        inside = name.startswith(("backbone.", "neck.norm"))
        assert torch.equal(tensor, (source if inside else untouched).state_dict()[name])
    assert report.out_of_scope and not report.complete


def test_other_number_of_classes_is_reported_and_left_alone(build, tmp_path):
    model, before = build(2), build(2)
    torch.save(family_state(build(1, classes=21)), tmp_path / "w.pth")
    report = ckpt.load_weights(model, tmp_path / "w.pth")
    assert {name.split(".")[1] for name, _, _ in report.mismatched} == {"conf"}
    assert torch.equal(model.head.conf[0].weight, before.head.conf[0].weight)
    assert "of another shape (head.conf.0.weight [126, " in str(report)
    with pytest.raises(UserError, match="does not fit the model"):
        report.require_complete()


def test_old_files_without_batch_counters_are_complete(build, tmp_path):
    state = {k: v for k, v in family_state(build(1)).items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    assert ckpt.load_weights(build(2), tmp_path / "w.pth").complete


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code from a checkpoint ran')",))


def bad_files(folder):
    (folder / "code.pth").write_bytes(pickle.dumps({"base.0.weight": Harmful()}))
    torch.save({"a": torch.ones(3)}, folder / "whole.pth")
    (folder / "cut.pth").write_bytes((folder / "whole.pth").read_bytes()[:300])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("not weights")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"epoch": 3}, folder / "weightless.pth")
    torch.save({"backbone.layers.0.x": torch.ones(3)}, folder / "foreign.pth")
    torch.save({"format": 99, "model": {}}, folder / "newer.pth")
    (folder / "folder.pth").mkdir()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("code.pth", "refused, because reading it would run code"),
        ("cut.pth", "not a readable checkpoint"),
        ("empty.pth", "not a readable checkpoint"),
        ("text.pth", "no checkpoint at all"),
        ("list.pth", "holds a list"),
        ("weightless.pth", "holds no weights (its entries: epoch)"),
        ("foreign.pth", "no tensor of the file fits"),
        ("newer.pth", "written by a newer version"),
        ("folder.pth", "is a folder"),
        ("whole.pt", "no such checkpoint; did you mean 'whole.pth'?"),
    ],
)
def test_bad_files_are_one_clear_line(build, tmp_path, name, expected):
    bad_files(tmp_path)
    with pytest.raises(UserError) as error:
        ckpt.load_weights(build(), tmp_path / name)
    assert expected in str(error.value) and name.split(".")[0] in str(error.value) and "\n" not in str(error.value)


def test_a_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    ckpt.save_atomically({"x": 1}, tmp_path / "w.pth")
    assert ckpt.read_checkpoint("~/w.pth") == {"x": 1}
    with pytest.raises(UserError, match="no such checkpoint"):
        ckpt.read_checkpoint("~nobody-of-that-name/w.pth")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    ckpt.save_atomically({"x": 1}, path)

    def half(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError):
        ckpt.save_atomically({"x": 2}, path)
    assert ckpt.read_checkpoint(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


WEIGHTS = {"a.weight": torch.linspace(-1, 1, 35).view(7, 5), "a.bias": torch.arange(6.0)}


@pytest.mark.parametrize(
    "content", [WEIGHTS, {"format": 1, "model": WEIGHTS, "config": {"SEED": 1}}], ids=["weights", "run"]
)
def test_a_flipped_bit_is_noticed_wherever_it_changes_what_is_read(tmp_path, content):
    path = tmp_path / "a.pth"
    ckpt.save_atomically(content, path)
    data, noticed = path.read_bytes(), 0
    folder, size = (8 * (data.index(b"PK\x01\x02") + at) + bit for at, bit in ((38, 4), (24, 6)))
    bits = [folder, size, *range(0, 8 * len(data), 23)]  # by the first two torch gives what the memory holds
    for bit in bits:
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        try:
            assert same(ckpt.read_checkpoint(path), content), bit
        except UserError as error:
            noticed += "a.pth: not a readable checkpoint" in str(error)
    assert noticed > len(bits) / 2


def same(one, two) -> bool:
    if isinstance(two, dict):
        return isinstance(one, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in two)
    return torch.equal(one, two) if isinstance(two, torch.Tensor) else one == two


def test_weights_that_were_written_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(ckpt.read_checkpoint(tmp_path / "a.pth"), WEIGHTS)


def test_numbered_checkpoints_are_found_in_order_and_old_ones_deleted(tmp_path):
    for name in ("p_epoch_10.pth", "p_epoch_2.pth", "p_epoch_3_iter_7.pth", "q_epoch_1.pth", "best.pth", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert [path.name for _, path in ckpt.epoch_checkpoints(tmp_path, "p")] == [
        "p_epoch_2.pth", "p_epoch_3_iter_7.pth", "p_epoch_10.pth",
    ]  # fmt: skip
    ckpt.delete_old_checkpoints(tmp_path, "p", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pth",
        "notes.txt",
        "p_epoch_10.pth",
        "q_epoch_1.pth",
    ]
    assert ckpt.epoch_checkpoints(tmp_path / "missing") == []
