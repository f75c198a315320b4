#!/usr/bin/env python3
"""Adds up what scripts/test left in a folder: CTest's ctest.xml (JUnit) and SCRIPT.py.outcome ("passed" or "failed").

Prints the reason of each skip and each failed test, then "N passed, N failed, N skipped"; exit code 1 if any failed.
"""
import re
import sys
from pathlib import Path
from xml.etree import ElementTree


def reason(case: ElementTree.Element) -> str:
    """Why a test was skipped: what GoogleTest printed below "Skipped", else what CTest says."""
    printed = re.search(r"^.*: Skipped\n(.*?)\n\n?\[  SKIPPED \]", case.findtext("system-out", ""), re.M | re.S)
    skip = case.find("skipped")
    said = skip.get("message", "") if skip is not None else ""
    return " ".join((printed.group(1) if printed else said or case.get("status", "")).split())


def main() -> int:
    passed, failed, skipped = 0, [], []
    folder = Path(sys.argv[1])
    for case in ElementTree.parse(folder / "ctest.xml").iter("testcase"):
        name, status = case.get("name"), case.get("status")
        if status == "run":
            passed += 1
        elif status == "fail":
            failed.append(name)
        else:
            skipped.append(f"{name}: {reason(case)}")
    for outcome in sorted(folder.glob("*.outcome")):
        if outcome.read_text().strip() == "passed":
            passed += 1
        else:
            failed.append(outcome.stem)
    for name in failed:
        print("failed:", name)
    for name in skipped:
        print("skipped:", name)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return bool(failed) or passed == 0


if __name__ == "__main__":
    sys.exit(main())
