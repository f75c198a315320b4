#!/usr/bin/env python3
"""What cautious weight decay does to a run: sizes of the parameters, condition of the updates, loss on the way.

    .deps/venv/bin/python tests/bench/decay_dynamics.py [--config configs/quickstart.json] [--seeds 2] [--every 26] [--set KEY=VALUE ...]

Trains muon as published, normuon without decay and normuon with cautious decay (what the config says), each with --diagnostics, and
prints what the authors of record 43 looked at: the mean square of all matrices' elements with decay as a share of that without (they
saw less than 20 %), the condition number of the updates (unchanged from NorMuon's), and the validation loss with decay minus that
without (above zero for most of the run, below when the learning rate falls).
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = {
    "muon": ["optimizer.matrix.rule=muon"],
    "normuon": ["optimizer.matrix.weight_decay=0", "optimizer.matrix.decay=none"],
    "normuon + cautious decay": [],
}


def train(args, folder: Path, name: str, seed: int) -> list[dict]:
    settings = [*args.set, *RULES[name], f"runtime.seed={seed}", f"schedule.eval.every={args.every}"]
    words = [args.executable, "train", "--config", args.config, "--run-dir", str(folder / "run"), "--overwrite", "--diagnostics",
             str(args.every), *(word for setting in settings for word in ("--set", setting))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return list(map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines()))


def of_all_matrices(line: dict, kind: str) -> list[float]:
    return [float(value) for name, value in line["diagnostics"].items() if name.startswith(kind + "/")]


def mean_square(line: dict) -> float:
    """Each matrix counts the same."""
    return statistics.mean(rms * rms for rms in of_all_matrices(line, "rms"))


def condition(line: dict) -> float:
    """The median over matrices: those with a zero gradient have none, or an infinite one."""
    return statistics.median(filter(math.isfinite, of_all_matrices(line, "condition")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.json")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--every", type=int, default=26)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--executable", default=str(ROOT / "build/speedrun"))
    args = parser.parse_args()
    looked, losses = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, args.seeds + 1):
            for name in RULES:
                lines = train(args, Path(folder), name, seed)
                looked[name, seed] = {line["step"]: line for line in lines if "diagnostics" in line}
                losses[name, seed] = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
                print(f"seed {seed}, {name}: final loss {list(losses[name, seed].values())[-1]:.4f}", flush=True)

    def mean(of, name: str, step: int) -> float:
        return statistics.mean(of(looked[name, seed][step]) for seed in range(1, args.seeds + 1))

    decayed = "normuon + cautious decay"
    print(f"\n{'step':>5} {'mean square':>12} {'share of it':>12}   condition of updates, median over matrices")
    print(f"{'':>5} {'no decay':>12} {'with decay':>12}   " + "  ".join(RULES))
    for step in looked[decayed, 1]:
        baseline = mean(mean_square, "normuon", step)
        conditions = "  ".join(f"{mean(condition, name, step):{len(name)}.2f}" for name in RULES)
        print(f"{step:5d} {baseline:12.3e} {mean(mean_square, decayed, step) / baseline:12.3f}   {conditions}")
    print("\n step  loss with cautious decay - loss without, a column a seed")
    for step in losses[decayed, 1]:
        print(f"{step:5d}  " + "  ".join(f"{losses[decayed, seed][step] - losses['normuon', seed][step]:+.4f}"
                                       for seed in range(1, args.seeds + 1)))


if __name__ == "__main__":
    main()
