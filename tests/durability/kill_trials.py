#!/usr/bin/env python3
"""Kills runs at random moments, lets them go on, and compares what they end with.

    .deps/venv/bin/python tests/durability/kill_trials.py [--trials 200] [--ranks 1] [--kills 2] [--seed 0]

Each trial trains the golden model of record 43 for 12 steps with a checkpoint after every second one. It is killed with
SIGKILL (the whole job, where there are several ranks) up to --kills times, each time a random moment after its start,
and started again with `--resume auto --overwrite`. Passed: its last words are the weights and losses of a run that was
not killed, bit for bit, and no unfinished checkpoint is left. Exit code 1 where a trial fails.
"""
import random
import sys
import tempfile
import time
from pathlib import Path

from golden_jobs import Jobs, arguments, kill_job, outcome, remove


def kill_after(jobs: Jobs, seconds: float, run: Path) -> tuple[bool, bool]:
    """Whether the run was still there to be killed, and whether it was in the middle of a save."""
    process = jobs.start(run)
    time.sleep(seconds)
    alive = kill_job(process, run)
    return alive, alive and any((run / "checkpoints").glob(".step_*"))


def trial(jobs: Jobs, run: Path, kills: int, chance: random.Random, seconds: float) -> tuple[str, int, int]:
    met = in_save = 0
    for _ in range(kills):
        alive, saving = kill_after(jobs, chance.uniform(0, seconds), run)
        met, in_save = met + alive, in_save + saving
    return jobs.finish(run), met, in_save


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Path(temporary)
        jobs = Jobs(args.executable, inputs, args.ranks, ["runtime.checkpoint.every_steps=1"])
        began = time.monotonic()
        assert (error := jobs.finish(inputs / "whole")) == "", error
        seconds = time.monotonic() - began
        expected = outcome(inputs / "whole")
        survived = kills = in_save = 0
        for number in range(args.trials):
            run = inputs / f"trial_{number}"
            error, killed, saving = trial(jobs, run, args.kills, chance, seconds)
            kills, in_save = kills + killed, in_save + saving
            left = [path.name for path in (run / "checkpoints").glob(".*")] if error == "" else []
            if error == "" and outcome(run) == expected and not left:
                survived += 1
            else:
                print(f"trial {number} failed: {error or left or 'other weights or losses'}", flush=True)
            remove(run)
        print(f"{survived}/{args.trials} trials survived; {kills} kills, {in_save} of them inside a save; "
              f"{args.ranks} rank(s), {time.monotonic() - began:.0f} s")
        sys.exit(survived != args.trials)


if __name__ == "__main__":
    main()
