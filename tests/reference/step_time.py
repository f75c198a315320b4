#!/usr/bin/env python3
"""Time of a training step: the C++ program against the PyTorch twin, eager and compiled, in one alternating run.

    python step_time.py [--executable build/speedrun] [--device cpu] [--dtype fp32 bf16] [--rounds 5] [--steps 4]

Each contender is a process of its own. A round lets one after the other do `steps` steps while the others sleep, so that
whatever else the machine does hits all of them alike. PyTorch gets what makes it fastest here, compilation off the clock.
On a CPU: attention in blocks (twin.attention), flushed denormals, and each of its ways twice, with malloc as it is and with
a malloc that keeps its memory: the latter is faster and needs more. On a GPU: compiled, with each of the two attentions that
PyTorch has for documents, and the head in 8 bits where the config has it so; the memory shown is the host's.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import run_config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# glibc otherwise returns every large tensor to the system and takes page faults for it again in the next step.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20),
               "MALLOC_ARENA_MAX": "1"}


# ---- a PyTorch process -------------------------------------------------------------------------------------------

def peak_mb(on_gpu: bool) -> float:
    """Of the GPU what torch had given to tensors, of the host the resident set."""
    if on_gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak(on_gpu: bool) -> None:
    if on_gpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5")


def torch_worker(spec: dict) -> None:
    """Reads numbers of steps from stdin, answers each with a line of JSON."""
    import torch

    from shards import Batch
    from twin import Twin

    torch.set_num_threads(spec["threads"])
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    run, on_gpu = run_config.from_json(spec["run"]), spec["device"] == "cuda"
    twin = Twin(run, device=spec["device"]).attend_by(spec["attention"])
    if on_gpu and run.numerics.lm_head.format == "fp8":
        twin.fp8_head(run.numerics.lm_head)
    if spec["mode"]:
        twin.compile(spec["mode"])
    tokens = torch.randint(run.data.vocab_size, (2, spec["tokens"]))
    tokens = tokens.pin_memory() if on_gpu else tokens
    batch = Batch(tokens[0], tokens[1], torch.arange(0, spec["tokens"], spec["document"]))
    settings = twin.at(0)

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(k: int) -> tuple[float, float]:
        start = now()
        twin.forward_backward(settings, [batch])
        middle = now()
        twin.update(k, settings)
        return 1000 * (middle - start), 1000 * (now() - middle)

    start = time.perf_counter()
    for k in range(2):
        step(k)
    first = time.perf_counter() - start
    compile_peak = peak_mb(on_gpu)
    forget_peak(on_gpu)  # from here on it is that of steps, not of compiling
    print(json.dumps({"start_s": first, "start_peak_mb": compile_peak}), flush=True)
    for line in sys.stdin:
        times = [step(k) for k in range(int(line))]
        print(json.dumps({"forward_backward_ms": [t[0] for t in times], "optimizer_ms": [t[1] for t in times],
                          "peak_memory_mb": peak_mb(on_gpu)}), flush=True)


class TorchContender:
    def __init__(self, name: str, spec: dict, environment: dict[str, str]):
        self.name = name
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", json.dumps(spec)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=os.environ | environment, cwd=HERE)
        self.started = self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)

    def steps(self, count: int) -> dict:
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class CppContender:
    """A fresh process each time: it reports its own peak, which `wait4` confirms on a CPU. On a GPU its steps are those from graphs."""
    name = "speedrun"

    def __init__(self, arguments: argparse.Namespace, overrides: list[str]):
        self.command = [arguments.executable, "bench", "step", "--config", arguments.config, *run_config.overrides(overrides),
                        "--tokens", str(arguments.tokens), "--document", str(arguments.document), "--json"]
        self.started, self.on_gpu = {}, arguments.device == "cuda"

    def steps(self, count: int) -> dict:
        process = subprocess.Popen([*self.command, "--steps", str(count)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(self.command)} ended with status {process.returncode}")
        result = json.loads(output)
        if self.on_gpu:
            return result | result.get("cuda_graphs", {})
        return result | {"peak_memory_mb": max(result["peak_memory_mb"], usage.ru_maxrss / 1024)}

    def close(self) -> None:
        pass


# ---- the comparison ----------------------------------------------------------------------------------------------

def contenders(arguments: argparse.Namespace, dtype: str):
    overrides = [*run_config.PRECISION[dtype], *arguments.set, f"runtime.threads={arguments.threads}",
                 f"runtime.device={arguments.device}"]
    run = subprocess.run([arguments.executable, "config", "show", arguments.config, *run_config.overrides(overrides)],
                         check=True, capture_output=True, text=True, cwd=ROOT).stdout
    spec = {"run": run, "threads": arguments.threads, "tokens": arguments.tokens, "document": arguments.document, "mode": None,
            "device": arguments.device, "attention": (arguments.attention or [{"bf16": "explicit", "fp32": "sdpa"}[dtype]])[0]}
    if not arguments.no_cpp:
        yield CppContender(arguments, overrides)
    if arguments.device == "cuda":
        for mode in arguments.compile:
            for attention in arguments.attention or ["varlen", "flex"]:
                yield TorchContender(f"compiled, {mode}, {attention}", spec | {"mode": mode, "attention": attention}, {})
        return
    for mode in [None, *arguments.compile]:
        name = f"compiled, {mode}" if mode else "eager"
        yield TorchContender(name, spec | {"mode": mode}, {})
        yield TorchContender(f"{name}, malloc keeps", spec | {"mode": mode}, KEEP_MEMORY)


def compare(arguments: argparse.Namespace, dtype: str) -> dict:
    entrants, results = [], {}
    try:
        for contender in contenders(arguments, dtype):
            entrants.append(contender)
            results[contender.name] = {"forward_backward_ms": [], "optimizer_ms": [], "peak_memory_mb": 0.0, **contender.started}
        for _ in range(arguments.rounds):
            for contender in entrants:
                found, result = contender.steps(arguments.steps), results[contender.name]
                result["forward_backward_ms"] += found["forward_backward_ms"]
                result["optimizer_ms"] += found["optimizer_ms"]
                result["peak_memory_mb"] = max(result["peak_memory_mb"], found["peak_memory_mb"])
    finally:
        for contender in entrants:
            contender.close()
    return results


def table(results: dict) -> str:
    unit = "speedrun" if "speedrun" in results else "eager"
    base = results[unit]
    lines = [f"| | forward + backward, median ms | min ms | median / {unit} | min / {unit} | optimizer, median ms | peak MB | "
             f"peak / {unit} | to start, s |", "|---|---|---|---|---|---|---|---|---|"]
    for name, r in results.items():
        times, own = r["forward_backward_ms"], base["forward_backward_ms"]
        median = statistics.median(times)
        lines.append(f"| {name} | {median:.0f} | {min(times):.0f} | {median / statistics.median(own):.2f} | "
                     f"{min(times) / min(own):.2f} | {statistics.median(r['optimizer_ms']):.0f} | {r['peak_memory_mb']:.0f} | "
                     f"{r['peak_memory_mb'] / base['peak_memory_mb']:.2f} | {r.get('start_s', 0):.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executable", default=str(ROOT / "build" / "speedrun"))
    parser.add_argument("--config", default="configs/quickstart.json", help="seen from the root of the repository")
    parser.add_argument("--set", action="append", default=[], help="override, as the program takes it")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--document", type=int, default=400, help="tokens of a document")
    parser.add_argument("--block-size", type=int, default=128, help="tokens of a window block")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of one contender in a round")
    parser.add_argument("--compile", nargs="*", default=["default"], help="modes of torch.compile")
    parser.add_argument("--attention", nargs="+", choices=["sdpa", "explicit", "varlen", "flex"],
                        help="PyTorch's; default: on a CPU the faster for the dtype, on a GPU varlen and flex")
    parser.add_argument("--no-cpp", action="store_true", help="PyTorch alone")
    parser.add_argument("--json", type=Path, help="also writes every single time there")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return torch_worker(json.loads(arguments.worker))
    arguments.set.append(f"schedule.block_size={arguments.block_size}")
    everything = {}
    for dtype in arguments.dtype:
        everything[dtype] = compare(arguments, dtype)
        print(f"\n{dtype}: {arguments.tokens} tokens, {arguments.threads} threads, {arguments.rounds} rounds of "
              f"{arguments.steps} steps\n\n{table(everything[dtype])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything))


if __name__ == "__main__":
    main()
