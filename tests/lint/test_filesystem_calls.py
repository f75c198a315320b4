#!/usr/bin/env python3
"""Nothing in src/ but util/files.cpp calls the functions of std::filesystem.

Their exceptions would end the program as a fault of its own, where a path is only unreadable, too long, or a ring of links;
util/files.h has all that is needed, with UserErrors that name the path.
"""
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
ALLOWED = {SOURCE / "util/files.cpp"}
FUNCTIONS = """absolute canonical weakly_canonical relative proximate copy copy_file copy_symlink create_directory create_directories
create_hard_link create_symlink create_directory_symlink current_path exists equivalent file_size hard_link_count last_write_time
permissions read_symlink remove remove_all rename resize_file space status symlink_status temp_directory_path is_block_file
is_character_file is_directory is_empty is_fifo is_other is_regular_file is_socket is_symlink directory_iterator
recursive_directory_iterator directory_entry""".split()
CALL = re.compile(r"\b(?:fs|std::filesystem|filesystem)::(" + "|".join(FUNCTIONS) + r")\b")
COMMENT = re.compile(r"//.*")


def calls(text: str) -> list[tuple[int, str]]:
    return [(number, match[0]) for number, line in enumerate(text.splitlines(), 1) for match in CALL.finditer(COMMENT.sub("", line))]


def main() -> int:
    # What is looked for is found: a pattern that matches nothing would pass everything.
    assert calls("if (fs::exists(path)) return;\n// fs::remove(path)\nstd::filesystem::rename(a, b);") == [
        (1, "fs::exists"), (3, "std::filesystem::rename")], "the pattern of this check"
    assert any(calls(path.read_text()) for path in ALLOWED), "util/files.cpp calls none of them"
    found = [f"{path.relative_to(SOURCE.parent)}:{number}: {call}: util/files.h has what the program may call"
             for path in sorted(SOURCE.rglob("*")) if path.suffix in (".h", ".cpp", ".cu", ".cuh") and path not in ALLOWED
             for number, call in calls(path.read_text())]
    print("\n".join(found) if found else "no call of std::filesystem's functions outside of util/files.cpp")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
