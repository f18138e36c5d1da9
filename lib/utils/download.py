"""Files from the web: fetched once, checked, and only then given their name.  `fetch` is for weights, which torch's
cache holds; `fetch_resumable` for archives so large that an interrupted download must go on in a later process."""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from tqdm import tqdm

from .address import hide_password
from .errors import UserError
from .files import write_whole

logger = logging.getLogger(__name__)

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+")
PAUSES = (1.0, 3.0)
"""Seconds to wait before the second attempt in vain, the third, ..."""

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**20
WORTH_ANOTHER_TRY = (408, 416, 429)  # besides 500 and above


class NotOnServer(UserError):
    """The server says that it does not have the file, or does not give it."""


class _Cut(Exception):
    """The connection failed in a way that it may not fail again."""


class Expected(NamedTuple):
    """What is known of a file before it arrives: the first digits of a checksum, and its bytes (None: not known)."""

    algorithm: str = "sha256"
    digits: str = ""
    size: int | None = None

    def fault(self, path: Path) -> str:
        """What is wrong with a file, '' for nothing."""
        found = path.stat().st_size
        if self.size not in (None, found):
            return f"it has {found} bytes, not {self.size}"
        found = digest(path, self.algorithm) if self.digits else ""
        return "" if found.startswith(self.digits) else f"its {self.algorithm} is {found}, not {self.digits}"

    @property
    def tells_all(self) -> bool:
        """Whether a file that has no fault is surely the right one, whatever its parts came from."""
        return self.size is not None and len(self.digits) == 2 * _new_hash(self.algorithm).digest_size


def is_url(text: str) -> bool:
    """Whether `text` is an address that `fetch` takes: http or https."""
    return text.lower().startswith(("http://", "https://"))


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal checksum of a file by an algorithm of hashlib."""
    found = _new_hash(algorithm)
    with open(path, "rb") as file, _byte_bar(f"checking {path.name}", path.stat().st_size, delay=2) as bar:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            bar.update(len(chunk))
    return found.hexdigest()


def fetch(url: str, folder=None) -> Path:
    """The local copy of the file at an http(s) address, downloaded where `folder` does not hold it.

    `folder` None is the one that torchvision uses: hub/checkpoints in torch's cache, which TORCH_HOME moves.  A name
    like vgg16-397923af.pth promises the first digits of the file's sha256; a local copy that does not keep the promise
    is renamed, never used.  Raises UserError where the file cannot be had, and where it is not what its name promises.
    """
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / _name_of(url)
    promise = HASH_IN_NAME.search(path.name)
    expected = Expected(digits=promise[1] if promise else "")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # every process its own
    try:
        if not _is_there(path, expected):
            path.parent.mkdir(parents=True, exist_ok=True)
            logger.info("downloading %s to %s", url, path)
            try:
                with open(partial, "wb") as file:
                    _receive_with_patience(_Transfer(url, file, expected), path)
                _give_name(partial, path, url, expected)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def fetch_resumable(url: str, path: Path, expected: Expected) -> bool:
    """Download an http(s) address to `path`, where it is not there; whether it had to be.

    What has arrived stays in PATH.partial when the download ends early, and the next call goes on from there: where the
    server still has the same version (RFC 9110, If-Range), and from any server where `expected` can tell whether the
    whole is right.  A file that is not as expected is deleted, an older one of that name renamed.  For one process at a
    time.  UserError as fetch, NotOnServer where another address may help.
    """
    _name_of(url)
    partial, notes = (path.with_name(f"{path.name}.partial{suffix}") for suffix in ("", ".json"))
    try:
        if _is_there(path, expected):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        known = _read_notes(notes, url)
        with open(partial, "r+b" if partial.exists() else "w+b") as file:
            have = file.seek(0, os.SEEK_END)
            transfer = _Transfer(url, file, expected, lambda version, size: _write_notes(notes, url, version, size))
            transfer.version = known.get("version")
            if not transfer.can_go_on:
                have = file.seek(0)
            if not have or have != (expected.size or known.get("size")):
                logger.info("downloading %s to %s%s", url, path, f", from byte {have} on" if have else "")
                _receive_with_patience(transfer, path)
        _give_name(partial, path, url, expected)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); what has arrived is kept, to go on from") from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong with the folder has been said
            if not partial.exists() or not partial.stat().st_size:
                partial.unlink(missing_ok=True)
                notes.unlink(missing_ok=True)
    return True


def _new_hash(algorithm: str):
    return hashlib.new(algorithm, usedforsecurity=False)  # so that md5 exists in strict surroundings too


def _is_there(path: Path, expected: Expected) -> bool:
    """Whether a file is there and as expected; one that is not is renamed."""
    if not path.is_file():
        return False
    fault = expected.fault(path)
    if fault:
        aside = _free_name(path.with_name(path.name + ".wrong"))
        path.rename(aside)
        logger.warning("%s: %s; kept as %s and fetched again", path, fault, aside.name)
    return not fault


def _give_name(partial: Path, path: Path, url: str, expected: Expected) -> None:
    """Let `partial` become `path`; UserError, and no file, where it is not as expected."""
    fault = expected.fault(partial)
    if fault:
        partial.unlink()
        raise UserError(f"{url}: refused and deleted, what arrived is another file: {fault}")
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _read_notes(notes: Path, url: str) -> dict:
    """What is known of a partial file that came from this address."""
    try:
        known = json.loads(notes.read_text(encoding="utf-8"))
        return known if known["url"] == url else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_notes(notes: Path, url: str, version: str | None, size: int | None) -> None:
    write_whole(notes, json.dumps({"url": url, "version": version, "size": size}))


def _byte_bar(text: str, total: int | None = None, delay: float = 0) -> tqdm:
    return tqdm(
        desc=text, total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False, delay=delay
    )


def _name_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    name = Path(unquote(parts.path)).name
    if not is_url(url) or not name:
        raise UserError(f"{hide_password(url)}: expected the http or https address of a file")
    if "@" in parts.netloc:
        raise UserError(f"{hide_password(url)}: an address with a name or a password before the host is not supported")
    return name


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _receive_with_patience(transfer: "_Transfer", path: Path) -> None:
    """Attempts to fill the file of a transfer until several in a row bring nothing; `path` is where the user may put
    it instead."""
    url, refused = transfer.url, False
    with _byte_bar(path.name) as bar:
        pauses, reached = list(PAUSES), transfer.file.tell()
        while True:
            try:
                return transfer.attempt(bar)
            except HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                refused = error.code < 500 and error.code not in WORTH_ANOTHER_TRY
            except _Cut as error:
                reason = (str(error) or "no reason given").splitlines()[0]
            if transfer.file.tell() >= reached + CHUNK:
                pauses, reached = list(PAUSES), transfer.file.tell()
            if refused or not pauses:
                break
            logger.info("%s: %s; trying again", url, reason)
            time.sleep(pauses.pop(0))
    kind = NotOnServer if refused else UserError
    raise kind(f"{url}: cannot be downloaded ({reason}); fetched by other means, its place is {path}")


class _Transfer:
    """A download that an attempt takes up where the one before was cut, as far as the server lets it.

    `note` is told the version and the size of the file, None where the server does not say, before a byte is written.
    """

    def __init__(self, url: str, file: BinaryIO, expected: Expected, note: Callable = lambda version, size: None):
        self.url, self.file, self.expected, self.note = url, file, expected, note
        self.version: str | None = None  # without it, two halves might come from different files

    @property
    def can_go_on(self) -> bool:
        return bool(self.version) or self.expected.tells_all

    def attempt(self, bar) -> None:
        """Receive what is missing; raises _Cut or HTTPError."""
        have = self.file.tell() if self.can_go_on else 0
        with self._ask(have) as response:
            have, total = self._check(response, have)
            self.note(self.version, total)
            self.file.seek(have)
            self.file.truncate()
            bar.reset(total)
            bar.initial = bar.n = bar.last_print_n = have  # the rate is that of what arrives now
            bar.refresh()
            self._copy(response, bar)
        if total is not None and self.file.tell() < total:
            raise _Cut(f"the connection ended after {self.file.tell()} of {total} bytes")

    def _ask(self, have: int):
        headers = {"User-Agent": "ssds"}
        if have:
            headers["Range"] = f"bytes={have}-"
        if have and self.version:
            headers["If-Range"] = self.version
        try:
            return urlopen(Request(self.url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code == 416:  # there is no such rest: from the beginning
                self._start_over()
            raise
        except (OSError, HTTPException) as error:
            raise _Cut(str(getattr(error, "reason", error))) from error

    def _check(self, response, have: int) -> tuple[int, int | None]:
        """(byte that the answer begins with, bytes of the whole file), of an answer that fits what was asked for."""
        version = response.headers.get("ETag", "")
        version = version if version.startswith('"') else None  # a weak one does not promise equal bytes
        if response.status != 206:
            if have:
                logger.info("%s: the server does not go on at byte %d; from the beginning", self.url, have)
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-") or (
            self.version and version not in (None, self.version)
        ):
            self._start_over()
            raise _Cut("the server answers with another part than was asked for")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if None not in (total, self.expected.size) and total != self.expected.size:
            raise UserError(f"{self.url}: refused, the server's file has {total} bytes, not {self.expected.size}")
        self.version = version
        return have, total or self.expected.size

    def _start_over(self) -> None:
        self.version = None
        self.file.seek(0)
        self.file.truncate()

    def _copy(self, response, bar) -> None:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise _Cut(f"the connection ended: {error}") from error
            if not chunk:
                return
            self.file.write(chunk)
            bar.update(len(chunk))
