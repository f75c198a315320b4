#!/usr/bin/env python3
"""Step time with and without background checkpoints, runs in pairs that take turns.

    python tests/bench/checkpoint_steps.py [--config configs/quickstart.json] [--steps 60] [--every 20] [--pairs 3] [--set KEY=VALUE ...]

Prints each run's median and mean time of a step, its first five left out, and of each pair the ratio of the means: the clock runs while
checkpoints are copied and written beside the steps.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def step_times(args, folder: Path, name: str, every: int) -> list[float]:
    settings = [f"schedule.scheduled_steps={args.steps}", "schedule.extension_steps=0", "schedule.eval.every=0",
                f"runtime.checkpoint.every_steps={every}", *args.set]
    words = [args.executable, "train", "--config", args.config, "--run-dir", str(folder / name),
             *(word for setting in settings for word in ("--set", setting))]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    lines = map(json.loads, (folder / name / "metrics.jsonl").read_text().splitlines())
    clock = [line["train_time_ms"] for line in lines if "train_loss" in line]
    subprocess.run(["rm", "-rf", folder / name], check=True)
    return [after - before for before, after in zip(clock[4:], clock[5:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.json")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folder", help="where the disk is; the system's temporary folder if not given")
    parser.add_argument("--executable", default=str(ROOT / "build/speedrun"))
    args = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        for pair in range(args.pairs):
            means = {}
            for name, every in (("without", 0), ("with", args.every))[:: 1 if pair % 2 == 0 else -1]:
                times = step_times(args, Path(temporary), name, every)
                means[name] = statistics.mean(times)
                print(f"{name:8} mean {means[name]:9.2f} ms, median {statistics.median(times):9.2f} ms, longest {max(times):9.2f} ms", flush=True)
            ratios.append(means["with"] / means["without"])
            print(f"pair {pair + 1}: with / without = {ratios[-1]:.4f}", flush=True)
    print(f"a checkpoint every {args.every} steps: median of {len(ratios)} pairs {statistics.median(ratios):.4f}")


if __name__ == "__main__":
    main()
