"""Data sets from a server on this machine: what arrives, what outlives an interruption, and what a user is told."""

import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_records
from lib.tools import download as tool
from lib.tools import download_sets, download_unpack
from lib.utils import download
from lib.utils.download import Expected
from tests.dataset.folders import write_image, write_voc
from tests.web import serve

ROOT = Path(__file__).resolve().parents[2]


def tar_of(folder: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(folder, folder.name)
    return file.getvalue()


def zip_of(files: dict) -> bytes:
    """files: {name: bytes}, or {ZipInfo: bytes}."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def zip_of_folder(folder: Path, prefix: str) -> bytes:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return zip_of({f"{prefix}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths})


def coco_json(stem: str) -> bytes:
    categories = [{"id": 1, "name": "person"}]
    images = [{"id": 7, "file_name": f"{stem}.jpg", "height": 60, "width": 80}]
    boxes = [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 30, 20], "area": 600, "iscrowd": 0}]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories}).encode()


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict:
    """Small archives in the layout of the large ones, by file name."""
    folder, found = tmp_path_factory.mktemp("sources"), {}
    for year, sets in (("2007", {"trainval": ["a", "b"]}), ("2007", {"test": ["c"]}), ("2012", {"trainval": ["d"]})):
        shutil.rmtree(folder / "VOCdevkit", ignore_errors=True)
        objects = {stem: [("dog", (11, 21, 41, 51))] for stems in sets.values() for stem in stems}
        write_voc(folder / "VOCdevkit" / f"VOC{year}", sets, objects)
        name = (
            "VOCtest_06-Nov-2007"
            if "test" in sets
            else f"VOCtrainval_{'06-Nov' if year == '2007' else '11-May'}-{year}"
        )
        found[f"{name}.tar"] = tar_of(folder / "VOCdevkit")
    annotations = {f"annotations/instances_{name}2017.json": coco_json(name) for name in ("train", "val")}
    found["annotations_trainval2017.zip"] = zip_of(annotations | {"annotations/captions_train2017.json": b"{}"})
    for name in ("train", "val"):
        image = write_image(folder / f"{name}.jpg").read_bytes()
        found[f"{name}2017.zip"] = zip_of({f"{name}2017/": b"", f"{name}2017/{name}.jpg": image})
    cells = write_voc(folder / "cells", {"trainval": ["e"], "train": ["e"], "test": ["f"]})
    (cells / "LICENSE").write_text("MIT")
    found["BCCD_Dataset.zip"] = zip_of_folder(cells, "BCCD_Dataset-master/BCCD/")
    return found


@pytest.fixture
def server(archives, monkeypatch):
    """The mirror of those archives, whose sizes and checksums the tool is told."""
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(tool, "SPARE", 0)
    for name, data_set in download_sets.SETS.items():
        parts = tuple(
            part._replace(size=len(content), unpacked=len(content), expected=expect(part, content))
            for part in data_set.parts
            if (content := archives.get(part.file_name))
        )
        monkeypatch.setitem(download_sets.SETS, name, data_set._replace(parts=parts))
    monkeypatch.setattr(download_sets, "_VOC2007", download_sets.SETS["voc2007"].parts)
    monkeypatch.setattr(download_sets, "_VOC2012", download_sets.SETS["voc2012"].parts)
    with serve() as server:
        server.files = {f"/{name}": content for name, content in archives.items()}
        yield server


def expect(part, content: bytes) -> Expected:
    if not part.expected.digits:
        return part.expected
    return part.expected._replace(digits=hashlib.new(part.expected.algorithm, content).hexdigest(), size=len(content))


def get(server, name: str, folder: Path, *words: str) -> int:
    return tool.main([name, str(folder), "--mirror", server.address, *words])


def files_of(folder: Path) -> set:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(".download/")}


def records_of(command: str, phase: str, monkeypatch, *words: str):
    """What the printed command would train on or test."""
    monkeypatch.chdir(ROOT)
    program, script, option, config, *overrides = shlex.split(command)
    assert (program, script, option) == ("python", "train.py", "--cfg")
    return create_records(load_config(config, [*overrides, *words]), phase)


def printed_command(capsys) -> str:
    out = capsys.readouterr().out
    assert out.count("To train on it:\n  ") == 1
    return out.rpartition("To train on it:\n  ")[2].strip()


def failure(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and error.endswith("\n")
    return error.rpartition("error: ")[2].rstrip("\n")


def test_voc_arrives_and_the_printed_command_trains_on_it(server, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my data"
    run = f"EXP_DIR={tmp_path / 'run'}"
    assert get(server, "voc2012", folder) == 0
    sets = """'DATASET.TRAIN_SETS=[["2012", "train"]]' 'DATASET.TEST_SETS=[["2012", "val"]]'"""
    assert printed_command(capsys).endswith(sets)
    assert get(server, "voc2007", folder, "--parts", "trainval") == 0
    capsys.readouterr()
    assert get(server, "voc2007", folder) == 0
    command = printed_command(capsys)
    assert "TRAIN_SETS" not in command
    train, test = (records_of(command, phase, monkeypatch, run) for phase in ("train", "test"))
    assert len(train) == 3 and len(test) == 1 and train.num_objects_per_class()[train.class_names.index("dog")] == 3
    assert "VOC2007/JPEGImages/c.jpg" in files_of(folder) and not (folder / "archives").exists()
    assert len(server.paths) == 3

    shutil.rmtree(folder / "VOC2012")
    assert get(server, "voc2007", folder) == 0
    assert len(records_of(printed_command(capsys), "train", monkeypatch, run)) == 2


def test_what_is_there_is_not_fetched_again(server, tmp_path, capsys):
    assert get(server, "voc2007", tmp_path) == 0
    asked, before = len(server.paths), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert get(server, "voc2007", tmp_path) == 0
    assert f"voc2007: there already in {tmp_path}: trainval, test" in capsys.readouterr().out
    assert len(server.paths) == asked and before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    facts = json.loads((tmp_path / ".download" / "done.json").read_text())["voc2007/VOCtest_06-Nov-2007.tar"]
    assert facts["algorithm"] == "md5" and facts["checksum"] == download_sets.SETS["voc2007"].parts[1].expected.digits


def test_coco_arrives_in_its_layout(server, tmp_path, capsys, monkeypatch):
    assert get(server, "coco2017", tmp_path, "--keep-archives", "--parts", "val,annotations") == 0
    assert "To train" not in capsys.readouterr().out
    assert get(server, "coco2017", tmp_path, "--keep-archives") == 0
    assert files_of(tmp_path) == {
        *(f"annotations/{name}2017.json" for name in ("instances_train", "instances_val", "captions_train")),
        *("train2017/train.jpg", "val2017/val.jpg"),
        *(f"archives/{name}.zip" for name in ("annotations_trainval2017", "train2017", "val2017")),
    }
    command = printed_command(capsys)
    for phase, stem in (("train", "train"), ("test", "val")):
        records = records_of(command, phase, monkeypatch, f"EXP_DIR={tmp_path / 'run'}")
        assert records.image_path(0) == str(tmp_path / f"{stem}2017" / f"{stem}.jpg") and len(records.labels) == 1


def test_blood_cells_arrive_without_the_folders_of_the_repository(server, tmp_path, capsys, monkeypatch):
    server.tells_length, server.etag = False, None  # as GitHub
    assert get(server, "bccd", tmp_path) == 0
    assert {"LICENSE", "Annotations/e.xml", "ImageSets/Main/test.txt"} <= files_of(tmp_path)
    command = printed_command(capsys)
    assert len(records_of(command, "train", monkeypatch, f"EXP_DIR={tmp_path / 'run'}")) == 1
    facts = json.loads((tmp_path / ".download" / "done.json").read_text())["refs/heads/master.zip"]
    assert facts["checksum"] == hashlib.sha256(server.files["/BCCD_Dataset.zip"]).hexdigest()


def test_ctrl_c_leaves_what_the_next_command_goes_on_from(server, tmp_path, archives):
    content = archives["VOCtest_06-Nov-2007.tar"]
    server.hold = 5000
    script = f"""
import sys
from lib.tools import download, download_sets
from lib.utils.download import Expected
voc = download_sets.SETS["voc2007"]
parts = (voc.parts[1]._replace(expected=Expected("md5", "{hashlib.md5(content).hexdigest()}", {len(content)})),)
download_sets.SETS["voc2007"] = voc._replace(parts=parts)
sys.exit(download.main(sys.argv[1:]))
"""
    words = ["voc2007", str(tmp_path / "data"), "--parts", "test", "--mirror", server.address]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells let background jobs ignore it
    )  # fmt: skip
    partial = tmp_path / "data" / "archives" / "VOCtest_06-Nov-2007.tar.partial"
    assert server.held.wait(120)
    while not partial.stat().st_size and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == f"interrupted; what has arrived is kept in {tmp_path / 'data'}, the same command goes on\n"

    server.hold, server.sent = None, 0
    have = partial.stat().st_size
    assert get(server, "voc2007", tmp_path / "data", "--parts", "test") == 0
    assert server.ranges[-1] == f"bytes={have}-" and server.sent == len(content) - have < len(content)
    assert "VOC2007/ImageSets/Main/test.txt" in files_of(tmp_path / "data")


def test_a_connection_that_is_always_cut_ends_and_the_next_command_goes_on(server, tmp_path, capsys):
    server.cuts = [4000, 0, 0]
    assert get(server, "voc2012", tmp_path) == 2
    assert "the connection ended after 4000 of " in failure(capsys) and not (tmp_path / "VOC2012").exists()
    assert get(server, "voc2012", tmp_path) == 0
    assert server.ranges[-1] == "bytes=4000-" and "VOC2012/JPEGImages/d.jpg" in files_of(tmp_path)


def test_another_file_than_expected_is_refused(server, tmp_path, capsys):
    name = "/VOCtrainval_11-May-2012.tar"
    right = server.files[name]
    server.files[name] = right[:-1] + b"x"
    assert get(server, "voc2012", tmp_path) == 2
    assert "refused and deleted, what arrived is another file: its md5 is " in failure(capsys)
    assert not files_of(tmp_path)
    server.files[name] = right
    assert get(server, "voc2012", tmp_path) == 0


def test_what_no_server_has(server, tmp_path, capsys):
    server.files = {"/other": b""}
    assert get(server, "voc2012", tmp_path) == 2
    error = failure(capsys)
    assert (
        f"{server.address}/voc2012/VOCtrainval_11-May-2012.tar: cannot be downloaded (the server answers 404 " in error
    )
    assert error.endswith(f"its place is {tmp_path}/archives/VOCtrainval_11-May-2012.tar") and not files_of(tmp_path)


def test_a_mirror_may_have_the_folders_of_the_makers(server, tmp_path):
    server.files = {f"/pub/voc2012{name}": content for name, content in server.files.items()}
    assert get(server, "voc2012", tmp_path, "--mirror", f"{server.address}/pub/") == 0
    assert "VOC2012/JPEGImages/d.jpg" in files_of(tmp_path)


def test_an_archive_that_the_user_put_there_is_used_and_kept(server, tmp_path):
    archive = tmp_path / "archives" / "VOCtrainval_11-May-2012.tar"
    archive.parent.mkdir()
    archive.write_bytes(server.files["/VOCtrainval_11-May-2012.tar"])
    assert get(server, "voc2012", tmp_path) == 0
    assert not server.paths and archive.exists() and (tmp_path / "VOC2012").exists()


def test_an_interrupted_unpacking_does_not_look_whole_and_goes_on(server, tmp_path, monkeypatch):
    write, move_into = download_unpack.Archive._write, tool.move_into
    written, at_move = {}, []

    def stop_at_third(archive, member, target):
        if len(written) == 2:
            raise KeyboardInterrupt
        write(archive, member, target)
        written[target] = target.stat().st_mtime_ns

    with monkeypatch.context() as patch:
        patch.setattr(download_unpack.Archive, "_write", stop_at_third)
        assert get(server, "voc2007", tmp_path) == 130
    assert len(written) == 2 and files_of(tmp_path) == {"archives/VOCtrainval_06-Nov-2007.tar"}

    def look_and_move(source, folder):
        at_move.append({path: path.stat().st_mtime_ns for path in written if path.exists()})
        move_into(source, folder)

    monkeypatch.setattr(tool, "move_into", look_and_move)
    asked = len(server.paths)
    assert get(server, "voc2007", tmp_path) == 0
    assert at_move[0] == written and all("VOCtest" in path for path in server.paths[asked:])
    assert {"VOC2007/JPEGImages/a.jpg", "VOC2007/JPEGImages/c.jpg"} <= files_of(tmp_path)
    assert sorted(os.listdir(tmp_path / ".download")) == ["done.json", "lock"]


def test_an_interrupted_move_goes_on(server, tmp_path, monkeypatch):
    assert get(server, "voc2007", tmp_path, "--parts", "trainval") == 0
    replace, moved = os.replace, []

    def stop_after_one(old, new):
        if "voc2007_test" in str(old) and ".download" not in str(new):
            if moved:
                raise KeyboardInterrupt
            moved.append(new)
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_after_one)
        assert get(server, "voc2007", tmp_path) == 130
    assert moved[0].exists() and not (tmp_path / "VOC2007/ImageSets/Main/test.txt").exists()  # the list comes last
    assert get(server, "voc2007", tmp_path) == 0
    for name in ("Annotations/c.xml", "JPEGImages/c.jpg", "ImageSets/Main/test.txt", "JPEGImages/a.jpg"):
        assert (tmp_path / "VOC2007" / name).exists()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "name, reason",
    [
        ("BCCD-x/BCCD/../../../../evil.txt", "is no path below the folder of the data set"),
        ("/etc/evil.txt", "is no path below"),
        ("..\\evil.txt", "is no path below"),
        (link("BCCD-x/BCCD/Annotations"), "is a link or a device"),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(server, tmp_path, capsys, name, reason):
    server.files["/BCCD_Dataset.zip"] = zip_of({"BCCD-x/BCCD/ImageSets/Main/trainval.txt": b"a", name: b"x"})
    folder = tmp_path / "deep" / "data"
    assert get(server, "bccd", folder) == 2
    error = failure(capsys)
    assert reason in error and "BCCD_Dataset.zip: refused, '" in error
    assert files_of(folder) == {"archives/BCCD_Dataset.zip"} and not os.path.lexists("/etc/evil.txt")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_file_are_refused(tmp_path, kind):
    path, entry = tmp_path / "x.tar", tarfile.TarInfo("VOCdevkit/x")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry)
    with pytest.raises(download_unpack.UserError, match="'VOCdevkit/x' is a link or a device"):
        download_unpack.Archive(path, "(.+)")


def test_a_damaged_archive_is_set_aside_and_fetched_again(server, tmp_path, capsys):
    name = "/BCCD_Dataset.zip"
    right = server.files[name]
    at = right.index(b"\xff\xd8") + 200  # inside a JPEG file
    server.files[name] = right[:at] + bytes([right[at] ^ 255]) + right[at + 1 :]
    assert get(server, "bccd", tmp_path) == 2
    assert "Bad CRC-32" in failure(capsys) and files_of(tmp_path) == {"archives/BCCD_Dataset.zip.wrong"}
    server.files[name] = b"<html>"
    assert get(server, "bccd", tmp_path) == 2
    assert "is no zip or tar file, or damaged" in failure(capsys)
    server.files[name] = zip_of({"readme.txt": b"?"})
    assert get(server, "bccd", tmp_path) == 2
    assert "is another archive, it holds no ImageSets/Main/trainval.txt" in failure(capsys)
    (tmp_path / "archives" / "BCCD_Dataset.zip").unlink()
    server.files[name] = right
    assert get(server, "bccd", tmp_path) == 0


def test_files_of_the_user_are_not_overwritten(server, tmp_path, capsys):
    own = tmp_path / "VOC2007" / "Annotations" / "c.xml"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert get(server, "voc2007", tmp_path) == 2
    assert f"{own}: is there already and differs" in failure(capsys) and own.read_text() == "mine"
    assert "VOC2007/JPEGImages/a.jpg" in files_of(tmp_path) and "VOC2007/JPEGImages/c.jpg" not in files_of(tmp_path)
    own.unlink()
    assert get(server, "voc2007", tmp_path) == 0 and "VOC2007/JPEGImages/c.jpg" in files_of(tmp_path)


def test_a_set_that_came_otherwise_is_left_as_it_is(server, tmp_path, capsys):
    write_voc(tmp_path / "VOC2012", {"trainval": ["mine"]})
    before = files_of(tmp_path)
    assert get(server, "voc2012", tmp_path) == 0
    assert "is there already, not from this command; left as it is, unchecked" in capsys.readouterr().err
    assert not server.paths and files_of(tmp_path) == before


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 20_000_000_000))
    assert tool.main(["coco2017", str(tmp_path / "new")]) == 2
    error = failure(capsys)
    assert "the disk has 20.0 GB free, but about 40.5 GB are needed for annotations, val, train; free some" in error
    assert not (tmp_path / "new").exists()


def test_two_commands_do_not_share_a_folder(server, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".download").mkdir()
    with open(tmp_path / ".download" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert get(server, "voc2012", tmp_path) == 2
    assert "another download to this folder is running" in failure(capsys) and not server.paths


@pytest.mark.parametrize(
    "words, message",
    [
        (["voc", "x"], "'voc' is no data set to download; did you mean 'voc20"),
        (["imagenet", "x"], "allowed: bccd, coco2017, voc2007, voc2012"),
        (["coco2017", "x", "--parts", "train,vall"], "--parts: 'vall' is no part of coco2017; did you mean 'val'?"),
        (
            ["voc2007", "x", "--mirror", "ftp://me:secret@host/"],
            "ftp://me:***@host/: expected an http or https address",
        ),
        (
            ["voc2007", "x", "--mirror", "http://me:secret@host/"],
            "a name or a password before the host is not supported",
        ),
        (["voc2007", __file__], "is a file; it must be a folder"),
        (["voc2007"], "the following arguments are required: DIR"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert tool.main(words) == 2
    error = failure(capsys)
    assert message in error and "secret" not in error and "\n" not in error
    assert not list(tmp_path.rglob("*.partial"))


def test_the_addresses_are_those_of_the_makers():
    found = {
        address for each in download_sets.SETS.values() for part in each.parts for address in each.addresses(part, None)
    }
    assert "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar" in found
    assert "http://images.cocodataset.org/zips/train2017.zip" in found
    assert "http://images.cocodataset.org/annotations/annotations_trainval2017.zip" in found


def test_the_checksums_are_those_of_torchvision():
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    published = [
        (entry["filename"], entry["md5"]) for key in ("2007", "2007-test", "2012") for entry in [DATASET_YEAR_DICT[key]]
    ]
    parts = [*download_sets.SETS["voc2007"].parts, *download_sets.SETS["voc2012"].parts]
    assert [(part.file_name, part.expected.digits) for part in parts] == published
