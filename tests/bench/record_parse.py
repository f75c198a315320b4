#!/usr/bin/env python3
"""Parse rate of logs: src/record against the regular expressions that a Python script would use for the same work.

    ninja -C build record_bench && python3 tests/bench/record_parse.py [--executable build/record_bench] [FOLDER]

Without FOLDER it writes logs of the published shape (150 KB of source, nvidia-smi's table, 1,390 steps) to a temporary
one. Both read the same files in the same job, in turns, one thread each; the figure is the least processor time.
"""
import argparse
import hashlib
import io
import json
import pathlib
import re
import subprocess
import tempfile
import time

RULE = "=" * 100
STEP = re.compile(r"step:(\d+)/(\d+)(?: val_loss:(\S+))?(?: train_loss:\S+)?(?: val_\w+_loss:\S+)* "
                  r"train_time:([\d.]+)(ms|s) step_avg:(nan|[\d.]+)ms")
SHORT = re.compile(r"s:(\d+) (tel|trl):(\S+)")
GPU = re.compile(r"\|\s+\d+\s+(.*?)\s+(?:On|Off) ")
VERSION = re.compile(r"Running (\S+) (?:version )?(\S+)")


def parse(path: pathlib.Path) -> list[dict]:
    """The runs of a log: steps and validations with their times, hardware, versions, hash of the source; hash of the file,
    by which copies are known; step lines that could not be read."""
    runs, source, gpus, versions = [], hashlib.blake2b(digest_size=8), [], {}
    in_source, last, unplaced = True, None, []
    content = path.read_bytes()
    content_hash = hashlib.blake2b(content, digest_size=8).hexdigest()
    with io.StringIO(content.decode("utf-8", errors="replace")) as file:
        for number, line in enumerate(file, 1):
            if match := STEP.match(line):
                step, time_ms = int(match[1]), float(match[4]) * (1000 if match[5] == "s" else 1)
                if last is None or step < last:
                    runs.append({"scheduled": int(match[2]), "steps": [], "validations": []})
                last = step
                kind = "validations" if match[3] else "steps"
                runs[-1][kind].append((step, float(match[3] or "nan"), time_ms))
            elif match := SHORT.match(line):
                if last is None or int(match[1]) < last:
                    runs.append({"scheduled": None, "steps": [], "validations": []})
                last = int(match[1])
                if match[2] == "tel":
                    runs[-1]["validations"].append((last, float(match[3]), None))
            elif in_source:
                if line.startswith(RULE):
                    in_source = False
                else:
                    source.update(line.encode())
            elif line.startswith(("step:", "s:")):
                unplaced.append((number, line))
            elif match := GPU.match(line):
                gpus.append(match[1])
            elif match := VERSION.match(line):
                versions[match[1]] = match[2]
    for run in runs:
        run.update(gpus=gpus, versions=versions, source=source.hexdigest(), content=content_hash, unplaced=unplaced)
    return runs


def write_log(path: pathlib.Path, index: int) -> None:
    lines = [f"        x{i} = self.layers[{i % 12}](x{i - 1}, ve[{i % 7}])" for i in range(3000)]
    lines += [RULE, "Running Python 3.12.3 (main)", "Running PyTorch 2.10.0+cu128 compiled for CUDA 12.8"]
    lines += [f"|   {i}  NVIDIA H100 80GB HBM3          On  |   00000000:8D:00.0 Off |                    0 |" for i in range(8)]
    lines += [RULE]
    for step in range(1391):
        now = 57 * step + index
        if step > 0:
            lines.append(f"step:{step}/1390 train_time:{now}ms step_avg:{now / step:.2f}ms")
        if step % 250 == 0 or step == 1390:
            lines.append(f"step:{step}/1390 val_loss:{3.2784 + 7 / (step + 1):.4f} train_time:{now}ms step_avg:{now / max(step, 1):.2f}ms")
    path.write_text("\n".join(lines) + "\n")


def python_pass(files: list[pathlib.Path]) -> dict:
    start = time.process_time()
    runs = [run for file in files for run in parse(file)]
    return {"seconds": time.process_time() - start, "runs": len(runs), "steps": sum(len(r["steps"]) for r in runs),
            "validations": sum(len(r["validations"]) for r in runs)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", nargs="?", type=pathlib.Path)
    options.add_argument("--executable", default="build/record_bench")
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        if args.folder is None:
            for i in range(40):
                write_log(folder / f"{i}.txt", i)
        files = sorted(f for suffix in ("txt", "log") for f in folder.rglob(f"*.{suffix}"))
        ours, python = [], []
        for _ in range(args.rounds):
            ours.append(json.loads(subprocess.check_output([args.executable, "3", *map(str, files)])))
            python.append(python_pass(files))
    best, other = (min(passes, key=lambda p: p["seconds"]) for passes in (ours, python))
    megabytes = best["bytes"] / 1e6
    for name, one in (("speedrun", best), ("Python", other)):
        print(f"{name:9} {megabytes / one['seconds']:8.1f} MB/s  {one['seconds']:.3f} s  {one['runs']} runs, {one['steps']} steps, "
              f"{one['validations']} validations")
    print(f"{len(files)} files, {megabytes:.1f} MB: {other['seconds'] / best['seconds']:.1f} times as fast")


if __name__ == "__main__":
    main()
