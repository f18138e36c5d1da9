"""Download a public data set and unpack it as the configurations expect it; the same command goes on after a stop."""

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..commands import run_command
from ..config import CommandLineParser
from ..utils.address import hide_password
from ..utils.download import NotOnServer, digest, fetch_resumable, is_url
from ..utils.errors import UserError, nearest
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .download_sets import SETS, DataSet, Part, next_command
from .download_unpack import Archive, Damaged, move_into
from .reports import program

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.download")

WORK = ".download"
"""Folder of the marker and of what is being unpacked; readers of data sets pass over hidden folders."""
ARCHIVES = "archives"
MARKER = "done.json"
SPARE = 200_000_000  # bytes that are to stay free on the disk


class Target:
    """The folder that a data set is downloaded to, and the marker of which parts are there.

    The marker holds for each part its address, bytes and checksum, and `done`, whether it is unpacked as a whole.
    """

    def __init__(self, folder: Path, data_set: DataSet):
        self.folder, self.data_set = folder, data_set
        self.work, self.marker = folder / WORK, folder / WORK / MARKER
        try:
            self.facts = dict(json.loads(self.marker.read_text(encoding="utf-8")))
        except FileNotFoundError:
            self.facts = {}
        except (ValueError, TypeError):
            raise UserError(f"{self.marker}: is damaged; delete it, and whole parts are left as they are") from None

    def fact(self, part: Part) -> dict:
        return self.facts.get(part.path, {})

    def note(self, part: Part, **facts) -> None:
        self.facts[part.path] = self.fact(part) | facts
        write_whole(self.marker, json.dumps(self.facts, indent=1) + "\n")

    def archive(self, part: Part) -> Path:
        return self.folder / ARCHIVES / part.file_name

    def staging(self, part: Part) -> Path:
        return self.work / f"{self.data_set.name}_{part.name}"

    def is_there(self, part: Part) -> bool:
        """Whether a part is unpacked, by this command or before it."""
        if not (self.folder / part.sign).exists():
            return False
        if not self.fact(part).get("done"):
            if self.staging(part).exists():
                return False
            log.warning(
                "%s: is there already, not from this command; left as it is, unchecked", self.folder / part.sign
            )
        return True

    def bytes_to_come(self, part: Part) -> int:
        """Of the archive of a part, as far as it is known."""
        archive = self.archive(part)
        here = [path.stat().st_size for path in (archive, Path(f"{archive}.partial")) if path.is_file()]
        return max(0, part.size - max(here, default=0))


def provide(target: Target, parts: list[Part], mirror: str | None, keep: bool) -> None:
    """Download and unpack the parts that are not there; `keep` leaves their archives in the folder `archives`."""
    todo = [part for part in parts if not target.is_there(part)]
    names = ", ".join(part.name for part in parts if part not in todo)
    if names:
        log.info("%s: there already in %s: %s", target.data_set.name, target.folder, names)
    if not todo:
        return
    check_space(target.folder, _most_bytes(target, todo, keep), ", ".join(part.name for part in todo))
    target.work.mkdir(parents=True, exist_ok=True)
    with _alone(target.work / "lock"):
        for part in todo:
            _fetch(target, part, mirror)
            _unpack(target, part)
            if not keep and target.fact(part).get("downloaded"):  # an archive that the user put there is the user's
                target.archive(part).unlink()
                with contextlib.suppress(OSError):
                    target.archive(part).parent.rmdir()


def _most_bytes(target: Target, parts: list[Part], keep: bool) -> int:
    """How much the use of the disk will grow at its height."""
    most = used = 0
    for part in parts:
        used += target.bytes_to_come(part) + part.unpacked
        most = max(most, used)
        used -= 0 if keep else part.size
    return most


def check_space(folder: Path, needed: int, what: str) -> None:
    """UserError if the disk of a folder, which need not exist yet, has less than so many bytes free."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + SPARE:
        raise UserError(
            f"{folder}: the disk has {free / 1e9:.1f} GB free, but about {(needed + SPARE) / 1e9:.1f} GB are needed "
            f"for {what}; free some, give another folder, or take fewer --parts"
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps a second command from the same folder, where the system has locks."""
    with open(path, "w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path.parent.parent}: another download to this folder is running") from None
        except OSError:  # a file system without locks
            pass
        yield


def _fetch(target: Target, part: Part, mirror: str | None) -> None:
    """Have the archive of a part."""
    addresses, archive = target.data_set.addresses(part, mirror), target.archive(part)
    for address, following in zip(addresses, [*addresses[1:], None], strict=True):
        try:
            if fetch_resumable(address, archive, part.expected):
                target.note(part, downloaded=True, address=address)
            return
        except NotOnServer as error:
            if following is None:
                hint = "" if mirror else "; --mirror ADDRESS takes the same files from another server"
                raise UserError(f"{error}{hint}") from None
            log.info("%s: is not there; trying %s", address, following)


def _unpack(target: Target, part: Part) -> None:
    """Unpack the archive of a part beside the data set, and move it there when it is whole."""
    archive, staging = target.archive(part), target.staging(part)
    try:
        with Archive(archive, part.names, part.unpacked) as opened:
            there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
            check_space(target.folder, max(0, opened.size - there), f"unpacking {archive}")
            staging.mkdir(exist_ok=True)
            log.info("unpacking %s: %d files, %.2f GB", archive, len(opened.members), opened.size / 1e9)
            opened.unpack(staging)
            num_files, comment = len(opened.members), opened.comment
    except Damaged as error:
        aside = archive.with_name(f"{archive.name}.wrong")
        os.replace(archive, aside)
        shutil.rmtree(staging, ignore_errors=True)
        raise UserError(f"{error}; kept as {aside.name}, the same command downloads it again") from None
    if not (staging / part.sign).exists() and not (target.folder / part.sign).exists():
        raise UserError(f"{archive}: is another archive, it holds no {part.sign}; move it away")
    move_into(staging, target.folder)
    algorithm, digits, _ = part.expected
    compared = "published checksum" if digits else "the zip file's own CRC"
    target.note(
        part, done=True, bytes=archive.stat().st_size, files=num_files, algorithm=algorithm,
        checksum=digits or digest(archive, algorithm), compared_with=compared,
        **({"comment": comment} if comment else {}),  # GitHub names the commit there
    )  # fmt: skip
    shutil.rmtree(staging)


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("download"),
        description="Download a public data set, check it, and unpack it into DIR, which becomes DATASET.DATASET_DIR. "
        "Interrupted, the same command goes on; what is there already stays. Its makers' terms of use apply.",
        epilog="example: %(prog)s voc2007 ./data/VOCdevkit",
    )
    parser.add_argument("set", metavar="SET", help=", ".join(SETS))
    parser.add_argument("folder", metavar="DIR", help="folder of the data set; VOC 2007 and 2012 share one")
    parser.add_argument(
        "--mirror", metavar="ADDRESS", help="http(s) address under which another server has the same files"
    )
    parts = "; ".join(f"{each.name}: {', '.join(part.name for part in each.parts)}" for each in SETS.values())
    parser.add_argument(
        "--parts", metavar="NAMES", help=f"comma list of what to download (default: what training needs). {parts}"
    )
    parser.add_argument("--keep-archives", action="store_true", help="leave the archives in DIR/archives")
    return parser


def download(args) -> None:
    """What the arguments ask for."""
    if args.set not in SETS:
        raise UserError(f"command line: '{args.set}' is no data set to download; {nearest(args.set, SETS)}")
    data_set, folder = SETS[args.set], Path(os.path.expanduser(args.folder))
    parts = data_set.choose(args.parts)
    if args.mirror is not None and not is_url(args.mirror):
        raise UserError(f"--mirror {hide_password(args.mirror)}: expected an http or https address")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; it must be a folder")
    provide(Target(folder, data_set), parts, args.mirror, args.keep_archives)
    command = next_command(data_set, folder)
    if command:
        print(f"To train on it:\n  {command}", flush=True)


def main(argv=None) -> int:
    """Entry point: download; returns 0, 2 after one line about a mistake in the input, or 130 after Ctrl-C."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_args(argv)
        try:
            download(args)
        except KeyboardInterrupt:
            sys.stderr.write(f"interrupted; what has arrived is kept in {args.folder}, the same command goes on\n")
            return 130
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
