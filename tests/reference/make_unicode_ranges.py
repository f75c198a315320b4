#!/usr/bin/env python3
"""Writes src/data/unicode_ranges.inc: which code points tiktoken's regex engine takes for \\p{L}, \\p{N} and \\s.

  python tests/reference/make_unicode_ranges.py --tokenizer FOLDER > src/data/unicode_ranges.inc

FOLDER holds vocab.bpe and encoder.json. Needs tiktoken; asks it about every code point. To be run again when a newer
tiktoken, with a newer Unicode, is the one to be equal to.
"""
import argparse
import os

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks


def ranges(ranks, pattern):
    """Text that the pattern does not match gives no tokens, so one encoding asks about one class."""
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    found = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or not encoding.encode_ordinary(chr(c)):
            continue
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def table(name, pattern, found):
    lines, line = [], "   "
    for first, last in found:
        item = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(item) > 109:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([f"// {pattern}", f"constexpr Range {name}[] = {{", *lines, line, "};"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    folder = parser.parse_args().tokenizer
    ranks = data_gym_to_mergeable_bpe_ranks(os.path.join(folder, "vocab.bpe"), os.path.join(folder, "encoder.json"))
    print(f"// Made by tests/reference/make_unicode_ranges.py from tiktoken {tiktoken.__version__}; not to be edited.")
    print("// clang-format off")
    for name, pattern in (("kLetters", r"\p{L}"), ("kNumbers", r"\p{N}"), ("kSpaces", r"\s")):
        print(table(name, pattern, ranges(ranks, pattern)))
    print("// clang-format on")


if __name__ == "__main__":
    main()
