#!/usr/bin/env python3
"""Adds up what scripts/test left in a folder: GoogleTest's ROOM.xml and SCRIPT.py.outcome ("passed" or "failed").

Prints the reason of each skip and each failed test, then "N passed, N failed, N skipped"; exit code 1 if any failed.
"""
import sys
from pathlib import Path
from xml.etree import ElementTree


def main() -> int:
    passed, failed, skipped = 0, [], []
    folder = Path(sys.argv[1])
    for report in sorted(folder.glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{report.stem}: {case.get('classname')}.{case.get('name')}"
            skip = case.find("skipped")
            if case.find("failure") is not None:
                failed.append(name)
            elif skip is not None:
                skipped.append(f"{name}: {skip.get('message')}")
            elif case.get("status") == "run":
                passed += 1
            else:
                skipped.append(f"{name}: {case.get('status')}")
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
