#!/usr/bin/env python3
"""Lost power, full disks, signals, strangers on the network and hostile files, each as what the program does: the table of
docs/verification_cases.md goes on with them.

    tests/cases/test_attacks.py [NAME...]      the cases of these names, or all; needs build/speedrun and Open MPI
"""
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from fixture import (ENVIRONMENT, EXECUTABLE, EVERY, EVERY_SECOND, NOBODY, REPOSITORY, Case, checkpoints, config, main, own_log, require,
                     sets, status, tree, wait_until, weights)


def case_power_loss(case: Case) -> None:
    """After a power loss, which leaves of a file what was synced, a run goes on from its last checkpoint."""
    run = case / "run"
    synced = case / "synced"
    preload = REPOSITORY / "build/tests/libsynced_sizes.so"
    environment = {**ENVIRONMENT, "LD_PRELOAD": str(preload), "SPEEDRUN_SYNCED_SIZES": str(synced)}
    words = sets("schedule.scheduled_steps=16", "schedule.eval.every=0", "runtime.checkpoint.keep_last=50")
    process = case.start([EXECUTABLE, *case.train_words("run", *words, *EVERY_SECOND)], env=environment)
    require(wait_until(lambda: len([name for name in checkpoints(run) if name.startswith("step_")]) >= 3), process.poll())
    process.kill(), process.wait()
    # What was never synced is gone, what was synced has the size that it had then.
    sizes = {}
    for line in synced.read_text().splitlines():
        size, inode = line.split(" ")
        sizes[int(inode)] = int(size)
    for path in (run / "log.txt", run / "metrics.jsonl"):
        size = sizes.get(path.stat().st_ino, 0)
        require(0 < size, path, "was never synced")
        os.truncate(path, size)
    ended = case.train("run", *words, *EVERY_SECOND, "--resume", "auto")
    require(ended.code == 0 and "lines are missing" not in ended.out, ended)
    # One from before that, whose log is shorter than its checkpoints count on, goes on with a note.
    shutil.rmtree(run / "checkpoints"), shutil.rmtree(run)
    require(case.train("run", *EVERY_SECOND).code == 0)
    shutil.rmtree(run / "checkpoints/step_00000004"), os.truncate(run / "log.txt", 0), os.truncate(run / "metrics.jsonl", 10)
    ended = case.train("run", *EVERY_SECOND, "--resume", "auto")
    require(ended.code == 0 and "log.txt had" in ended.out and "of which 0 are left" in ended.out, ended)
    ended = case.run("record", "parse", "--json", run / "log.txt")
    require(json.loads(ended.out)[0]["complete"], ended)


def case_going_back(case: Case) -> None:
    """Going back to an earlier checkpoint removes none that the run then saves; copies are nobody's to touch."""
    run = case / "run"
    words = sets("schedule.scheduled_steps=9", "schedule.eval.every=0", "runtime.checkpoint.keep_last=2")
    require(case.train("run", *words, *sets("runtime.checkpoint.every_steps=1", "runtime.checkpoint.keep_last=20")).code == 0)
    saved = checkpoints(run)
    require(saved[0] == "step_00000001" and saved[-1] == "step_00000010", saved)
    shutil.copytree(run / "checkpoints/step_00000003", run / "checkpoints/step_00000003.bak")
    shutil.copytree(run / "checkpoints/step_00000003", run / "checkpoints/step_00000099")
    (run / "checkpoints/step_99999999").mkdir()
    ended = case.train("run", *words, *sets("runtime.checkpoint.every_steps=3"), "--resume", run / "checkpoints/step_00000004/")
    require(ended.code == 0 and "step_00000010 is of the branch that is left: renamed abandoned_step_00000010" in ended.out, ended)
    names = checkpoints(run)
    require({"step_00000009", "step_00000010", "step_00000003.bak", "step_00000099", "step_99999999"} <= set(names), names)
    require({f"abandoned_step_{step:08}" for step in range(5, 11)} <= set(names), names)
    require(not {"step_00000001", "step_00000002", "step_00000004"} & set(names), names)
    shutil.rmtree(run / "checkpoints/step_00000010")
    ended = case.train("run", *words, *EVERY, "--resume", "auto")
    require(ended.code == 0 and "step_00000009 after step 9" in ended.out, ended)
    require("step_00000099: is a copy of the checkpoint after step 3" in ended.out, ended)


def case_overwrite_of_what_is_resumed(case: Case) -> None:
    """The directory that holds the chosen checkpoint is never overwritten."""
    run = case / "run"
    require(case.train("run", *EVERY_SECOND).code == 0)
    (run / "config.json").unlink(), (run / "weights.safetensors").unlink()
    ended = case.train("run", *EVERY_SECOND, "--resume", "auto", "--overwrite")
    require(ended.code == 0 and "resumed from" in ended.out and (run / "weights.safetensors").exists(), ended)
    require({"step_00000002", "step_00000004"} <= set(checkpoints(run)), checkpoints(run))
    (run / "backup").mkdir()
    shutil.move(run / "checkpoints/step_00000002", run / "backup/step_00000002")
    before = tree(run)
    ended = case.train("run", *EVERY_SECOND, "--resume", run / "backup/step_00000002", "--overwrite")
    require(ended.code == 2 and "holds the checkpoint" in ended.err and tree(run) == before, ended)


def case_finished(case: Case) -> None:
    """--resume auto on a finished run has nothing to do, exit code 0, with checkpoints and without."""
    for name, often in (("run", []), ("saved", EVERY_SECOND)):
        require(case.train(name, *often).code == 0)
        before = tree(case / name)
        ended = case.train(name, *often, "--resume", "auto")
        require(ended.code == 0 and "the run is finished already" in ended.out and tree(case / name) == before, ended)


def case_damaged_checkpoint(case: Case) -> None:
    """A checkpoint of which any byte has changed is refused by name; the run goes on from the one before it."""
    run = case / "run"
    require(case.train("run", *EVERY_SECOND).code == 0)
    newest = run / "checkpoints/step_00000004"
    for path in sorted(newest.iterdir()):
        before = path.read_bytes()
        for at in (0, len(before) // 2, len(before) - 2):
            changed = bytearray(before)
            changed[at] ^= 1
            path.write_bytes(changed)
            ended = case.train("other", "--resume", newest)
            require(ended.code == 2 and f"{newest}/{path.name}" in ended.err and not (case / "other").exists(), path, at, ended)
        path.write_bytes(before)
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    ended = case.train("run", *EVERY_SECOND, "--resume", "auto")
    require(ended.code == 0 and f"passed over a damaged checkpoint: {path}" in ended.out, ended)
    require("step_00000002 after step 2" in ended.out, ended)


def case_other_threads(case: Case) -> None:
    """With as many threads a run that goes on gives the bits of an uncut one; with others that is said."""
    words = [*EVERY_SECOND, *sets("runtime.threads=2")]
    require(case.train("whole", *words).code == 0)
    for name, threads, said in (("same", 2, False), ("fewer", 1, True)):
        shutil.copytree(case / "whole", case / name)
        shutil.rmtree(case / name / "checkpoints/step_00000004"), (case / name / "weights.safetensors").unlink()
        ended = case.train(name, *words, *sets(f"runtime.threads={threads}"), "--resume", "auto")
        note = "1 rank and 2 threads wrote the checkpoint, 1 rank and 1 thread go on"
        require(ended.code == 0 and (note in ended.out) == said, name, ended)
        manifest = json.loads((case / name / "checkpoints/step_00000004/checkpoint.json").read_text())
        require(manifest["threads"] == threads, manifest)
    require(weights(case / "same/weights.safetensors") == weights(case / "whole/weights.safetensors"), "other bits")


def case_moved_run_directory(case: Case) -> None:
    """A run whose directory is moved or removed notices, and leaves the next run's there alone."""
    run, moved = case / "run", case / "moved"
    steps = sets("schedule.scheduled_steps=40", "schedule.eval.every=0")
    process = case.start([EXECUTABLE, *case.train_words("run", *steps, *EVERY)])
    require(wait_until(lambda: checkpoints(run)))
    run.rename(moved)
    require(case.train("run").code == 0)
    before = tree(run)
    out, err = process.communicate(timeout=120)
    require(process.returncode == 0 and "was moved to" in out, out, err)
    require(tree(run) == before and (moved / "weights.safetensors").exists(), tree(moved).keys())
    process = case.start([EXECUTABLE, *case.train_words("gone", *steps, *sets("schedule.scheduled_steps=400"))])
    require(wait_until(lambda: (case / "gone/metrics.jsonl").exists()))
    shutil.rmtree(case / "gone")
    out, err = process.communicate(timeout=120)
    require(process.returncode == 2 and "was removed while it was in use" in err and not (case / "gone").exists(), out, err)


def case_attempt_and_a_full_disk(case: Case) -> None:
    """A run of an attempt that ends by a full disk is made again; what an attempt started ends with it."""
    attempt = ["record", "attempt", case / "c.json", "--runs", "2", "--out", case / "rec", "--runs-dir", case / "runs", "--target", "10"]
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (51200, 51200))
    ended = case.run(*attempt, preexec_fn=small)
    require(ended.code == 2 and "the same command continues the attempt with this run" in ended.err, ended)
    ended = case.run(*attempt)
    require(ended.code == 0, ended)
    runs = json.loads((case / "rec/summary.json").read_text())["runs"]
    require([run["state"] for run in runs] == ["done", "done"] and runs[0]["starts"] == 2, runs)
    long = ["record", "attempt", case / "c.json", "--runs", "2", "--out", case / "rec2", "--runs-dir", case / "runs2", "--target", "10",
            *sets("schedule.scheduled_steps=300")]
    process = case.start([EXECUTABLE, *long])
    require(wait_until(lambda: (case / "runs2/run_00/metrics.jsonl").exists()))
    child = json.loads((case / "runs2/run_00/status.json").read_text())["process"]
    process.kill(), process.communicate()
    require(wait_until(lambda: not Path(f"/proc/{child}/exe").exists() or ") Z" in Path(f"/proc/{child}/stat").read_text()),
            "the run is left")


def case_late_signal(case: Case) -> None:
    """A signal that comes when the run has ended leaves its exit code alone."""
    process = case.start([EXECUTABLE, *case.train_words("run")])
    require(wait_until(lambda: (case / "run/log.txt").exists() and "step:4/4 val_loss" in (case / "run/log.txt").read_text()))
    process.send_signal(signal.SIGTERM)
    require(process.wait(60) == 0 and status(case / "run") == "finished", process.stderr.read())


def case_config_from_a_pipe(case: Case) -> None:
    """Ctrl-C ends a run that waits for its config."""
    pipe = case / "pipe"
    os.mkfifo(pipe)
    process = case.start([EXECUTABLE, "train", "--config", pipe, "--run-dir", case / "run"])
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    require(process.wait(10) == -signal.SIGINT)


def case_endless_files(case: Case) -> None:
    """Files of a checkpoint, logs and summaries that have no end, or no bytes for their size, are refused at once."""
    require(case.train("run", *EVERY_SECOND).code == 0)
    checkpoint = case / "run/checkpoints/step_00000004"
    optimizer = checkpoint / "optimizer.safetensors"
    optimizer.unlink()
    optimizer.symlink_to("/dev/zero")
    ended = case.train("a", "--resume", checkpoint, seconds=30)
    require(ended.code == 2 and "is not a regular file" in ended.err, ended)
    optimizer.unlink()
    with open(optimizer, "wb") as sparse:
        sparse.truncate(4 << 40)
    ended = case.train("a", "--resume", checkpoint, seconds=30)
    require(ended.code == 2 and "has 4398046511104 bytes, not the" in ended.err, ended)
    logs = case / "logs"
    logs.mkdir()
    os.mkfifo(logs / "log.txt")
    (logs / "zero.txt").symlink_to("/dev/zero")
    for words in (["check", logs], ["check", logs / "log.txt"], ["parse", logs / "log.txt", logs / "zero.txt"], ["watch", logs],
                  ["report", logs, "-o", case / "r.html"]):
        ended = case.run("record", *words, seconds=30)
        require(ended.code == 2, words, ended)


def case_hostile_log(case: Case) -> None:
    """No log or name of a file sends escape sequences to a terminal, or forges a table for a pull request."""
    folder = case / "logs\x1b[2J"
    folder.mkdir()
    for i in range(2):
        text = own_log(3.27 + i / 1000, i, 100 + i).replace("Some CPU", "CPU \x1b]0;x\x07 \u009b31m | 3.0 | record | <img src=x> `c`")
        (folder / f"{i} | 1.0 |\n| x.txt").write_text(text + "step:1/2 \x1b[31m\n")
    for words in (["check"], ["check", "--markdown"], ["parse"], ["check", "--json"]):
        paths = sorted(folder.iterdir()) if words == ["parse"] else [folder]
        ended = case.run("record", *words, *paths)
        require(not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ended.out + ended.err), words, repr(ended.out + ended.err))
    markdown = case.run("record", "check", "--markdown", folder).out
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    require(cells == {12, 4}, markdown)
    require("<img" not in markdown.replace("\\<img", ""), markdown)


def case_hostile_names(case: Case) -> None:
    """No config, weights or shard sends escape sequences to a terminal by what its names or texts hold."""
    evil = "e\x1b[31m\u009b2J\x7f"
    (case / evil).mkdir()
    shutil.copy(case / "val.bin", case / evil / "x.bin")
    (case / "evil.json").write_text(json.dumps({**config(case.folder), "data": {**config(case.folder)["data"], "train": f"{evil}.bin"}}))
    header = json.dumps({evil: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (case / "evil.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    shown = [case.run("config", "show", case / "evil.json"), case.run("config", "diff", case / "c.json", case / "evil.json"),
             case.run("data", "inspect", "--vocab-size", "500", "--bos-id", "499", f"{case}/*/x.bin"),
             case.run("data", "inspect", "--json", "--vocab-size", "500", "--bos-id", "499", f"{case}/*/x.bin")]
    require(all(ended.code == 0 for ended in shown), *shown)
    require(json.loads(shown[0].out)["data"]["train"] == f"{evil}.bin", shown[0])
    refused = [case.train("a", "--init", case / "evil.safetensors"), case.run("train", "--config", case / "evil.json", "--run-dir", case / "a"),
               case.run("data", "inspect", f"{case}/*/x.bin")]
    require(all(ended.code == 2 for ended in refused), *refused)
    for ended in shown + refused:
        require(not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ended.out + ended.err), repr(ended.out + ended.err))


def case_dumb_terminal(case: Case) -> None:
    """A terminal that knows no escape sequences gets none."""
    for kind, escapes in (("dumb", False), ("xterm", True)):
        here, there = os.openpty()
        process = case.start([EXECUTABLE, *case.train_words(kind)], stdout=there, stderr=there, env={**ENVIRONMENT, "TERM": kind})
        os.close(there)
        shown = b"".join(iter(lambda: read_terminal(here), b""))
        os.close(here)
        require(process.wait(60) == 0 and b"val_loss" in shown and (b"\x1b" in shown) == escapes, kind, shown)


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def case_status_link(case: Case) -> None:
    """Nothing is written through a link, and what a killed run left unfinished goes with the next start."""
    run = case / "run"
    run.mkdir()
    victim = case / "victim"
    victim.write_text("mine")
    (run / ".status.json.tmp").symlink_to(victim)
    (run / ".weights.safetensors.tmp-123-456").write_text("left by a run that was killed")
    require(case.train("run").code == 0 and victim.read_text() == "mine")
    require(not [name for name in os.listdir(run) if ".tmp" in name], os.listdir(run))


def case_lost_rank(case: Case) -> None:
    """status.json says that a run has failed where another rank died."""
    run = case / "run"
    process = case.start_two("run", *sets("schedule.scheduled_steps=300"))
    require(wait_until(lambda: (run / "metrics.jsonl").exists()))
    os.kill(other_rank(run), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    require(process.returncode in (4, 137) and "died" in err, process.returncode, err)
    found = json.loads((run / "status.json").read_text())
    require(found["state"] == "failed" and "died" in found["message"], found)


def other_rank(run: Path) -> int:
    """The process of rank 1 of two; the leader is rank 0."""
    leader = json.loads((run / "status.json").read_text())["process"]
    wanted = f"--run-dir\0{run}\0".encode()
    ranks = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and is_rank(entry, wanted)]
    require(len(ranks) == 2 and leader in ranks, leader, ranks)
    return next(rank for rank in ranks if rank != leader)


def is_rank(process: Path, words: bytes) -> bool:
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return line.split(b"\0")[0].endswith(b"/speedrun") and words in line


def case_network(case: Case) -> None:
    """Strangers at a rank's port take neither its memory nor its descriptors, and the run goes on."""
    run = case / "run"
    words = [*sets("schedule.scheduled_steps=80", "schedule.eval.every=0", "runtime.checkpoint.every_steps=20")]
    process = case.start_two("run", *words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)))
    # A step of Adam has been made: from then on memory does not grow by itself.
    require(wait_until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") > 4))
    rank = other_rank(run)
    ports = loopback_ports(rank)
    require(ports, "rank 1 listens nowhere at the loopback")
    before = resident_kib(rank)
    for port in ports:
        callers = [call(port, b"x" * (4 << 20)) for _ in range(10)] + [call(port) for _ in range(600)]
        time.sleep(1)
        descriptors = len(os.listdir(f"/proc/{rank}/fd"))
        require(descriptors < 300, descriptors)
        now = resident_kib(rank)
        require(now < before + 64 * 1024, before, now)
        for caller in callers:
            caller.close()
    out, err = process.communicate(timeout=120)
    require(process.returncode == 0 and "step_00000080" in "".join(checkpoints(run)) and "cannot" not in out, out, err)


def call(port: int, text: bytes = b"") -> socket.socket:
    """A connection that says what the other end takes at once, and no more."""
    caller = socket.create_connection(("127.0.0.1", port), timeout=10)
    caller.setblocking(False)
    try:
        while text:
            text = text[caller.send(text) :]
    except OSError:  # full, or closed by the rank
        pass
    return caller


def loopback_ports(process: int) -> list[int]:
    """Where a process listens at 127.0.0.1: the program does, MPI listens everywhere."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{process}/fd").iterdir() if entry.is_symlink()]
    rows = [line.split() for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].split(":")[1], 16) for row in rows
            if row[3] == "0A" and row[1].startswith("0100007F:") and f"socket:[{row[9]}]" in links]


def resident_kib(process: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1])


def case_cut_link(case: Case) -> None:
    """scripts/launch/mpirun ends an mpirun that waits for another machine after the ranks of this one have ended."""
    mpirun = case / "mpirun"
    mpirun.write_text("#!/usr/bin/env python3\nimport subprocess, time\nsubprocess.run(['sleep', '2'])\ntime.sleep(60)\n")
    mpirun.chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{case}:{os.environ['PATH']}", "LAUNCH_PATIENCE": "2"}
    ended = case.run_program([REPOSITORY / "scripts/launch/mpirun", "program"], seconds=30, env=environment)
    require(ended.code == 4 and "the ranks of this machine have ended" in ended.err, ended)


def case_room_for_threads(case: Case) -> None:
    """A run that gets fewer threads than it wants says so: LibTorch would wait for them for ever, or end the process."""
    if os.geteuid() != 0:
        return  # the limit counts all processes of a user: it takes one that has no other
    case.folder.chmod(0o777)
    for most in (1, 2, 3):
        words = [*NOBODY, "prlimit", f"--nproc={most}", EXECUTABLE, *case.train_words("run", *sets("runtime.threads=2"))]
        ended = case.run_program(words, seconds=30)
        require(ended.code == 2 and ended.err.splitlines()[-1].startswith("error: too little room for threads"), most, ended)
        require(not (case / "run").exists(), most)


def case_threads_and_terms(case: Case) -> None:
    """Thousands of threads on a few cores, and a mix of more terms than an op takes, are refused."""
    ended = case.train("run", *sets("runtime.threads=4096"))
    require(ended.code == 2 and "runtime.threads is 4096; allowed here: 0 to" in ended.err, ended)
    overlay = config(case.folder)
    overlay["model"]["output"] = {"mix": [[0.1, name] for name in ("x", "x0", "h1", "h2", "h3", "h4", "h5", "h6", "h8")]}
    (case / "mix.json").write_text(json.dumps(overlay))
    ended = case.run("config", "show", case / "mix.json", *sets("model.layers[6].cache=h6"))
    require(ended.code == 2 and "model.output.mix: too many terms" in ended.err, ended)

CASES = {name.removeprefix("case_"): function for name, function in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    sys.exit(main(CASES))
