"""What the cases stand on: a small config with its shards, the program, and how it ended."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXECUTABLE = Path(os.environ.get("SPEEDRUN", REPOSITORY / "build/speedrun"))
MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--quiet"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def shard(path: Path, tokens: list[int]) -> None:
    path.write_bytes(struct.pack("<256i", 20240520, 1, len(tokens), *[0] * 253) + struct.pack(f"<{len(tokens)}H", *tokens))


def documents(tokens: int, seed: int) -> list[int]:
    drawn, text = random.Random(seed), []
    while len(text) < tokens:
        text += [499] + [drawn.randrange(499) for _ in range(drawn.randrange(30, 200))]
    return text


def config(folder: Path) -> dict:
    """Four steps of a model of twelve layers that is 128 wide: a second on one core."""
    return {
        "extends": str(REPOSITORY / "configs/record_43.json"),
        "record": 0,
        "data": {"train": f"{folder}/train.bin", "val": f"{folder}/val.bin", "val_tokens": 512, "rows": 2,
                 "val_micro_batch_tokens": 256, "vocab_size": 500, "bos_id": 499},
        "model": {"vocab_size": 512, "d_model": 128, "n_head": 2, "head_dim": 64, "mlp_hidden": 512,
                  "rope": {"rotary_dims": 32, "table_dtype": "fp32"}, "params": {"scalars": {"shape": [62], "slices": {"pad": None}}}},
        "numerics": {"activations": "fp32", "params": "fp32", "lm_head": {"format": "activations"}},
        "optimizer": {"adam": {"state_dtype": "fp32", "every_n_steps": 1},
                      "matrix": {"momentum": {"warmup_steps": 2, "cooldown_steps": 1}, "orthogonalize": {"dtype": "fp32"}}},
        "schedule": {"scheduled_steps": 3, "extension_steps": 1, "block_size": 8, "eval": {"every": 2, "final_long_window": 3},
                     "stages": [{"start": 0, "batch_tokens": 512, "max_seq_len": 128, "window": {"short": 1, "long": 3}}]},
        "runtime": {"device": "cpu", "threads": 1, "warmup_steps": 0},
    }


class Ended:
    """A program that has ended: code is 128 + the signal where one ended it, 124 where it ran too long."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"code {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-2000:]}"


class Case:
    """A folder of its own, gone at the end, with config and shards of the small model."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="speedrun_case_"))
        shard(self / "train.bin", documents(320_000, 1))
        shard(self / "val.bin", documents(3000, 2))
        (self / "c.json").write_text(json.dumps(config(self.folder)))

    def __str__(self) -> str:
        return str(self.folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, words: list, **options) -> subprocess.Popen:
        options = {"cwd": REPOSITORY, "env": ENVIRONMENT, "text": True, "errors": "replace", "stdin": subprocess.DEVNULL,
                   "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([str(word) for word in words], **options)

    def run(self, *words, seconds: float = 120, **options) -> Ended:
        """speedrun WORDS..."""
        return self.run_program([EXECUTABLE, *words], seconds, **options)

    def run_program(self, words: list, seconds: float = 120, **options) -> Ended:
        process = self.start(words, **options)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            return Ended(124, out or "", err or "")
        code = process.returncode
        return Ended(code if code >= 0 else 128 - code, out or "", err or "")

    def train_words(self, run: str | Path, *more) -> list:
        return ["train", "--config", self / "c.json", "--run-dir", self / run if isinstance(run, str) else run, *more]

    def train(self, run: str | Path, *more, **options) -> Ended:
        return self.run(*self.train_words(run, *more), **options)

    def start_two(self, run: str, *more, **options) -> subprocess.Popen:
        """Two ranks of a run on this machine."""
        words = self.train_words(run, *sets("data.rows=4", "data.val_micro_batch_tokens=128"), *more)
        return self.start([*MPIRUN, "-n", "2", EXECUTABLE, *words], **options)

    def train_on_two(self, folders: list[Path], *more, run_dir: str = "rel") -> Ended:
        """Two ranks, each with another working folder, and its number for RANK among the words."""
        script = self / "rank"
        script.write_text(f'#!/bin/bash\ndirs=({" ".join(map(str, folders))})\n'
                          f'cd "${{dirs[$OMPI_COMM_WORLD_RANK]}}" && exec {EXECUTABLE} "${{@//RANK/$OMPI_COMM_WORLD_RANK}}"\n')
        script.chmod(0o755)
        words = ["train", "--config", self / "c.json", *sets("data.rows=4", "data.val_micro_batch_tokens=128"),
                 "--run-dir", run_dir, *more]
        return self.run_program([*MPIRUN, "-n", "2", script, *words])


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def checkpoints(run: Path) -> list[str]:
    folder = run / "checkpoints"
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes: to see that nothing has changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps_text(losses_at: list[tuple[int, float]], steps: int, step_ms: float) -> str:
    return "".join(f"step:{step}/{steps} val_loss:{loss:.4f} train_time:{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms\n"
                   for step, loss in losses_at)


def own_log(loss: float, seed: int, step_ms: float, steps: int = 8) -> str:
    """A log as this program writes it."""
    rule = "=" * 100 + "\n"
    lines = "".join(f"step:{i}/{steps} train_time:{i * step_ms:.0f}ms step_avg:{step_ms:.2f}ms\n" for i in range(1, steps + 1))
    return (json.dumps({"record": 0, "runtime": {"seed": seed}}, indent=2) + "\n" + rule +
            f"command: speedrun train --config c.json --run-dir r\ncommit: 0123abcd\nseed: {seed}\nworld size: 1\n"
            f"processor: Some CPU\ncores this process may use: 2\n" + rule + lines + steps_text([(steps, loss)], steps, step_ms))


def let_programs_hear_signals() -> None:
    """What nohup, or a shell in the background, has made this process ignore, its children would ignore too."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # ignored here still; a child begins with the default


EVERY_SECOND = sets("runtime.checkpoint.every_steps=2")
EVERY = sets("runtime.checkpoint.every_steps=1")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def require(holds: bool, *shown) -> None:
    if not holds:
        raise AssertionError("\n".join(str(part) for part in shown))


def status(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def wait_until(condition, seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def weights(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    begin = 8 + size
    return {name: data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]] for name, entry in header.items()}


def main(cases: dict) -> int:
    """Runs the cases that are named on the command line, or all."""
    let_programs_hear_signals()
    wanted = sys.argv[1:] or list(cases)
    failed = []
    for name in wanted:
        try:
            with Case() as case:
                cases[name](case)
            print(f"{name}: passed  ({cases[name].__doc__.splitlines()[0]})", flush=True)
        except Exception as error:
            failed.append(name)
            print(f"{name}: FAILED  ({cases[name].__doc__.splitlines()[0]})\n{type(error).__name__}: {error}", flush=True)
    print(f"{len(wanted) - len(failed)} cases passed, {len(failed)} failed" + (": " + ", ".join(failed) if failed else ""))
    return 1 if failed else 0
