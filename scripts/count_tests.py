#!/usr/bin/env python3
"""Adds up what scripts/test left in a folder: CTest's ctest.xml (JUnit), the tests of each NAME.together of it in
rooms/NAME.xml (GoogleTest's), and SCRIPT.py.outcome ("passed" or "failed").

Prints the reason of each skip and each failed test, then "N passed, N failed, N skipped"; exit code 1 if any failed.
"""
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def together(file: Path, passed: bool) -> list[tuple[str, str, str]]:
    """Name, status as CTest has it and reason of each test of a process; one failed one where it ended too early."""
    if not file.exists():
        return [(f"{file.stem}: left no outcomes", "fail", "")]
    room = file.stem.partition(".")[0]
    found = []
    for case in ElementTree.parse(file).iter("testcase"):
        skip = case.find("skipped")
        status = "fail" if case.find("failure") is not None else "run" if skip is None else "notrun"
        said = (skip.get("message", "") if skip is not None else "").partition("\n")[2]
        found.append((f"{room}.{case.get('classname')}.{case.get('name')}", status, " ".join(said.split())))
    if not passed and all(status != "fail" for _, status, _ in found):
        found.append((f"{file.stem}: failed, though none of its tests did", "fail", ""))
    return found


def outcomes(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, status and reason of every C++ test."""
    for case in ElementTree.parse(folder / "ctest.xml").iter("testcase"):
        name, status = case.get("name"), case.get("status")
        if name.endswith(".together"):
            yield from together(folder / "rooms" / (name.removesuffix(".together") + ".xml"), status == "run")
        else:
            yield name, status, reason(case)


def reason(case: ElementTree.Element) -> str:
    """Why a test was skipped: what GoogleTest printed below "Skipped", else what CTest says."""
    printed = re.search(r"^.*: Skipped\n(.*?)\n\n?\[  SKIPPED \]", case.findtext("system-out", ""), re.M | re.S)
    skip = case.find("skipped")
    said = skip.get("message", "") if skip is not None else ""
    return " ".join((printed.group(1) if printed else said or case.get("status", "")).split())


def main() -> int:
    passed, failed, skipped = 0, [], []
    folder = Path(sys.argv[1])
    for name, status, said in outcomes(folder):
        if status == "run":
            passed += 1
        elif status == "fail":
            failed.append(name)
        else:
            skipped.append(f"{name}: {said}")
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
