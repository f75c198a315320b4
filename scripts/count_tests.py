#!/usr/bin/env python3
"""Adds up what scripts/test left in a folder: GoogleTest's ROOM.json and SCRIPT.py.outcome ("passed" or "failed").

Prints the reason of each skip and each failed test, then "N passed, N failed, N skipped"; exit code 1 if any failed.
"""
import json
import sys
from pathlib import Path


def main() -> int:
    passed, failed, skipped = 0, [], []
    folder = Path(sys.argv[1])
    for report in sorted(folder.glob("*.json")):
        for suite in json.loads(report.read_text())["testsuites"]:
            for test in suite["testsuite"]:
                name = f"{report.stem}: {suite['name']}.{test['name']}"
                if test.get("failures"):
                    failed.append(name)
                elif test["result"] == "SKIPPED":
                    skipped.append(name + ": " + " ".join(s["message"] for s in test.get("skipped", [])))
                elif test["result"] == "COMPLETED":
                    passed += 1
                else:
                    skipped.append(f"{name}: {test['result'].lower()}")
    for outcome in sorted(folder.glob("*.outcome")):
        if outcome.read_text().strip() == "passed":
            passed += 1
        else:
            failed.append(outcome.stem)
    for name in failed:
        print("failed:", name)
    for name in skipped:
        print("skipped:", name.replace("\n", " "))
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return bool(failed) or passed == 0


if __name__ == "__main__":
    sys.exit(main())
