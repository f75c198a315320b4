#!/usr/bin/env python3
"""clang-tidy over the C++ sources, several at once, each once until it, a header or the checks change.

    scripts/clang_tidy.py BUILD_DIR [FILE ...]     (default: every source in BUILD_DIR/compile_commands.json)
"""
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIDY = "clang-tidy-16"  # Debian 12's default, 14, does not know std::source_location


def commands_for_clang(build: Path) -> list[dict]:
    """The compile commands without what only GCC understands: files must include what they use without its help."""
    entries = []
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = Path(entry["file"])
        if file.suffix != ".cpp" or build in file.parents or ROOT not in file.parents:
            continue
        command = re.sub(r"\s-(fpch-preprocess|Winvalid-pch|Wno-restrict|fopenmp)(?=\s)", "", entry["command"])
        command = re.sub(r"-include \S*cmake_pch\.hxx", "", command)
        entries.append({**entry, "command": command})
    return entries


def shared_hash() -> bytes:
    """Of all that several files depend on: headers, checks, this script, the version of clang-tidy."""
    digest = hashlib.sha256(subprocess.run([TIDY, "--version"], capture_output=True, check=True).stdout)
    for path in [ROOT / ".clang-tidy", Path(__file__), *sorted(ROOT.glob("src/**/*.h")), *sorted(ROOT.glob("tests/**/*.h"))]:
        digest.update(path.read_bytes())
    return digest.digest()


def tidy(file: Path, database: Path) -> str:
    """What clang-tidy complains about; "" where all is well."""
    run = subprocess.run([TIDY, "-p", database, "--quiet", file], capture_output=True, text=True)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def main() -> int:
    build = Path(sys.argv[1]).resolve()
    database = build / "tidy"
    database.mkdir(exist_ok=True)
    entries = commands_for_clang(build)
    (database / "compile_commands.json").write_text(json.dumps(entries))
    files = [Path(f).resolve() for f in sys.argv[2:]] or sorted({Path(entry["file"]) for entry in entries})
    common = shared_hash()
    stamps = {file: database / hashlib.sha256(common + bytes(file) + file.read_bytes()).hexdigest() for file in files}
    todo = [file for file in files if not stamps[file].exists()]
    started = time.monotonic()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for file, complaints in zip(todo, pool.map(lambda f: tidy(f, database), todo)):
            if complaints:
                failed += 1
                print(complaints)
            else:
                stamps[file].touch()
    print(f"clang-tidy: {len(files)} files, {len(todo)} of them checked now in {time.monotonic() - started:.0f} s, "
          f"{failed} with complaints")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
