"""Whatever a user gets wrong is answered by one line and an exit status, or by the data policy.

The mistakes are those of bad_input_cases.py.  docs/bad_input.md shows them to users; after a change of a message:

    python tests/test_bad_input.py --write
"""

import contextlib
import io
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run this file as a script

from lib.commands import demo, run_command, train
from lib.tools.score import main as score
from tests.bad_input_cases import CONFIG, GROUPS, SHORTAGES, SOUND, Case
from tests.dataset.folders import write_voc

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bad_input.md"
COMMANDS = {"train.py": train, "demo.py": demo, "-m lib.tools.score": score}
CASES = [case for cases in GROUPS.values() for case in cases]

INTRODUCTION = """\
# What the trainer says to bad input

A mistake is answered by one line on stderr that begins with `error: ` and names the place, what was given and what is
allowed or nearest. The lines below are real; `...` stands for a working folder. Nothing of yours is overwritten.

| exit status | meaning |
|---|---|
| 0 | done; `warning: ` lines tell what was left out on the way |
| 1 | the run failed: a loss that is not finite, too little memory, a full disk, a demo that found nothing to read |
| 2 | a mistake in what was given; nothing was trained or written over |
| 130, 143 | stopped by Ctrl-C or SIGTERM; a training has saved itself, and the same command goes on |

Faulty data need not stop a run. `DATASET.ON_BAD` decides: `drop`, the default, leaves out what cannot be used, counts
it and names the first; `clip` also repairs reversed corners and cuts every box to its image; `fail` stops with exit
status 2 and names the first three. `DATASET.EXIF` says whether images that EXIF calls rotated are taken as stored
(`ignore`, the default), turned (`apply`) or refused (`fail`). Either way `EXP_DIR/data_report_train.json` (`_eval`,
`_test`) lists all findings with image, annotation, number of the object and what was done. Where the tables show a
`warning: `, it is that of `drop`, and the exit status is 0.

This page is written by `python tests/test_bad_input.py --write` from the tests.
"""


class Answer(NamedTuple):
    """What a command did: exit status, lines on stderr without the names of folders of this machine, all that it
    printed, and the files that it changed though they were not its own."""

    status: int
    lines: list[str]
    printed: str
    spoilt: list[str]


def create_world(folder: Path) -> Path:
    """The folder in which every mistake is made: data set, configuration and a trained run."""
    stems = [f"i{number}" for number in range(8)]
    objects = {stem: [("cat", (11, 21, 41, 51)), ("dog", (31, 11, 61, 31))] for stem in stems}
    write_voc(folder / "data", {"train": stems[:4], "val": stems[4:6], "test": stems[6:]}, objects)
    (folder / "x.yml").write_text(CONFIG)
    (folder / "experiments" / "cfgs").mkdir(parents=True)
    (folder / "experiments" / "cfgs" / "shapes.yml").write_text("")
    with working_in(folder), contextlib.redirect_stdout(io.StringIO()):
        assert train(["--cfg", "x.yml"]) == 0
    return folder


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def answer_to(command: str, make, world: Path, folder: Path) -> Answer:
    """The answer to a command in a copy of the world at `folder` that `make` has changed."""
    shutil.copytree(world, folder, copy_function=link_or_copy)
    script = next(name for name in COMMANDS if command.startswith(name))
    out, err = io.StringIO(), io.StringIO()
    with working_in(folder):
        make()
        before = contents_of(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = COMMANDS[script](shlex.split(command.removeprefix(script)))
            except SystemExit as end:
                status = end.code or 0
        after = contents_of(folder)
    spoilt = [name for name, checksum in before.items() if after.get(name) != checksum]
    lines = err.getvalue().replace(str(folder), "...").splitlines()
    return Answer(status, lines, out.getvalue() + err.getvalue(), spoilt)


def link_or_copy(source: str, target: str):
    """Weights are large and only replaced, never written in place."""
    (os.link if source.endswith(".pth") else shutil.copy2)(source, target)


def contents_of(folder: Path) -> dict[str, int]:
    """Checksums of the files that are not the logs of a run."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if path.parent.name != "run" or path.suffix == ".pth"]
    return {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in files}


def matches(part: str, line: str) -> bool:
    return bool(re.search(".*".join(map(re.escape, part.split(".*"))), line))


class Answers:
    """The answers to the cases, each asked for once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.world = create_world(folder / "world")
        self._known: dict[Case, Answer] = {}

    def __getitem__(self, case: Case) -> Answer:
        if case not in self._known:
            folder = self.folder / str(len(self._known))
            self._known[case] = answer_to(case.command, case.make, self.world, folder)
            shutil.rmtree(folder)
        return self._known[case]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return Answers(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what if case.shown else f"{case.what}, hidden")
def test_a_mistake_is_answered_by_one_line(answers, case):
    if "locked" in case.command and os.geteuid() == 0:
        pytest.skip("nothing is locked for root")
    status, lines, printed, spoilt = answers[case]
    assert status == case.status, printed
    assert "Traceback" not in printed and not spoilt
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == (status != 0) and errors == lines[len(lines) - len(errors) :]
    warnings = lines[: len(lines) - len(errors)]
    assert all(line.startswith("warning: ") for line in warnings)
    (line,) = errors or [line for line in warnings if matches(case.line, line)]
    assert matches(case.line, line), line


@pytest.mark.parametrize("name", SOUND)
def test_odd_but_sound_input_is_taken_without_a_word(answers, tmp_path, name):
    status, lines, printed, spoilt = answer_to(*SOUND[name], answers.world, tmp_path / "copy")
    assert (status, lines, spoilt) == (0, [], []), printed


@pytest.mark.parametrize("error, part", [(error, part) for _, error, part, _ in SHORTAGES])
def test_a_machine_that_is_too_small_is_told_in_one_line(capsys, error, part):
    assert run_command(failing(error)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and matches(part, line)


def test_an_error_of_the_program_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(failing(RuntimeError("a bug")))


def failing(error: Exception):
    def body() -> int:
        raise error

    return body


def test_a_disk_that_is_full_ends_a_training_in_one_line(answers, tmp_path):
    """No file may grow beyond a size that the logs stay under and a checkpoint does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))

    try:
        answer = answer_to("train.py --cfg x.yml EXP_DIR=new", fill, answers.world, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer.status == 1 and not answer.spoilt and "Traceback" not in answer.printed
    (line,) = answer.lines
    assert matches("error: new/ssd_lite_.*_epoch_1.pth: ", line)
    assert not list((tmp_path / "copy" / "new").glob("*.pth*"))


def test_a_loss_that_is_not_finite_ends_a_training_in_one_line(answers, tmp_path):
    words = "EXP_DIR=new TRAIN.MAX_EPOCHS=9 TRAIN.OPTIMIZER.LEARNING_RATE=1e30 TRAIN.CLIP_NORM=0"
    answer = answer_to(f"train.py --cfg x.yml {words}", lambda: None, answers.world, tmp_path / "copy")
    assert answer.status == 1 and "Traceback" not in answer.printed
    (line,) = answer.lines
    assert matches("error: the .* is not finite in epoch .*, batch .*--replay new/replay/step_", line)


@pytest.mark.parametrize(
    "command, part",
    [
        ("demo.py --cfg x.yml --demo x.png --checkpoint none.pth", "none.pth: no such checkpoint"),
        ("-m lib.tools.score --cfg x.yml --detections none.json", "none.json: cannot be read"),
    ],
)
def test_the_scripts_say_no_more(tmp_path, command, part):
    """train.py is run by test_commands.py."""
    (tmp_path / "x.yml").write_text("EXP_DIR: run\nDATASET: {DATASET: custom, DATASET_DIR: data}\n")
    (tmp_path / "x.png").write_bytes(b"")
    write_voc(tmp_path / "data", {"test": ["a"]})
    words = shlex.split(command)
    words = [str(ROOT / words[0]) if words[0].endswith(".py") else words[0], *words[1:]]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: ") and part in line


def test_the_page_for_users_shows_what_is_said_today(answers):
    assert PAGE.read_text(encoding="utf-8") == page(answers), "python tests/test_bad_input.py --write"


def page(answers) -> str:
    parts = [INTRODUCTION]
    for group, cases in GROUPS.items():
        rows = [row(case.what, case.command, told(answers[case], case.line), case.todo) for case in cases if case.shown]
        parts.append(table(group, rows))
    rows = [row(what, "", said_of(error), todo) for what, error, _, todo in SHORTAGES]
    return "\n".join([*parts, table("The machine", rows)])


def table(title: str, rows: list[str]) -> str:
    return "\n".join([f"## {title}\n", "| what is wrong | what you see | what to do |", "|---|---|---|", *rows, ""])


def row(what: str, command: str, line: str, todo: str) -> str:
    # argparse puts the choices in quotes or not, by the version of Python
    line = re.sub(r"choose from [^)]*", lambda found: found[0].replace("'", ""), line)
    cells = [f"{what}<br>`python {command}`" if command else what, f"`{line}`", todo]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def told(answer: Answer, part: str) -> str:
    return next(line for line in reversed(answer.lines) if matches(part, line))


def said_of(error: Exception) -> str:
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        run_command(failing(error))
    return err.getvalue().strip()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_bad_input.py --write")
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(page(Answers(Path(scratch))), encoding="utf-8")
