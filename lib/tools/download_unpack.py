"""Archives that are not trusted: unpacked beside the data set, without a path that leads out, then moved into it."""

import filecmp
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ..dataset.voc_layout import leads_out
from ..utils.download import CHUNK
from ..utils.errors import UserError

_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


MOST_GROWTH = 4
"""A newer version of a data set may be larger than what is known of it, but not by as much as a bomb."""


class Damaged(UserError):
    """An archive that cannot be read to its end."""


class _Member(NamedTuple):
    """A file of an archive: its name there, its place below the data set's folder, its bytes, and how to open it."""

    name: str
    place: str
    size: int
    entry: Any


class Archive:
    """A zip or tar file, of which only the files whose names match `names` are seen, group 1 being their place.

    UserError for an archive with a path that leads out of its folder, a link or a device, and for one that unpacks to
    more than MOST_GROWTH times `unpacked`, the bytes it should (0: nobody knows); Damaged where it cannot be read.
    Used as a context manager.
    """

    def __init__(self, path: Path, names: str, unpacked: int = 0):
        self.path = path
        try:
            self._opened = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.TarFile(path)
            self.members = self._choose(re.compile(names))
        except _DAMAGES as error:
            raise Damaged(f"{path}: is no zip or tar file, or damaged ({error})") from error
        self.size = sum(member.size for member in self.members)
        if unpacked and self.size > MOST_GROWTH * unpacked:
            raise UserError(
                f"{path}: refused, it would unpack to {self.size / 1e6:,.0f} MB, many times the {unpacked / 1e6:,.0f} "
                "MB of the data set"
            )
        self.comment = getattr(self._opened, "comment", b"").decode(errors="replace")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception) -> None:
        self._opened.close()

    def unpack(self, folder: Path) -> None:
        """Write the files below `folder`; those that are there in full, from an unpacking that ended early, stay."""
        with tqdm(
            desc=f"unpacking {self.path.name}", total=self.size, unit="B", unit_scale=True, unit_divisor=1024,
            disable=None, leave=False,
        ) as bar:  # fmt: skip
            for member in self.members:
                target = folder / member.place
                if not (target.is_file() and target.stat().st_size == member.size):
                    self._write(member, target)
                bar.update(member.size)

    def _choose(self, names: re.Pattern) -> list[_Member]:
        found = []
        for name, size, entry, plain in self._entries():
            name = name.replace("\\", "/")
            if leads_out(name):
                raise UserError(f"{self.path}: refused, '{name}' is no path below the folder of the data set")
            if not plain:
                raise UserError(f"{self.path}: refused, '{name}' is a link or a device, not a file")
            match = names.fullmatch(os.path.normpath(name).replace(os.sep, "/")) if entry else None
            if match:
                found.append(_Member(name, match[1], size, entry))
        return found

    def _entries(self) -> Iterator[tuple[str, int, Any, bool]]:
        """(name, bytes, entry or None for a folder, whether it is a file or a folder) of everything."""
        if isinstance(self._opened, zipfile.ZipFile):
            for entry in self._opened.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                yield entry.filename, entry.file_size, None if entry.is_dir() else entry, plain
        else:
            for entry in self._opened.getmembers():
                yield entry.name, entry.size, None if entry.isdir() else entry, entry.isdir() or entry.isreg()

    def _write(self, member: _Member, target: Path) -> None:
        """Write one file, which gets its name when it is whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.tmp")
        try:
            if isinstance(self._opened, zipfile.ZipFile):
                source = self._opened.open(member.entry)
            else:
                source = self._opened.extractfile(member.entry)
            with source, open(unfinished, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
                written = file.tell()
        except _DAMAGES as error:
            raise Damaged(f"{self.path}: is damaged at '{member.name}' ({error})") from error
        if written != member.size:
            raise Damaged(f"{self.path}: is damaged at '{member.name}' ({written} of {member.size} bytes)")
        os.replace(unfinished, target)


def move_into(source: Path, folder: Path) -> None:
    """Move everything below `source` into `folder`, whose own files stay; UserError, and nothing is moved, where one
    of them has the same name and another content.  Lists and annotation files of whole sets come last."""
    moves = list(_moves(source, folder))
    for old, new in sorted(moves, key=lambda move: move[1].suffix in (".txt", ".json")):
        new.parent.mkdir(parents=True, exist_ok=True)
        os.replace(old, new)


def _moves(source: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    for old in sorted(source.iterdir()):
        new = folder / old.name
        if old.is_dir() and new.is_dir():
            yield from _moves(old, new)
        elif not os.path.lexists(new):
            yield old, new
        elif not (old.is_file() and new.is_file() and filecmp.cmp(old, new, shallow=False)):
            raise UserError(f"{new}: is there already and differs from that of the data set; move it away first")
