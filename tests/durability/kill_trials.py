#!/usr/bin/env python3
"""Kills runs at random moments, lets them go on, and compares what they end with.

    .deps/venv/bin/python tests/durability/kill_trials.py [--trials 200] [--ranks 1] [--kills 2] [--seed 0]

Each trial trains the golden model of record 43 for 12 steps with a checkpoint after every second one. It is killed with
SIGKILL (the whole job, where there are several ranks) up to --kills times, each time a random moment after its start,
and started again with `--resume auto --overwrite`. Passed: its last words are the weights and losses of a run that was
not killed, bit for bit, and no unfinished checkpoint is left. Exit code 1 where a trial fails.
"""
import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_inputs(folder: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tests/reference/golden_inputs.py", "--out", folder], check=True, capture_output=True)


def command(args, inputs: Path, run: Path) -> list[str]:
    ranks = ["mpirun", "-n", str(args.ranks), "--oversubscribe", "--allow-run-as-root", "--quiet"] if args.ranks > 1 else []
    settings = [f"data.train={inputs}/data/fineweb10B/fineweb_train_000001.bin", f"data.val={inputs}/data/fineweb10B/fineweb_val_*.bin", "runtime.threads=1",
                "runtime.checkpoint.every_steps=1"]
    return [*ranks, args.executable, "train", "--config", str(ROOT / "tests/golden/golden_tiny.json"), "--init",
            f"{inputs}/init.safetensors", "--run-dir", str(run), "--resume", "auto", "--overwrite",
            *(word for setting in settings for word in ("--set", setting))]


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def outcome(run: Path) -> tuple[str, list]:
    """Hash of the weights, and the losses of every step and validation."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return (hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest(),
            [(line["step"], line.get("train_loss"), line.get("val_loss")) for line in lines])


def finish(words: list[str]) -> str:
    process = start(words)
    text = process.communicate(timeout=300)[0].decode()
    return "" if process.returncode == 0 else f"exit code {process.returncode}: {text[-600:]}"


def kill_after(words: list[str], seconds: float, run: Path) -> tuple[bool, bool]:
    """Whether the run was still there to be killed, and whether it was in the middle of a save."""
    process = start(words)
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-f", "--", f"--run-dir {run} "], check=False)  # ranks have sessions of their own
    process.wait()
    return alive, alive and any((run / "checkpoints").glob(".step_*"))


def trial(args, inputs: Path, run: Path, chance: random.Random, seconds: float) -> tuple[str, int, int]:
    words, kills, in_save = command(args, inputs, run), 0, 0
    for _ in range(args.kills):
        alive, saving = kill_after(words, chance.uniform(0, seconds), run)
        kills, in_save = kills + alive, in_save + saving
    return finish(words), kills, in_save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executable", default=str(ROOT / "build/speedrun"))
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Path(temporary)
        make_inputs(inputs)
        began = time.monotonic()
        assert (error := finish(command(args, inputs, inputs / "whole"))) == "", error
        seconds = time.monotonic() - began
        expected = outcome(inputs / "whole")
        survived = kills = in_save = 0
        for number in range(args.trials):
            run = inputs / f"trial_{number}"
            error, killed, saving = trial(args, inputs, run, chance, seconds)
            kills, in_save = kills + killed, in_save + saving
            left = [path.name for path in (run / "checkpoints").glob(".*")] if error == "" else []
            if error == "" and outcome(run) == expected and not left:
                survived += 1
            else:
                print(f"trial {number} failed: {error or left or 'other weights or losses'}", flush=True)
            subprocess.run(["rm", "-rf", run], check=True)
        print(f"{survived}/{args.trials} trials survived; {kills} kills, {in_save} of them inside a save; "
              f"{args.ranks} rank(s), {time.monotonic() - began:.0f} s")
        sys.exit(survived != args.trials)


if __name__ == "__main__":
    main()
