"""Whether the tests notice: changes one central line at a time in a copy of the tree and runs the tests that ought to
fail.  `make mutation`, or `python tests/mutation.py [WORD]` for the mutations whose name holds the word."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("lib", "tests", "experiments/cfgs", "docs", "pyproject.toml", "train.py", "demo.py", "README.md", "setup.py")
"""What the tests need of the tree."""


class Mutation(NamedTuple):
    """What is changed, in which file below lib, the text, what takes its place, and the tests that ought to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


LAYERS, DATASET = "tests/layers/", "tests/dataset/"
MUTATIONS = (
    Mutation("centre of priors", "layers/prior_box.py", "* step_y + step_y / 2", "* step_y",
             LAYERS + "test_prior_box.py"),
    Mutation("next scale of the larger square", "layers/prior_box.py", "math.sqrt(scale * next_scale)",
             "math.sqrt(scale * scale)", LAYERS + "test_prior_box.py"),
    Mutation("variance of the centre", "layers/box.py", "(priors[..., 2:] * variance[0])",
             "(priors[..., 2:] / variance[0])", LAYERS + "test_box.py"),
    Mutation("variance of the size", "layers/box.py", "loc[..., 2:] * variance[1]", "loc[..., 2:] * variance[0]",
             LAYERS + "test_box.py"),
    Mutation("sign of GIoU's hull", "layers/box_loss.py", "loss + 1 - union", "loss - 1 + union",
             LAYERS + "test_box_loss.py"),
    Mutation("matching at the threshold", "layers/matcher.py", "best_iou >= self.threshold)",
             "best_iou > self.threshold)", LAYERS + "test_matcher.py"),
    Mutation("best prior of an object", "layers/matcher.py", "present & (own_iou > 0)", "present & (own_iou > 0.5)",
             LAYERS + "test_matcher.py"),
    Mutation("two objects with one best prior", "layers/matcher.py", 'order, "amax")', 'order, "amin")',
             LAYERS + "test_matcher.py"),
    Mutation("share of a crowd", "layers/matcher.py", ">= CROWD_SHARE", "> CROWD_SHARE", LAYERS + "test_matcher.py"),
    Mutation("number of hard negatives", "layers/multibox_loss.py", "(self.negatives_per_positive * num_positives)",
             "(self.negatives_per_positive * num_positives + 1)", LAYERS + "test_multibox_loss.py"),
    Mutation("hardest negatives", "layers/multibox_loss.py", "(-conf.log_softmax(2)[..., 0])",
             "conf.log_softmax(2)[..., 0].exp()", LAYERS + "test_multibox_loss.py"),
    Mutation("weight of the easy in the focal loss", "layers/focal_loss.py", "doubt**gamma", "doubt",
             LAYERS + "test_focal_loss.py"),
    Mutation("threshold of NMS", "layers/postprocess.py", "[start:stop], self.iou_threshold)",
             "[start:stop], 1 - self.iou_threshold)", LAYERS + "test_postprocess.py"),
    Mutation("score at the threshold", "layers/postprocess.py", "(scores > self.score_threshold)",
             "(scores >= self.score_threshold)", LAYERS + "test_postprocess.py"),
    Mutation("order of the gates", "layers/bottleneck_lstm.py", "for k in range(4))", "for k in (0, 2, 1, 3))",
             LAYERS + "test_bottleneck_lstm.py"),
    Mutation("bias of the forget gate", "layers/bottleneck_lstm.py", "FORGET_BIAS = 1.0", "FORGET_BIAS = 0.0",
             LAYERS + "test_bottleneck_lstm.py"),
    Mutation("overlap of exactly one half in VOC", "evaluation/matching.py", "best] > iou_threshold",
             "best] >= iou_threshold", "tests/evaluation/test_voc_map.py"),
    Mutation("monotone precision", "evaluation/ranking.py", "np.maximum.accumulate(precision[::-1])[::-1]", "precision",
             "tests/evaluation/test_voc_map.py"),
    Mutation("eleven points of VOC 2007", "evaluation/voc_map.py", "np.arange(11) * 0.1", "np.arange(11) / 10",
             "tests/evaluation/test_voc_map.py"),
    Mutation("cut of a crop", "dataset/geometry.py", "np.clip(shifted, 0, np.float32([width, height] * 2))",
             "np.clip(shifted, 0, np.float32([height, width] * 2))", DATASET + "test_transforms.py"),
    Mutation("objects that a crop keeps", "dataset/geometry.py", "(crops[:, None, :2] < centers)",
             "(crops[:, None, :2] < boxes[:, :2])", DATASET + "test_transforms.py"),
    Mutation("mirror, by a pixel", "dataset/geometry.py", "width - boxes[:, [2, 0]]", "width - 1 - boxes[:, [2, 0]]",
             DATASET + "test_properties.py"),
    Mutation("boxes of VOC count from 1", "dataset/voc.py", "first_pixel=1", "first_pixel=0", DATASET + "test_voc.py"),
    Mutation("direction of a turn", "dataset/geometry.py", "[cos * x + sin * y, cos * y - sin * x]",
             "[cos * x - sin * y, cos * y + sin * x]", DATASET + "test_transforms.py"),
    Mutation("decay of the averaged weights", "solver/optim.py", "_foreach_lerp_(averaged, current, 1 - decay)",
             "_foreach_lerp_(averaged, current, decay)", "tests/solver/test_optim.py"),
    Mutation("epoch that a run goes on with", "solver/solver.py", "loader.set_position(state.epoch + 1, state.batch)",
             "loader.set_position(state.epoch, state.batch)", "tests/solver/test_solver.py"),
    Mutation("batch that a run goes on with", "solver/solver.py", "loader.set_position(state.epoch + 1, state.batch)",
             "loader.set_position(state.epoch + 1, 0)", "tests/solver/test_solver.py"),
    Mutation("code in checkpoints", "solver/checkpoint_reader.py", 'map_location="cpu", weights_only=True)',
             'map_location="cpu", weights_only=False)', "tests/solver/test_tensor_unpickler.py"),
)  # fmt: skip


def copy_tree(folder: Path) -> None:
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / part
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source, folder / part, ignore=ignored) if source.is_dir() else shutil.copy2(
            source, folder / part
        )


def run_tests(folder: Path, tests: str) -> tuple[bool, str]:
    """(whether all pass, the name of the first that fails)."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", tests]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return done.returncode == 0, failed[0].split(" - ")[0].split(" ", 1)[
        1
    ] if failed else f"exit status {done.returncode}"


def try_mutation(folder: Path, mutation: Mutation) -> str:
    """The test that catches a mutation, '' where none does."""
    path = folder / "lib" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        sys.exit(
            f"{mutation.name}: lib/{mutation.file} has {text.count(mutation.old)} times {mutation.old!r}, not once"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        passed, failed = run_tests(folder, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    return "" if passed else failed


def line_of(mutation: Mutation) -> str:
    text = (ROOT / "lib" / mutation.file).read_text(encoding="utf-8")
    return f"{mutation.file}:{text.count(chr(10), 0, text.find(mutation.old)) + 1}"


def main(words: list[str]) -> int:
    """The exit status: 1 where a mutation survives, 2 where tests fail without any."""
    chosen = [mutation for mutation in MUTATIONS if not words or words[0] in mutation.name]
    survivors = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_tree(folder)
        for tests in dict.fromkeys(mutation.tests for mutation in chosen):
            passed, failed = run_tests(folder, tests)
            if not passed:
                print(f"{tests}: fails without any mutation: {failed}")
                return 2
        print("| line | mutation | caught by |\n|---|---|---|", flush=True)
        for mutation in chosen:
            caught = try_mutation(folder, mutation)
            survivors += not caught
            print(
                f"| {line_of(mutation)} | {mutation.name}: `{mutation.new}` | {caught or '**nothing**'} |", flush=True
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
