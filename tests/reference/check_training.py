#!/usr/bin/env python3
"""Trains a short run with the C++ program and with the twin, from the same weights on the same shards, and compares losses.

    python check_training.py [--executable build/speedrun] [--config configs/quickstart.json] [--dtype fp32 bf16]

The run keeps the config's model, data and optimizer; its schedule is shortened to 20 steps that pass through every window
and the extension. Exit status 1 if a loss differs too much: in bf16 that is twice as much as the twin in bf16 is anywhere
from the twin in fp32, because both programs may be that far from the truth.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import run_config
import shards
from twin import Twin

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS, EXTENSION = 20, 2
# Nats per token. Ten times the largest difference seen with steps of 256 tokens (8e-5): Adam's first steps are signs, so
# rows of the embeddings whose gradients are nearly zero move apart.
FP32_TOLERANCE = 1e-3


def short_config(parent: Path, folder: Path, base) -> Path:
    """A config that extends `parent` with a schedule of STEPS steps."""
    scheduled, stages = STEPS - EXTENSION, base.schedule.stages
    old = base.schedule.scheduled_steps
    short = {"extends": os.path.relpath(parent, folder), "schedule": {
        "scheduled_steps": scheduled, "extension_steps": EXTENSION, "eval": {"every": STEPS // 2},
        "stages": [{"start": stage.start * scheduled // old, "batch_tokens": stage.batch_tokens,
                    "max_seq_len": stage.max_seq_len, "window": vars(stage.window)} for stage in stages]},
        "optimizer": {"matrix": {"momentum": {"warmup_steps": 8, "cooldown_steps": 4}}}}
    path = folder / "short.json"
    path.write_text(json.dumps(short, indent=2))
    return path


def train_twin(run, init: Path) -> dict[tuple[str, int], float]:
    """("train", steps done) and ("val", steps done) -> nats per token."""
    twin, losses = Twin(run).load(init), {}
    twin.model.loss_dtype = torch.float32  # a bf16 sum over a micro-batch has three digits
    data, tokens = run.data, run.schedule.stages[0].batch_tokens
    rows = shards.train_rows(str(ROOT / data.train), data.bos_id, tokens // data.rows, data.rows,
                             run.schedule.stages[0].max_seq_len)

    def validate(step: int) -> None:
        stream = shards.val_rows(str(ROOT / data.val), data.bos_id, data.val_micro_batch_tokens)
        found = twin.validate(step, itertools.islice(stream, data.val_tokens // data.val_micro_batch_tokens))
        losses["val", step] = sum(found) / len(found)

    for step in range(STEPS):
        if step % run.schedule.eval.every == 0:
            validate(step)
        losses["train", step + 1] = sum(twin.train_step(step, next(rows))) / tokens
        print(f"  twin: step {step + 1}/{STEPS}, loss {losses['train', step + 1]:.4f}", file=sys.stderr)
    validate(STEPS)
    return losses


def write_init(run, file: Path) -> None:
    """The reference's initial weights under the run's seed, as the program has them without --init."""
    torch.manual_seed(run.runtime.seed)
    state = {name: p.detach().float().contiguous() for name, p in Twin(run).model.named_parameters()}
    padding = run.model.params.scalars.shape[0] - len(state["scalars"])
    state["scalars"] = F.pad(state["scalars"], (0, padding), value=1.0)
    save_file(state, file)


def train_program(arguments, config: Path, values: list[str], init: Path, run_dir: Path) -> dict[tuple[str, int], float]:
    subprocess.run([arguments.executable, "train", "--config", config, *run_config.overrides(values), "--init", init,
                    "--run-dir", run_dir], check=True, cwd=ROOT, stdout=sys.stderr)
    losses = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        for kind in ("train", "val"):
            if metrics.get(kind + "_loss") is not None:
                losses[kind, metrics["step"]] = metrics[kind + "_loss"]
    return losses


def largest_difference(a: dict, b: dict) -> float:
    assert set(a) == set(b), f"only one has {sorted(set(a) ^ set(b))}"
    return max(abs(a[key] - b[key]) for key in a)


def agree(title: str, a: dict, b: dict, allowed: float) -> bool:
    worst = largest_difference(a, b)
    print(f"\n{title}")
    for kind, step in sorted(a, key=lambda key: (key[1], key[0])):
        x, y = a[kind, step], b[kind, step]
        print(f"  {kind:5} {step:3}  {x:.6f}  {y:.6f}  {x - y:+.2e}")
    print(f"  largest difference {worst:.2e}, allowed {allowed:.2e}", flush=True)
    return worst <= allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executable", default=str(ROOT / "build" / "speedrun"))
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.json")
    parser.add_argument("--set", action="append", default=[], help="override, as the program takes it")
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    failed = False
    with tempfile.TemporaryDirectory(prefix="check_training_") as folder:
        folder = Path(folder)
        base = run_config.resolve(arguments.executable, str(arguments.config), arguments.set)
        config = short_config(arguments.config.resolve(), folder, base)
        curves = {}
        for dtype in ("fp32", "bf16")[:1 + ("bf16" in arguments.dtype)]:  # bf16 needs the twin's fp32 as its measure
            values = [*arguments.set, *run_config.PRECISION[dtype]]
            run = run_config.resolve(arguments.executable, str(config), values)
            init = folder / f"init_{dtype}.safetensors"
            write_init(run, init)
            curves[dtype] = train_twin(run, init)
            if dtype not in arguments.dtype:
                continue
            program = train_program(arguments, config, values, init, folder / f"run_{dtype}")
            allowed = FP32_TOLERANCE if dtype == "fp32" else 2 * largest_difference(curves["bf16"], curves["fp32"])
            failed |= not agree(f"{dtype}: speedrun, twin, difference", program, curves[dtype], allowed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
