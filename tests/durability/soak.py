#!/usr/bin/env python3
"""Long runs: one that is disturbed all the time, and one whose memory is watched.

    .deps/venv/bin/python tests/durability/soak.py [--minutes 60] [--steps 2000] [--ranks 2] [--seed 0]
    .deps/venv/bin/python tests/durability/soak.py --flat [--steps 10000]

The golden model of record 43 on more data. First a run of --steps on two ranks that nothing happens to. Then, until the minutes
are over, runs of the same config with checkpoints every 20 steps, disturbed every few seconds (SIGKILL to one rank or all, SIGTERM,
SIGINT, SIGUSR1 and SIGKILL, see golden_jobs.py) and resumed until each has ended; the last one is let go on to its end. Passed: every
one ends with the weights and losses of the first, bit for bit, one line a step and one clock.

--flat: one run on one rank, steps of one micro-batch, a checkpoint every 500 steps; the memory of its own between steps (RssAnon),
every 500 steps. Passed: after a tenth of the steps it grows by less than 4 MB, which malloc's heap does by 2 MB now and then, and over
the last 40 % by less than 256 kB, 64 bytes a step.

Exit code 1 where something failed.
"""
import collections
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from golden_jobs import ROOT, WAYS, Jobs, arguments, clock_is_continuous, disturb, outcome, remove, steps_done

sys.path.insert(0, str(ROOT / "tests/reference"))
import golden_inputs  # noqa: E402

STAGES = 4  # of the golden config


def long_run(folder: Path, executable: str, ranks: int, steps: int, batch_tokens: int) -> Jobs:
    jobs = Jobs(executable, folder, ranks)
    tokens = golden_inputs.tokens("train1", 50_000)
    read = 2 * steps * batch_tokens  # at most: documents are cut
    golden_inputs.write_shard(folder / "long.bin", np.tile(tokens, 1 + read // len(tokens)))
    jobs.settings += [f"schedule.stages[{stage}].batch_tokens={batch_tokens}" for stage in range(STAGES)]
    jobs.settings += [f"data.train={folder}/long.bin", f"schedule.scheduled_steps={steps - 3}", f"schedule.eval.every={max(1, steps // 4)}"]
    return jobs


def disturbed_run(jobs: Jobs, run: Path, chance: random.Random, end: float, met: collections.Counter) -> str:
    """Starts and disturbs the run until it has ended, from `end` on without disturbing it; what went wrong, or ""."""
    settings = ["runtime.checkpoint.every_steps=20"]
    while time.monotonic() < end:
        process = jobs.start(run, settings)
        until = time.monotonic() + chance.uniform(1, 25)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is not None:
            return "" if process.returncode == 0 else f"exit code {process.returncode}: {run.with_suffix('.out').read_text()[-800:]}"
        way = chance.choice(WAYS)
        met[way] += disturb(process, run, way, chance)
    return jobs.finish(run, settings, limit_s=3600)


def soak(args, folder: Path) -> bool:
    chance, met, began = random.Random(args.seed), collections.Counter(), time.monotonic()
    jobs = long_run(folder, args.executable, args.ranks, args.steps, batch_tokens=2048)
    assert (error := jobs.finish(folder / "whole", limit_s=3600)) == "", error
    expected = outcome(folder / "whole")
    print(f"the run that nothing happens to: {args.steps} steps, {time.monotonic() - began:.0f} s", flush=True)
    end, ended, failed = time.monotonic() + 60 * args.minutes, 0, 0
    while time.monotonic() < end:
        run = folder / f"soak_{ended + failed}"
        error = disturbed_run(jobs, run, chance, end, met)
        if error == "" and outcome(run) != expected:
            error = "other weights or losses"
        if error == "" and not clock_is_continuous(run):
            error = "steps or times that are not in order"
        ended, failed = ended + (error == ""), failed + (error != "")
        if error:
            print(f"run {run.name} failed: {error}", flush=True)
        remove(run)
    ways = ", ".join(f"{count} x {way}" for way, count in sorted(met.items()))
    print(f"{ended}/{ended + failed} disturbed runs of {args.steps} steps on {args.ranks} ranks ended with the same bits; {met.total()} "
          f"disturbances: {ways}; {(time.monotonic() - began) / 60:.1f} min")
    return failed == 0


def memory_kb(process: int) -> dict[str, int]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in lines) if name in ("RssAnon", "VmRSS", "VmHWM")}


def flat(args, folder: Path) -> bool:
    jobs, run, began = long_run(folder, args.executable, 1, args.steps, batch_tokens=256), folder / "flat", time.monotonic()
    os.environ["MALLOC_ARENA_MAX"] = "1"  # else each thread that writes a checkpoint may keep a buffer of 1 MB of its own
    process, every, at, own, least = jobs.start(run, ["runtime.checkpoint.every_steps=500"]), args.steps // 20, 0, {}, None
    while process.poll() is None:
        for _ in range(10):  # inside a step there are temporaries: the least of many looks is what stays
            time.sleep(0.1)
            try:
                found = memory_kb(process.pid)
                least = min(least or found["RssAnon"], found["RssAnon"])
                memory = found
            except (OSError, KeyError):
                break  # it has ended
        step = steps_done(run)
        if step >= at + every and least is not None:
            at, own[step - step % every], least = step - step % every, least, None
            print(f"step {at}: own {own[at]} kB, resident {memory['VmRSS']} kB, peak {memory['VmHWM']} kB", flush=True)
    # after the last step it gives all back
    late, last = ([kb for step, kb in own.items() if begin <= step < args.steps] for begin in (args.steps // 10, args.steps * 6 // 10))
    if process.returncode != 0 or len(last) < 2:
        print(f"exit code {process.returncode}: {run.with_suffix('.out').read_text(errors='replace')[-800:]}")
        return False
    grown, grown_last = (found[-1] - found[0] for found in (late, last))
    print(f"{args.steps} steps, exit code {process.returncode}, {time.monotonic() - began:.0f} s: own memory changed by {grown:+} kB from step "
          f"{args.steps // 10} on, by {grown_last:+} kB from step {args.steps * 6 // 10} on")
    return grown < 4096 and grown_last < 256


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, help="2000; with --flat 10000")
    parser.add_argument("--flat", action="store_true")
    args = parser.parse_args()
    args.steps = args.steps or (10_000 if args.flat else 2_000)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not (flat if args.flat else soak)(args, Path(temporary)))


if __name__ == "__main__":
    main()
