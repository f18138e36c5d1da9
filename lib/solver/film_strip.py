"""How what a run finds on a few images grows from evaluation to evaluation, in one picture."""

import logging
import re
from pathlib import Path

import cv2
import numpy as np

from ..utils.draw import image_grid
from ..utils.files import write_whole
from .scene import titled

logger = logging.getLogger(__name__)

MAX_COLUMNS = 10
MAX_KEPT = 40
JPEG = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]


class FilmStrip:
    """Keeps a column of small pictures for each evaluation, of many for MAX_KEPT of them, in EXP_DIR/film_strip and
    shows them side by side, the first and the last and at most MAX_COLUMNS, in EXP_DIR/film_strip.jpg.

    Nothing but these files is remembered, so the strip goes on where a run is resumed.  One that cannot be written is
    warned about and stops nothing.
    """

    def __init__(self, exp_dir):
        self.folder = Path(exp_dir) / "film_strip"
        self.path = Path(exp_dir) / "film_strip.jpg"

    def add(self, pictures: list[np.ndarray], epoch: int, mean_ap: float) -> None:
        """The column after this epoch; columns of later epochs, of a course that was given up, are dropped."""
        if not pictures:
            return
        column = titled(image_grid(pictures, 1), f"epoch {epoch}: mAP {mean_ap:.3f}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for later, path in self._columns().items():
                if later > epoch:
                    path.unlink()
            _write(self.folder / f"epoch_{epoch:04d}.jpg", column)
            self._thin_out()
            _write(self.path, self._assembled())
        except OSError as error:
            logger.warning("%s: cannot be written (%s); the run goes on without", self.path, error.strerror or error)

    def _columns(self) -> dict[int, Path]:
        """The kept columns by epoch."""
        found = ((re.fullmatch(r"epoch_(\d+)\.jpg", path.name), path) for path in self.folder.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def _thin_out(self) -> None:
        """Drop columns from where they stand closest, so that at most MAX_KEPT are left however long a run is."""
        columns = self._columns()
        while len(columns) > MAX_KEPT:
            epochs = list(columns)
            gaps = {epochs[i]: epochs[i + 1] - epochs[i - 1] for i in range(1, len(epochs) - 1)}
            columns.pop(min(gaps, key=gaps.get)).unlink()

    def _assembled(self) -> np.ndarray:
        paths = list(self._columns().values())
        shown = np.linspace(0, len(paths) - 1, min(len(paths), MAX_COLUMNS)).round().astype(int)
        columns = [cv2.imdecode(np.fromfile(paths[i], np.uint8), cv2.IMREAD_COLOR) for i in shown]
        columns = [column for column in columns if column is not None]  # cut off by a crash
        return image_grid(columns, len(columns))


def _write(path: Path, picture) -> None:
    write_whole(path, cv2.imencode(JPEG[0], picture, JPEG[1])[1].tobytes())
