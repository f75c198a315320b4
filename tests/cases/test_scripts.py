#!/usr/bin/env python3
"""scripts/attempt_record says what is wrong before it installs, builds or downloads anything."""
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "attempt_record"
MISTAKES = [([], "attempt_record RECORD"),
            (["7"], "configs/record_7.json: no such config"),
            (["nowhere.json"], "nowhere.json: no such config"),
            (["89", "--ranks"], "--ranks needs a value"),
            (["89", "--ranks", "x"], '--ranks: found "x", allowed a number above 0'),
            (["89", "--ranks", "0"], '--ranks: found "0", allowed a number above 0'),
            (["89", "--ranks", "10000"], "10000 ranks need as many NVIDIA GPUs, found")]


def main() -> int:
    failed = 0
    for words, text in MISTAKES:
        found = subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=30)
        if found.returncode == 2 and text in found.stderr and found.stdout == "":
            continue
        failed += 1
        print(f"attempt_record {words}: expected exit code 2 and {text!r}, found {found}")
    print(f"attempt_record: {len(MISTAKES) - failed} of {len(MISTAKES)} mistakes refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
