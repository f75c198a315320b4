"""The golden model of record 43 as jobs that are disturbed: shared by the programs beside this file."""
import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12  # of the golden run


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executable", default=str(ROOT / "build/speedrun"))
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    return parser


class Jobs:
    """Runs of one config on `ranks` ranks, each in a folder of its own below `folder`."""

    def __init__(self, executable: str, folder: Path, ranks: int, settings: list[str] = ()):
        self.executable, self.folder, self.ranks, self.settings = executable, folder, ranks, list(settings)
        if not (folder / "init.safetensors").exists():
            subprocess.run([sys.executable, ROOT / "tests/reference/golden_inputs.py", "--out", folder], check=True, capture_output=True)

    def command(self, run: Path, settings: list[str] = ()) -> list[str]:
        data = self.folder / "data/fineweb10B"
        launcher = ["mpirun", "-n", str(self.ranks), "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--quiet"]
        fixed = [f"data.train={data}/fineweb_train_000001.bin", f"data.val={data}/fineweb_val_*.bin", "runtime.threads=1"]
        return [*(launcher if self.ranks > 1 else []), self.executable, "train", "--config", str(ROOT / "tests/golden/golden_tiny.json"),
                "--init", str(self.folder / "init.safetensors"), "--run-dir", str(run), "--resume", "auto", "--overwrite",
                *(word for setting in [*fixed, *self.settings, *settings] for word in ("--set", setting))]

    def start(self, run: Path, settings: list[str] = ()) -> subprocess.Popen:
        output = open(run.with_suffix(".out"), "ab")
        with output:
            return subprocess.Popen(self.command(run, settings), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                    start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def finish(self, run: Path, settings: list[str] = (), limit_s: float = 300) -> str:
        """Runs to the end; what went wrong, or ""."""
        process = self.start(run, settings)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            kill_job(process, run)
            return f"still running after {limit_s} s"
        return "" if code == 0 else f"exit code {code}: {run.with_suffix('.out').read_text(errors='replace')[-800:]}"


def ranks_of(run: Path) -> list[int]:
    """The processes that train in `run`, without their launcher, in order of their ids."""
    wanted, found = f"--run-dir\0{run}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted in words and words.split(b"\0", 1)[0].endswith(b"speedrun"):
            found.append(int(folder.name))
    return sorted(found)


def send(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
        return True
    except ProcessLookupError:
        return False


def kill_job(process: subprocess.Popen, run: Path) -> bool:
    """SIGKILL for launcher and ranks at once; whether something was still there. Ranks have sessions of their own."""
    alive = process.poll() is None
    for each in [process.pid, *ranks_of(run)] if alive else []:
        send(each, signal.SIGKILL)
    process.wait()
    while ranks_of(run):
        time.sleep(0.01)
    return alive


def metrics(run: Path) -> list[dict]:
    """Whole lines of the run's metrics."""
    try:
        text = (run / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def steps_done(run: Path) -> int:
    return max((line["step"] for line in metrics(run) if "train_loss" in line), default=0)


def outcome(run: Path) -> tuple[str, list]:
    """Hash of the weights, and the losses of every step and validation."""
    return (hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest(),
            [(line["step"], line.get("train_loss"), line.get("val_loss")) for line in metrics(run)])


def clock_is_continuous(run: Path) -> bool:
    """One clock that only grows over all of a run's lines, and one line a step."""
    lines = metrics(run)
    times, steps = [line["train_time_ms"] for line in lines], [line["step"] for line in lines if "train_loss" in line]
    return times == sorted(times) and steps == sorted(set(steps))


def remove(run: Path) -> None:
    subprocess.run(["rm", "-rf", run, run.with_suffix(".out")], check=True)


def disturb(process: subprocess.Popen, run: Path, how: str, chance: random.Random) -> bool:
    """Does `how` to a running job and waits for its end; whether there was still something to disturb.

    "kill job": SIGKILL to all at once; "kill rank": to one of the ranks; "term", "int": a clean stop, to one rank;
    "usr1": a wish for a checkpoint, and SIGKILL to all a moment later.
    """
    ranks = ranks_of(run)
    if process.poll() is not None or not ranks:
        return kill_job(process, run) and False
    if how == "kill job":
        return kill_job(process, run)
    number = {"kill rank": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "usr1": signal.SIGUSR1}[how]
    met = send(chance.choice(ranks), number)
    if how == "usr1":
        time.sleep(chance.uniform(0, 0.5))
        return kill_job(process, run) or met
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        kill_job(process, run)
        raise AssertionError(f"{how}: the job did not end within a minute") from None
    return met


WAYS = ["kill job", "kill rank", "term", "int", "usr1"]
