#!/usr/bin/env python3
"""clang-tidy over the C++ sources, several at once, each once until it, a header or the checks change. Sources that are compiled
as one are checked as one.

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


def sources_of(unit: Path, build: Path) -> list[Path]:
    """The sources of ours that a compile command's file stands for: itself, or what CMake has joined in it."""
    if build not in unit.parents:
        return [unit] if unit.suffix == ".cpp" and ROOT in unit.parents else []
    if "Unity" not in unit.parts:
        return []
    return [Path(name) for name in re.findall(r'^#include "(.*\.cpp)"', unit.read_text(), re.M)]


def commands_for_clang(build: Path) -> list[dict]:
    """The compile commands without what only GCC understands: files must include what they use without its help."""
    entries = []
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if not sources_of(Path(entry["file"]), build):
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
    wanted = {Path(f).resolve() for f in sys.argv[2:]}
    sources = {Path(entry["file"]): sources_of(Path(entry["file"]), build) for entry in entries}
    units = sorted(unit for unit, files in sources.items() if not wanted or wanted & set(files))
    missing = wanted - {file for unit in units for file in sources[unit]}
    if missing:
        sys.exit("clang-tidy: no compile command for " + ", ".join(map(str, sorted(missing))))
    common = shared_hash()
    stamps = {unit: database / hashlib.sha256(b"".join([common, bytes(unit), *(file.read_bytes() for file in sources[unit])])).hexdigest()
              for unit in units}
    todo = [unit for unit in units if not stamps[unit].exists()]
    started = time.monotonic()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for unit, complaints in zip(todo, pool.map(lambda u: tidy(u, database), todo)):
            if complaints:
                failed += 1
                print(complaints)
            else:
                stamps[unit].touch()
    print(f"clang-tidy: {sum(len(sources[unit]) for unit in units)} files in {len(units)} units, {len(todo)} of them checked now in "
          f"{time.monotonic() - started:.0f} s, {failed} with complaints")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
