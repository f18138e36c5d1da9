"""What the words behind --demo stand for: images, videos, cameras and streams, and how results call each of them."""

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .utils.address import hide_password
from .utils.errors import UserError
from .utils.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, UnreadableSource, pictures_in

KINDS = ("image", "folder", "video", "camera", "time")
WILDCARDS = "*?["


class Source(NamedTuple):
    """An image file, or what a video comes from: a file, a folder of frames, an address, the number of a camera.

    `name` is what results call it: an image by its path below the folder that all sources share, a video without its
    suffix.
    """

    place: Path | str | int
    name: str


@dataclass
class Sources:
    """All that --demo names.  `unusable` tells in words which of it holds nothing, `others` counts the files of
    folders and patterns that are of other kinds."""

    images: list[Source] = field(default_factory=list)
    videos: list[Source] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images) + len(self.videos) + len(self.unusable)


def find_sources(words: list[str], asked: str | None, recursive: bool, out: Path) -> Sources:
    """What `words` name: files, folders, patterns such as 'pics/*.jpg', addresses and numbers of cameras.

    asked: the kind that -t gives, one of KINDS; recursive: whether folders count with those in them, but for `out`.
    UserError for what is not there or of another kind than asked; an empty folder is only unusable.
    """
    found, images, videos, bases = Sources(), [], [], []
    for word in words:
        try:
            for kind, place, base in _expand(word, asked, recursive, out, found):
                (images if kind == "image" else videos).append(place)
                bases += [base] if base is not None else []
        except UnreadableSource as error:
            found.unusable.append(str(error))
    root = os.path.commonpath(bases) if bases else ""
    names = {os.path.abspath(path): path for path in images}  # a file that two words name counts once
    found.images = [Source(path, Path(os.path.relpath(full, root)).as_posix()) for full, path in names.items()]
    taken = set()
    for place in dict.fromkeys(videos):
        plain = _video_name(place, root)
        name = next(name for name in _free_names(plain) if name not in taken)
        taken.add(name)
        found.videos.append(Source(place, name))
    return found


def _expand(word: str, asked: str | None, recursive: bool, out: Path, found: Sources) -> Iterator[tuple]:
    """(image or video, place, the folder that its name leaves out or None) of each source that a word names."""
    if not Path(word).exists() and "://" not in word and any(letter in word for letter in WILDCARDS):
        yield from _expand_pattern(os.path.expanduser(word), asked, recursive, out, found)
        return
    kind, place = _classify(word, asked)
    if kind == "folder":
        for path in _images_below(place, out, found) if recursive else _images_in(place, found):
            yield "image", path, os.path.abspath(place)
    elif isinstance(place, Path):
        yield "image" if kind == "image" else "video", place, os.path.dirname(os.path.abspath(place))
    else:
        yield "video", place, None


def _expand_pattern(pattern: str, asked: str | None, recursive: bool, out: Path, found: Sources) -> Iterator[tuple]:
    matches, parts = sorted(glob.glob(pattern, recursive=True)), Path(pattern).parts
    if not matches:
        raise UserError(f"--demo {pattern}: no file fits this pattern")
    fixed = next(place for place, part in enumerate(parts) if any(letter in part for letter in WILDCARDS))
    base, num_found = os.path.abspath(Path(*parts[:fixed])), 0
    for path in map(Path, matches):
        suffix = path.suffix.lower()
        if asked not in (None, "time"):
            expanded = [(kind, place) for kind, place, _ in _expand(str(path), asked, recursive, out, found)]
        else:
            kind = "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else ""
            expanded = [(kind, path)] if kind else []
            found.others += [] if kind else [path]
        for kind, place in expanded:
            num_found += 1
            yield kind, place, base
    if not num_found:
        raise UnreadableSource(f"--demo {pattern}: fits no image or video but {some_names(matches)}")


def _images_in(folder: Path, found: Sources) -> list[Path]:
    try:
        paths = pictures_in(folder)
    except OSError as error:
        raise UnreadableSource(f"{folder}: cannot be read ({error.strerror})") from None
    known = set(paths)
    found.others += sorted(path for path in folder.iterdir() if path not in known and path.is_file())
    return paths


def _images_below(folder: Path, out: Path, found: Sources) -> list[Path]:
    """The images of a folder and of those in it, but for what an earlier demo put into `out`."""

    def note(error: OSError) -> None:
        found.unusable.append(f"{error.filename}: cannot be read ({error.strerror})")

    images = []
    for place, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if Path(place, name).resolve() != out.resolve())
        for path in sorted(Path(place, name) for name in files):
            (images if path.suffix.lower() in IMAGE_SUFFIXES else found.others).append(path)
    if not images:
        raise UnreadableSource(f"{folder}: neither this folder nor one in it holds an image")
    return images


def _classify(text: str, asked: str | None) -> tuple[str, Path | str | int]:
    """The kind of what a word names (image, folder, video or camera), and the path, address or number."""
    path, is_number = Path(text), text.isascii() and text.isdigit()
    if asked == "camera" and not is_number and not path.is_char_device():
        raise UserError(f"--demo {hide_password(text)}: is not a camera; -t camera takes a number, 0 for the first one")
    if is_number and (asked == "camera" or not path.exists() and asked in (None, "time")):
        return "camera", int(text)
    if "://" in text and asked in (None, "video", "time"):
        return "video", text
    if not path.exists():
        raise UserError(f"--demo {hide_password(text)}: there is no such file or folder")
    if asked in ("image", "folder") and path.is_dir() != (asked == "folder"):
        raise UserError(f"--demo {path}: is a {'folder' if path.is_dir() else 'file'}, but -t says {asked}")
    suffix = path.suffix.lower()
    for kind, suffixes, other in (("image", IMAGE_SUFFIXES, "video"), ("video", VIDEO_SUFFIXES, "image")):
        if asked == other and suffix in suffixes and not path.is_dir():
            raise UserError(f"--demo {path}: {suffix} is the suffix of {kind}s, but -t says {asked}")
    if asked in ("video", "camera"):
        return asked, path
    if path.is_dir():
        return "folder", path
    return "video" if asked != "image" and (suffix in VIDEO_SUFFIXES or path.is_char_device()) else "image", path


def _video_name(place: Path | str | int, root: str) -> str:
    """What a video is called in results and as a file, without a suffix."""
    if isinstance(place, int):
        return f"camera{place}"
    if isinstance(place, str):
        return Path(urlsplit(place).path).stem or "stream"
    relative = Path(os.path.relpath(os.path.abspath(place), root))
    if relative == Path("."):  # the root of the file system
        return "video"
    return (relative if place.is_dir() else relative.with_suffix("")).as_posix()


def _free_names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


def some_names(paths: Sequence) -> str:
    """The names of the first paths, and how many more there are."""
    names = [Path(path).name for path in paths[:4]]
    return ", ".join(names) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
