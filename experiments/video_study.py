#!/usr/bin/env python3
"""Does memory help?  Trains detectors with and without it on generated videos, one (model, seed) a step.

    python experiments/video_study.py --out experiments/models/video_study --jobs 2

Every step is a training and a test of its own, pinned to one core, and adds a row to OUT/runs.csv; a step that has its
row is not run again, and one that was interrupted goes on from its last checkpoint.  When all are done the speeds are
measured one after another on the idle machine, in rounds over all models, into OUT/speeds.csv, and the table is
printed.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.film_strip import NOTHING  # noqa: E402
from lib.config import load_config  # noqa: E402
from lib.config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments  # noqa: E402
from lib.dataset.dataset_factory import create_records  # noqa: E402
from lib.evaluation import VIDMeanAP, load_results, written_id  # noqa: E402
from lib.solver.run import checkpoints_to_test  # noqa: E402
from lib.solver.solver import Solver  # noqa: E402
from lib.solver.streaming import measure_streaming  # noqa: E402

CONFIGS = "experiments/cfgs/video"
SINGLE = "lstm_ssd_resnet18_shapes_video.yml"
TWO = "interleaved_resnet18_shapes_video.yml"
NO_MEMORY = ["MODEL.RNN.IN_USE=False", "MODEL.RNN.CELL_LEVELS=[]", "MODEL.RNN.CELL_CHANNELS=[]"]

MODELS = {
    "recurrent": (SINGLE, []),
    "single frame": (SINGLE, [*NO_MEMORY, "TRAIN.MAX_EPOCHS=6", "TRAIN.LR_SCHEDULER.STEPS=[4,6]"]),
    "interleaved": (TWO, []),
    "heavy alone": (TWO, ["MODEL.RNN.POLICY=large", "MODEL.RNN.TRAIN_POLICY=large"]),
    "light alone": (TWO, ["MODEL.RNN.POLICY=small", "MODEL.RNN.TRAIN_POLICY=small"]),
}
"""Configuration and overrides of each model.  Epochs are chosen so that all have about the same time."""

VIDEOS = [
    "--video", "--classes", "3", "--num-train", "300", "--num-val", "10", "--num-test", "40", "--frames", "24",
    "--degraded", "0.6",
]  # fmt: skip
"""What is generated: more than half of the frames are hard to see."""

FIGURES = (
    "mAP",
    "mAP_clean",
    "mAP_degraded",
    "mAP_vid",
    "mAP_slow",
    "mAP_medium",
    "mAP_fast",
    "flicker",
    "gaps",
    "seen",
)
COLUMNS = ("model", "seed", "epochs", "seconds", "parameters", *FIGURES)
DEGRADED_FROM = 0.5  # strength


def main() -> int:
    args = parse_args()
    out, data = Path(args.out).resolve(), Path(args.data).resolve()
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "lib.dataset.shapes", str(data), *VIDEOS], cwd=ROOT, check=True)
    done = {(row["model"], row["seed"]) for row in read_rows(out / "runs.csv")}
    steps = [(name, seed) for seed in args.seeds for name in args.models if (name, str(seed)) not in done]
    cores = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: args.jobs]:
        cores.put(core)
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda step: run_step(*step, data, out, cores), steps):
            add_row(out / "runs.csv", COLUMNS, row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    measure_speeds(args, data, out)
    print(table(read_rows(out / "runs.csv"), read_rows(out / "speeds.csv")))
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="experiments/models/video_study", help="folder of the runs and the tables")
    parser.add_argument("--data", default="data/shapes_video", help="folder of the generated videos, made if missing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, each on a core of its own")
    parser.add_argument("--rounds", type=int, default=5, help="times that every speed is measured")
    return parser.parse_args()


def settings(name: str, seed: int, data: Path, out: Path) -> list[str]:
    """The arguments of train.py for a step."""
    config, overrides = MODELS[name]
    return ["--cfg", f"{CONFIGS}/{config}", *overrides, f"SEED={seed}", f"DATASET.DATASET_DIR={data}",
            f"EXP_DIR={folder_of(name, seed, out)}", "DATASET.NUM_WORKERS=0"]  # fmt: skip


def folder_of(name: str, seed: int, out: Path) -> Path:
    """Where the run of a step lies."""
    return out / f"{name.replace(' ', '_')}_{seed}"


def run_step(name: str, seed: int, data: Path, out: Path, cores: SimpleQueue) -> dict:
    """Train and test one model on one core; its row, with the seconds of that core that it took."""
    core = cores.get()
    arguments, folder = settings(name, seed, data, out), folder_of(name, seed, out)
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "train.py", *arguments]
    try:
        with open(folder / "console.log", "a") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
    finally:
        cores.put(core)
    seconds = folder / "seconds.txt"  # of all starts of an interrupted step together
    before = float(seconds.read_text()) if seconds.exists() else 0.0
    seconds.write_text(str(before + usage.ru_utime + usage.ru_stime))
    if status:
        raise SystemExit(f"{name}, seed {seed}: training failed, see {folder / 'console.log'}")
    results = json.loads((folder / "results.json").read_text())
    results |= split_by_degradation(folder / "detections.json", data)
    fixed = {"model": name, "seed": seed, "epochs": results["epoch"], "seconds": round(float(seconds.read_text()))}
    fixed["parameters"] = results["parameters"]
    return fixed | {key: round(results[key], 4) for key in FIGURES}


def split_by_degradation(detections: Path, data: Path) -> dict[str, float]:
    """mAP at IoU 0.5 on the frames that are clean, and on those that are strongly degraded."""
    records = create_records(load_config(None, ["DATASET.DATASET=coco_vid", f"DATASET.DATASET_DIR={data}"]), "test")
    truth = json.loads((data / "annotations" / "test.json").read_text())
    names = {video["id"]: video["name"] for video in truth["videos"]}
    strengths = {(names[image["video_id"]], image["frame_id"]): image["strength"] for image in truth["images"]}
    found = load_results(detections, records.class_names)
    metrics = {"mAP_clean": VIDMeanAP(records.class_names), "mAP_degraded": VIDMeanAP(records.class_names)}
    for target in map(records.target, range(len(records))):
        strength = strengths[target.image_id]
        if strength and strength < DEGRADED_FROM:
            continue
        seen = found.get(written_id(target.image_id), NOTHING)
        metrics["mAP_degraded" if strength else "mAP_clean"].update([seen], [target])
    return {name: float(metric.compute()["map50"]) for name, metric in metrics.items()}


def measure_speeds(args, data: Path, out: Path) -> None:
    """Milliseconds a frame of each model that has a run, one frame at a time, in rounds over the models."""
    rows = read_rows(out / "speeds.csv")
    trained = [name for name in args.models if (folder_of(name, args.seeds[0], out) / "results.json").exists()]
    for number in range(args.rounds):
        for name in trained:
            if any(row["model"] == name and row["round"] == str(number) for row in rows):
                continue
            arguments = settings(name, args.seeds[0], data, out)
            answer = subprocess.run(
                [sys.executable, __file__, "--measure", *arguments],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            speed = json.loads(answer.splitlines()[-1])
            add_row(out / "speeds.csv", ("model", "round", *speed), {"model": name, "round": number, **speed})


def measure(argv: list[str]) -> None:
    """Print the streaming speed of the last checkpoint of a run as JSON."""
    _, cfg = parse_config_arguments(add_config_arguments(CommandLineParser()), [*argv, "--phase", "test"])
    solver = Solver(cfg)
    solver.load_for_test(checkpoints_to_test(cfg)[-1][1])
    scorer = solver.scorer
    records = solver.records["test"]
    network = scorer.network(solver.model, len(records))
    speed = measure_streaming(network, records, scorer.eval_transform, scorer.evaluator)
    print(json.dumps({name: round(value, 3) for name, value in speed.items()}))


def read_rows(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, columns, row: dict) -> None:
    begins = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if begins:
            writer.writeheader()
        writer.writerow(row)


def table(runs: list[dict], speeds: list[dict]) -> str:
    """Means over the seeds, and the median speed of the rounds, as a Markdown table."""
    shown = ("mAP", "mAP_clean", "mAP_degraded", "flicker", "gaps", "seen")
    lines = [f"| model | seeds: mAP | {' | '.join(shown)} | frames/s | seconds |", "|---" * (len(shown) + 4) + "|"]
    for name in MODELS:
        rows = [row for row in runs if row["model"] == name]
        if not rows:
            continue
        means = [f"{sum(float(row[key]) for row in rows) / len(rows):.3f}" for key in shown]
        rates = sorted(float(row["fps"]) for row in speeds if row["model"] == name)
        fps = f"{rates[len(rates) // 2]:.1f}" if rates else "-"
        time_taken = f"{sum(float(row['seconds']) for row in rows) / len(rows):.0f}"
        each = ", ".join(f"{float(row['mAP']):.3f}" for row in sorted(rows, key=lambda row: row["seed"]))
        lines.append(f"| {name} | {each} | {' | '.join(means)} | {fps} | {time_taken} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    else:
        sys.exit(main())
