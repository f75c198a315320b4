#!/usr/bin/env python3
"""Cuts runs after random steps in random ways, lets them go on, and compares them with runs that were not cut.

    .deps/venv/bin/python tests/durability/split_points.py [--trials 50] [--seed 0]

Trials take turns on one and on two ranks: the golden model of record 43, 12 steps, Adam every second one. A trial draws
how often checkpoints are saved (never, after every step that can, after every fifth), one to three steps after which it is cut, a
moment within the step, and the way: SIGTERM or SIGINT to a rank (saves and stops), SIGKILL to a rank or to all,
SIGUSR1 (saves and goes on) with SIGKILL to all soon after. Then `--resume auto` until the end. Passed: weights and losses of
a run on as many ranks that was not cut, bit for bit; one line a step; one clock that only grows. Exit code 1 where a
trial fails.
"""
import collections
import random
import sys
import tempfile
import time
from pathlib import Path

from golden_jobs import STEPS, WAYS, Jobs, arguments, clock_is_continuous, disturb, outcome, remove, steps_done


def cut(jobs: Jobs, run: Path, step: int, way: str, settings: list[str], chance: random.Random) -> bool:
    process = jobs.start(run, settings)
    while process.poll() is None and steps_done(run) < step:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))  # a step takes about as long
    return disturb(process, run, way, chance)


def trial(jobs: Jobs, run: Path, chance: random.Random, met: collections.Counter) -> str:
    settings = [f"runtime.checkpoint.every_steps={chance.choice([0, 1, 5])}"]
    plan = [(step, chance.choice(WAYS)) for step in sorted(chance.sample(range(1, STEPS), chance.randint(1, 3)))]
    for step, way in plan:
        met[way] += cut(jobs, run, step, way, settings, chance)
    error = jobs.finish(run, settings)
    return error and f"{plan}, {settings[0]}: {error}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=50)
    args = parser.parse_args()
    chance, met, equal, began = random.Random(args.seed), collections.Counter(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        jobs = {ranks: Jobs(args.executable, Path(temporary), ranks) for ranks in (1, 2)}
        expected = {}
        for ranks in jobs:
            whole = Path(temporary) / f"whole_{ranks}"
            assert (error := jobs[ranks].finish(whole)) == "", error
            expected[ranks] = outcome(whole)
        for number in range(args.trials):
            ranks, run = 1 + number % 2, Path(temporary) / f"trial_{number}"
            error = trial(jobs[ranks], run, chance, met)
            if error == "" and outcome(run) != expected[ranks]:
                error = "other weights or losses"
            if error == "" and not clock_is_continuous(run):
                error = "steps or times that are not in order"
            equal += error == ""
            if error:
                print(f"trial {number} on {ranks} rank(s) failed: {error}", flush=True)
            remove(run)
    ways = ", ".join(f"{count} x {way}" for way, count in sorted(met.items()))
    print(f"{equal}/{args.trials} equal bit for bit to runs that were not cut; {met.total()} cuts: {ways}; {time.monotonic() - began:.0f} s")
    sys.exit(equal != args.trials)


if __name__ == "__main__":
    main()
