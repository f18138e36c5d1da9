"""Files from the web: fetched once into torch's cache folder, checked, and only then given their name."""

import hashlib
import logging
import os
import re
import time
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from tqdm import tqdm

from .errors import UserError

logger = logging.getLogger(__name__)

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+")
PAUSES = (1.0, 3.0)
"""Seconds to wait before the second attempt, the third, ..."""

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**20
WORTH_ANOTHER_TRY = (408, 416, 429)  # besides 500 and above


class _Cut(Exception):
    """The connection failed in a way that it may not fail again."""


def is_url(text: str) -> bool:
    """Whether `text` is an address that `fetch` takes: http or https."""
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str, folder=None) -> Path:
    """The local copy of the file at an http(s) address, downloaded where `folder` does not hold it.

    `folder` None is the one that torchvision uses: hub/checkpoints in torch's cache, which TORCH_HOME moves.  A name
    like vgg16-397923af.pth promises the first digits of the file's sha256; a local copy that does not keep the promise
    is renamed, never used.  Raises UserError where the file cannot be had, and where it is not what its name promises.
    """
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / _name_of(url)
    promise = HASH_IN_NAME.search(path.name)
    wanted = promise[1] if promise else ""
    try:
        if path.is_file():
            found = _sha256(path) if wanted else ""
            if found.startswith(wanted):
                return path
            aside = _free_name(path.with_name(path.name + ".wrong"))
            path.rename(aside)
            logger.warning(
                "%s: its sha256 begins with %s, not as its name says; kept as %s and fetched again",
                path, found[: len(wanted)], aside.name,
            )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, path, wanted)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _name_of(url: str) -> str:
    name = Path(unquote(urlsplit(url).path)).name
    if not is_url(url) or not name:
        raise UserError(f"{url}: expected the http or https address of a file")
    return name


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, path: Path, wanted: str) -> None:
    """Fetch into a file beside `path`, which becomes `path` when it is whole and its hash begins with `wanted`."""
    logger.info("downloading %s to %s", url, path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # every process its own
    try:
        with open(partial, "wb") as file:
            _receive_with_patience(url, file, path)
            file.flush()
            os.fsync(file.fileno())
        found = _sha256(partial)
        if not found.startswith(wanted):
            raise UserError(f"{url}: refused, what arrived has the sha256 {found}; its name says {wanted}...")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _receive_with_patience(url: str, file: BinaryIO, path: Path) -> None:
    """Several attempts to fill `file`; `path` is where the user may put it instead."""
    transfer = _Transfer(url, file)
    with tqdm(desc=path.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False) as bar:
        for pause in (*PAUSES, None):
            try:
                return transfer.attempt(bar)
            except HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500 and error.code not in WORTH_ANOTHER_TRY:
                    break
            except _Cut as error:
                reason = (str(error) or "no reason given").splitlines()[0]
            if pause is not None:
                logger.info("%s: %s; trying again", url, reason)
                time.sleep(pause)
    raise UserError(f"{url}: cannot be downloaded ({reason}); fetched by other means, its place is {path}")


class _Transfer:
    """A download that an attempt takes up where the one before was cut, as far as the server lets it."""

    def __init__(self, url: str, file: BinaryIO):
        self.url = url
        self.file = file
        self.version: str | None = None  # without it, two halves might come from different files

    def attempt(self, bar) -> None:
        """Receive what is missing; raises _Cut or HTTPError."""
        have = self.file.tell() if self.version else 0
        headers = {"User-Agent": "ssds"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.version}
        try:
            response = urlopen(Request(self.url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code == 416:  # there is no such rest: from the beginning
                self.version = None
            raise
        except (OSError, HTTPException) as error:
            raise _Cut(str(getattr(error, "reason", error))) from error
        with response:
            if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            self.file.seek(have)
            self.file.truncate()
            version = response.headers.get("ETag", "")
            self.version = version if version.startswith('"') else None  # a weak one does not promise equal bytes
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            bar.reset(total)
            bar.update(have)
            self._copy(response, bar)
        if total is not None and self.file.tell() < total:
            raise _Cut(f"the connection ended after {self.file.tell()} of {total} bytes")

    def _copy(self, response, bar) -> None:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise _Cut(f"the connection ended: {error}") from error
            if not chunk:
                return
            self.file.write(chunk)
            bar.update(len(chunk))
