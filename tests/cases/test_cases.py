#!/usr/bin/env python3
"""Faults that were found by using the program, by their numbers, each as what it does now: docs/verification_cases.md has the table.

    tests/cases/test_cases.py [NAME...]      the cases of these names, or all; needs build/speedrun and Open MPI

Where a case has a shorter test in C++, that is named in the table; here everything goes through the executable.
"""
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import time
import xml.dom.minidom

from fixture import (EXECUTABLE, EVERY, EVERY_SECOND, NOBODY, Case, checkpoints, documents, main, own_log, require, sets, shard,
                     status, steps_text, tree, wait_until, weights)


# ---- data and results -------------------------------------------------------------------------------------


def case_01(case: Case) -> None:
    """Ranks that do not share the run directory are refused before they train."""
    one, two = case / "h0", case / "h1"
    one.mkdir(), two.mkdir()
    ended = case.train_on_two([one, two], *EVERY_SECOND)
    require(ended.code == 2 and "does not see what rank 0" in ended.err, ended)
    require(not list(case.folder.rglob("*.safetensors")) and not (one / "rel/config.json").exists(), tree(one))
    ended = case.train_on_two([one, one], *EVERY_SECOND)
    require(ended.code == 0, ended)
    saved, gathered = (weights(one / "rel" / place) for place in ("checkpoints/step_00000004/weights.safetensors", "weights.safetensors"))
    lacking = [name for name, value in gathered.items() if saved.get(name) != value]
    require(not lacking, "not as they were gathered from the ranks:", lacking)


def case_02(case: Case) -> None:
    """Repeats of a seed are one sample; equal losses are no test."""
    folder = case / "logs"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(own_log(3.2797, 7, 125 + i / 8))
    ended = case.run("record", "check", folder)
    require(ended.code == 1 and "one run: no test is possible" in ended.out, ended)
    require(ended.out.count("seed 7 once more, as in") == 2, ended)
    for i in range(2):
        (folder / f"{i}.txt").write_text(own_log(3.2797, 7 + i, 125 + i / 8))
    ended = case.run("record", "check", folder)
    require(ended.code == 1 and "no variance: all 2 losses are 3.2797" in ended.out, ended)


def case_03(case: Case) -> None:
    """Validation lines that a job repeats below its run are no further runs."""
    text = ""
    for job, loss, ms in ((0, 3.2782, 100.0), (1, 3.2779, 100.125)):
        lines = [(step, loss + (60 - step) / 100) for step in range(10, 61, 10)]
        text += f"=== job {job}\n" + steps_text(lines, 60, ms)
        text += f"=== job {job} ends\n" + steps_text([lines[2], lines[5]], 60, ms)
    log = case / "two_runs.txt"
    log.write_text(text)
    ended = case.run("record", "parse", log)
    require(ended.out.count("complete: ") == 2 and "4 validation lines stand further up already" in ended.err, ended)
    ended = case.run("record", "check", "--json", log)
    require([group["n"] for group in json.loads(ended.out)] == [2], ended)


def case_04(case: Case) -> None:
    """Copies of a log, whatever ends their lines, and a log kept twice in one file are one run."""
    folder = case / "logs"
    folder.mkdir()
    first, second = own_log(3.278, 1, 100), own_log(3.2785, 2, 101)
    plain = "".join(f"step:{i}/10 train_time:{100 * i}ms step_avg:100.00ms\n" for i in range(1, 10)) + steps_text([(10, 3.1)], 10, 100)
    for name, text in {"a": first, "b": first + "\n", "c": first + first, "d": second, "e": first.replace("\n", "\r\n"),
                       "f": plain, "g": plain + plain, "h": plain + "\n\n"}.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    ended = case.run("record", "check", "--json", folder)
    require([group["n"] for group in json.loads(ended.out)] == [2, 1], ended)


def case_05(case: Case) -> None:
    """--overwrite removes nothing before the new run can begin."""
    require(case.train("run", *EVERY_SECOND).code == 0)
    before = tree(case / "run")
    for wrong in (sets("data.val_tokens=25600000"), sets(f"data.val={case}/none.bin"), ["--init", case / "val.bin"],
                  ["--resume", case / "nowhere"]):
        ended = case.train("run", "--overwrite", *wrong)
        require(ended.code == 2 and tree(case / "run") == before, wrong, ended)


def case_06(case: Case) -> None:
    """A refused start leaves nothing that refuses the corrected command."""
    require(case.train("run", *sets("data.val_tokens=25600000")).code == 2 and not (case / "run").exists())
    require(case.train("run").code == 0)


def case_07(case: Case) -> None:
    """Ranks that read other shards, weights, checkpoints or options are refused."""
    folders = [case / "h0", case / "h1"]
    for i, folder in enumerate(folders):
        folder.mkdir()
        shutil.copy(case / "val.bin", folder / "v.bin")
        shard(folder / "t.bin", documents(9000, 1 + i))
    here = str(case / "run")
    shard(folders[1] / "v.bin", [499] + [7] * 2999)
    ended = case.train_on_two(folders, *sets("data.val=v.bin"), run_dir=here)
    require(ended.code == 2 and "differing validation data: v.bin" in ended.err, ended)
    ended = case.train_on_two(folders, *sets("data.train=t.bin"), run_dir=here)
    require(ended.code == 2 and "differing training data: t.bin" in ended.err, ended)
    require(not (case / "run").exists() or not any((case / "run").iterdir()))
    require(case.train("first", *EVERY_SECOND).code == 0)
    shutil.copytree(case / "first", folders[0] / "other")
    ended = case.train_on_two(folders, "--resume", "other", run_dir=here)
    require(ended.code == 2 and "rank 1" in ended.err and "checkpoint.json" in ended.err, ended)
    shutil.copy(case / "first/weights.safetensors", folders[0] / "w")
    shutil.copy(case / "first/checkpoints/step_00000002/weights.safetensors", folders[1] / "w")
    ended = case.train_on_two(folders, "--init", "w", run_dir=here)
    require(ended.code == 2 and "differing initial weights" in ended.err, ended)
    ended = case.train_on_two(folders, "--diagnostics", "RANK", run_dir=here)
    require(ended.code == 2 and "differing options: --diagnostics 0 on rank 0" in ended.err, ended)


def case_08(case: Case) -> None:
    """A run goes on over other shards only where that is asked for, and says so."""
    folder, run = case / "d", case / "run"
    folder.mkdir()
    shutil.copy(case / "train.bin", folder / "t_b.bin")
    data = [*sets(f"data.train={folder}/t_*.bin"), *EVERY_SECOND]
    require(case.train("run", *data).code == 0)
    shutil.rmtree(run / "checkpoints/step_00000004")
    (run / "weights.safetensors").unlink()
    shard(folder / "t_a.bin", documents(9000, 5))
    before = tree(run)
    ended = case.train("run", *data, "--resume", "auto")
    require(ended.code == 2 and "training shard 1: t_b.bin" in ended.err and "-> t_a.bin" in ended.err, ended)
    require("--accept-changes" in ended.err and tree(run) == before, ended)
    ended = case.train("run", *data, "--resume", "auto", "--accept-changes")
    require(ended.code == 0 and "data differ: training shard 1: t_b.bin" in (run / "log.txt").read_text(), ended)


# ---- what the README promises -----------------------------------------------------------------------------


def case_09(case: Case) -> None:
    """What cannot be written to stdout is an error."""
    log = case / "log.txt"
    log.write_text(own_log(3.2, 1, 100))
    for words in (["config", "show", "configs/quickstart.json"], ["plan", "--config", "configs/record_43.json", "--schedule"],
                  ["record", "parse", "--json", log], ["--version"], ["help"]):
        with open("/dev/full", "w") as full:
            ended = case.run(*words, stdout=full)
        require(ended.code == 2 and "standard output cannot be written: No space left on device" in ended.err, words, ended)
    closed = case.run_program(["bash", "-c", f"{EXECUTABLE} --version >&-"])
    require(closed.code == 2 and "standard output cannot be written" in closed.err, closed)


def case_10(case: Case) -> None:
    """record check: a folder that cannot be read hides nothing but itself, and the exit code is 2."""
    top = case / "top"
    for name in "abcd":
        (top / name).mkdir(parents=True)
        for i in range(4):
            (top / name / f"{i}.txt").write_text(own_log(3.27 + i / 1000, i, 100 + i))
    case.folder.chmod(0o755)
    unprivileged = NOBODY if os.geteuid() == 0 else []
    for name in "abcd":
        (top / name).chmod(0o000)
        ended = case.run_program([*unprivileged, EXECUTABLE, "record", "check", top])
        (top / name).chmod(0o755)
        require(ended.code == 2 and ended.out.count("below target, p < 0.01: mean") == 3 and str(top / name) in ended.err, name, ended)


def case_11(case: Case) -> None:
    """record check, parse and report: a path that is not there leaves exit code 2."""
    folder = case / "logs"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(own_log(3.27 + i / 1000, i, 100 + i))
    require(case.run("record", "check", folder).code == 0)
    for words in (["check", folder, "/no/such/folder"], ["parse", folder / "0.txt", "/no/such.txt"],
                  ["report", folder, "/no/such/folder", "-o", case / "r.html"]):
        ended = case.run("record", *words)
        require(ended.code == 2 and "/no/such" in ended.err and ended.out, words, ended)


def case_12(case: Case) -> None:
    """Numbers of options are read to their end."""
    log = case / "log.txt"
    log.write_text(own_log(3.2, 1, 100))
    for target in ("3,28", "3.28x", "3.28.1", "3 28", "", "nan", "1e999"):
        ended = case.run("record", "check", "--target", target, log)
        require(ended.code == 2 and ended.err.splitlines()[-1].startswith("error: --target is "), target, ended)
    ended = case.run("record", "watch", "--patience", "5min", log)
    require(ended.code == 2 and '--patience is "5min", expected a number' in ended.err, ended)
    require(case.run("record", "check", "--target", "3.28", log).code == 1)


def case_13(case: Case) -> None:
    """Paths that cannot be looked at are the user's to mend, with the system's reason."""
    (case / "loop").symlink_to("loop")
    private = case / "priv"
    private.mkdir(mode=0o700)
    log = case / "log.txt"
    log.write_text(own_log(3.2, 1, 100))
    case.folder.chmod(0o755)
    long = case / ("x" * 300)
    for ended, reason in ((case.train(case / "loop"), "symbolic links"), (case.run("record", "watch", case / "loop"), "symbolic links"),
                          (case.run("record", "report", log, "-o", case / "loop/r.html"), "symbolic links"),
                          (case.train(long), "name too long"), (case.train("xx", "--resume", case / "loop"), "symbolic links"),
                          (case.run("data", "bench", "--tokenizer", "data/tokenizer", "--text", private), "regular file")):
        require(ended.code == 2 and reason in ended.err and "internal" not in ended.err, ended)
    if os.geteuid() == 0:
        for words in (case.train_words(private / "run"), case.train_words("xx", "--resume", private)):
            ended = case.run_program([*NOBODY, EXECUTABLE, *words])
            require(ended.code == 2 and "Permission denied" in ended.err, ended)


def case_14(case: Case) -> None:
    """A run goes on where nobody reads its stdout any more, or where its terminal is gone."""
    process = case.start([EXECUTABLE, *case.train_words("run", *EVERY)])
    process.stdout.readline()
    process.stdout.close()
    require(process.wait(120) == 0 and status(case / "run") == "finished", process.stderr.read())
    # A reader that stands still, behind a pipe that is full.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    ended = case.train("frozen", stdout=writer)
    os.close(reader), os.close(writer)
    require(ended.code == 0 and status(case / "frozen") == "finished", ended)
    # A lost terminal is a stop like others.
    process = case.start([EXECUTABLE, *case.train_words("hung_up", *sets("schedule.scheduled_steps=60"), *EVERY)])
    require(wait_until(lambda: checkpoints(case / "hung_up")))
    process.send_signal(signal.SIGHUP)
    require(process.wait(60) == 130 and status(case / "hung_up") == "interrupted", process.stderr.read())


def case_15(case: Case) -> None:
    """The warm-up needs no more data than the run."""
    shard(case / "small.bin", documents(4300, 1))
    small = sets(f"data.train={case}/small.bin")
    require(case.train("a", *small).code == 0)
    ended = case.train("b", *small, *sets("runtime.warmup_steps=30"))
    require(ended.code == 0, ended)
    require((case / "a/weights.safetensors").read_bytes() == (case / "b/weights.safetensors").read_bytes(), "the warm-up left a trace")


def case_16(case: Case) -> None:
    """A document separator is found whatever ends its line, and one that never matches is said."""
    text = case / "t.txt"
    text.write_bytes(b"one\r\n<|document|>\r\ntwo\r\n")
    tokenize = ["data", "tokenize", "--tokenizer", "data/tokenizer", "--document-separator", "<|document|>", "--out"]
    ended = case.run(*tokenize, case / "o", text)
    require(ended.code == 0 and ended.out.startswith("2 documents"), ended)
    text.write_bytes(b"one\n<|document|> \ntwo\n")
    ended = case.run(*tokenize, case / "p", text)
    require(ended.code == 0 and "no line of the texts equals the document separator" in ended.err, ended)


def case_17(case: Case) -> None:
    """A parent that ignores SIGCHLD hangs nothing that waits for a child."""
    log = case / "log.txt"
    log.write_text(own_log(3.2, 1, 100))
    png = ["--png", case / "png"] if shutil.which("rsvg-convert") else []
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    ended = case.run_program([sys.executable, "-c", ignore, EXECUTABLE, "record", "report", log, "-o", case / "r.html", *png], seconds=30)
    require(ended.code == 0, ended)
    attempt = ["record", "attempt", case / "c.json", "--runs", "1", "--out", case / "rec", "--runs-dir", case / "runs", "--target", "10"]
    ended = case.run_program([sys.executable, "-c", ignore, EXECUTABLE, *attempt], seconds=60)
    require(ended.code == 1 and "one run: no test is possible" in ended.out, ended)


# ---- low --------------------------------------------------------------------------------------------------


def case_18(case: Case) -> None:
    """Too little memory is said in one line, exit code 2."""
    text = case / "t.txt"
    text.write_bytes(b"a" * 60_000_000)
    limit = lambda bytes_: lambda: resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))
    ended = case.run("data", "tokenize", "--tokenizer", "data/tokenizer", "--out", case / "o", text, preexec_fn=limit(2_000_000_000))
    require(ended.code == 2 and ended.err.splitlines()[-1].startswith("error: too little memory"), ended)
    large = sets("model.vocab_size=400000", "runtime.memory_check=false")
    ended = case.train("run", *large, preexec_fn=limit(2_500_000_000))
    require(ended.code == 2 and ended.err.splitlines()[-1].startswith("error: too little memory"), ended)
    ended = case.train("run", *large[:2], preexec_fn=limit(2_500_000_000))
    require(ended.code == 2 and "the limits of its process (ulimit -v, ulimit -d) leave" in ended.err, ended)


def case_19(case: Case) -> None:
    """A limit on the size of files is an error of the write that meets it."""
    ended = case.train("run", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (51200, 51200)))
    require(ended.code == 2 and "File too large" in ended.err, ended)
    require(status(case / "run") == "failed" and not [name for name in tree(case / "run") if ".tmp" in name], tree(case / "run").keys())


def case_20(case: Case) -> None:
    """An infinite loss is explained as one."""
    folder = case / "logs"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(own_log(float("inf") if i == 1 else 3.27 + i / 1000, i, 100 + i))
    ended = case.run("record", "check", folder)
    require(ended.code == 1 and "a final loss is not a finite number" in ended.out, ended)


def case_21(case: Case) -> None:
    """Weights that are not finite give no results; a first step that diverges had no loss before it."""
    require(case.train("run").code == 0)
    data = bytearray((case / "run/weights.safetensors").read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8 : 8 + size])["lm_head.weight"]["data_offsets"]
    data[8 + size + begin : 8 + size + end] = struct.pack("<I", 0x7FC00000) * ((end - begin) // 4)
    (case / "nan.safetensors").write_bytes(data)
    ended = case.run("eval", "--config", case / "c.json", "--weights", case / "nan.safetensors")
    require(ended.code == 2 and "is not finite" in ended.err, ended)
    ended = case.train("d", "--init", case / "nan.safetensors")
    require(ended.code == 2 and "the weights are those that the run began with" in ended.err and "0.000000" not in ended.err, ended)


def case_22(case: Case) -> None:
    """A micro-batch with too many documents is found before the first step, with its file and place."""
    shard(case / "late.bin", documents(1200, 3) + [499] * 3000 + documents(9000, 4))
    ended = case.train("run", *sets(f"data.train={case}/late.bin"))
    require(ended.code == 2 and not (case / "run").exists(), ended)
    require(re.search(r"late\.bin: byte \d+: .* has 257 documents, data\.max_num_docs allows 127", ended.err), ended)


def case_23(case: Case) -> None:
    """A run directory with a slash at its end has a name, and a log without a folder too."""
    require(case.run(*case.train_words("unused")[:-1], f"{case}/run/").code == 0)
    require(">run</text>" in (case / "run/loss.svg").read_text())
    ended = case.run("record", "check", "log.txt", cwd=case / "run")
    require("log.txt, 4 steps: not a record" in ended.out, ended)


def case_24(case: Case) -> None:
    """Shards of several folders are in the order of their names as texts, as the reference has them."""
    for name, seed in (("a", 1), ("a-b", 5)):
        (case / name).mkdir()
        shard(case / name / "t.bin", documents(9000, seed))
    ended = case.run("train", "--config", case / "c.json", "--run-dir", "r", *sets("data.train=*/t.bin"), cwd=case.folder)
    require(ended.code == 0, ended)
    require("training shards: 2\n  a-b/t.bin\n  a/t.bin\n" in (case / "r/log.txt").read_text())


def case_25(case: Case) -> None:
    """A file whose name is a pattern is found by its name."""
    shutil.copy(case / "val.bin", case / "x[1].bin")
    ended = case.run("data", "inspect", "--vocab-size", "500", "--bos-id", "499", case / "x[1].bin")
    require(ended.code == 0 and "x[1].bin" in ended.out, ended)


def case_26(case: Case) -> None:
    """An empty text is passed over; where a text cannot be read no part of the shards stays."""
    for name, text in (("1", "one two three\n"), ("2", "four five\n"), ("3", "")):
        (case / name).write_text(text)
    tokenize = ["data", "tokenize", "--tokenizer", "data/tokenizer", "--shard-tokens", "3", "--out", case / "o"]
    ended = case.run(*tokenize, case / "1", case / "2", case / "4")
    require(ended.code == 2 and not list(case.folder.glob("o_*")), ended)
    ended = case.run(*tokenize, case / "1", case / "2", case / "3")
    require(ended.code == 0 and "holds no document, and is passed over" in ended.err and ended.out.startswith("2 documents"), ended)
    before = tree(case.folder)
    ended = case.run(*tokenize, "--force", case / "2", case / "1", case / "4")
    require(ended.code == 2 and tree(case.folder) == before, "what --force replaces goes last", ended)


def case_27(case: Case) -> None:
    """No name of a folder writes lines into a log, or makes a picture that is no XML."""
    for name in ("x\nstep:4/4 val_loss:1.0000 train_time:1ms step_avg:1.00ms", "n\uffff"):
        run = case / name
        require(case.train(run).code == 0)
        log = (run / "log.txt").read_text()
        require("val_loss:1.0000" not in re.sub(r"^command: .*$", "", log, flags=re.M), log)
        ended = case.run("record", "parse", "--json", run / "log.txt")
        require(len(json.loads(ended.out)) == 1, ended)
        xml.dom.minidom.parse(str(run / "loss.svg"))


def case_28(case: Case) -> None:
    """plan --memory-gib has a limit."""
    plan = ["plan", "--config", "configs/record_43.json", "--json", "--memory-gib"]
    ended = case.run(*plan, "1e30")
    require(ended.code == 2 and "--memory-gib is 1e30, allowed: up to 1048576" in ended.err, ended)
    require(json.loads(case.run(*plan, "80").out)["assumed"]["memory_bytes"] == 80 << 30)


def case_29(case: Case) -> None:
    """The last line on stderr says which option is wrong, and how."""
    for words, last in ((["data", "tokenize", "--tokenizer", "x", "--out", "y", "--shard-tokens", "1e9", "z"],
                         'error: --shard-tokens is "1e9", expected a whole number'),
                        (["train", "--config", "x"], "error: train needs --run-dir; `speedrun train --help` lists its options"),
                        (["train", "--no-such"], "error: speedrun train: Option")):
        ended = case.run(*words)
        require(ended.code == 2 and ended.err.splitlines()[-1].startswith(last), words, ended)


def case_30(case: Case) -> None:
    """Ctrl-C ends a validation too, with everything written; pressed again it ends the run at once."""
    shard(case / "long.bin", documents(300_000, 9))
    long = [*sets(f"data.val={case}/long.bin", "data.val_tokens=256000", "data.val_micro_batch_tokens=128")]
    process = case.start([EXECUTABLE, *case.train_words("run", *long)])
    require(wait_until(lambda: (case / "run/status.json").exists()))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    require(process.wait(30) == 130 and time.monotonic() - began < 10, process.stderr.read())
    require(status(case / "run") == "interrupted" and "in the validation after step 0" in (case / "run/log.txt").read_text())
    process = case.start([EXECUTABLE, *case.train_words("twice", *sets("schedule.scheduled_steps=60"), *EVERY)])
    require(wait_until(lambda: checkpoints(case / "twice")))
    process.send_signal(signal.SIGTERM), time.sleep(0.01), process.send_signal(signal.SIGTERM)
    require(process.wait(30) in (-signal.SIGTERM, 130))

CASES = {name.removeprefix("case_"): function for name, function in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    sys.exit(main(CASES))
