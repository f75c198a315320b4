#!/usr/bin/env python3
"""Compares the executable's tokenizer with tiktoken's gpt2, on random text and on given files, and times tiktoken.

  python tests/reference/test_tokenizer.py [--executable FILE] [--tokenizer FOLDER] [--texts N] [--seed S] [FILES...]

By default build/speedrun and data/tokenizer (which scripts/fetch_tokenizer fills). Needs tiktoken and numpy. Exit code 1 on a difference.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# tiktoken 0.14.0's own pattern of gpt2
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SEPARATOR = "\x1e\x1e separator \x1e\x1e"
END_OF_TEXT = 50256


def reference(folder):
    ranks = data_gym_to_mergeable_bpe_ranks(os.path.join(folder, "vocab.bpe"), os.path.join(folder, "encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": END_OF_TEXT})


def random_text(rng):
    """Mixes scripts, white space, contractions, and any code point at all."""
    pools = [
        lambda: rng.choice([" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\x85", "\x1c", " \n "]),
        lambda: rng.choice(["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'", "''", "\u2019s", "'l", "'v"]),
        lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyzETAOIN") for _ in range(rng.randrange(1, 12))),
        lambda: str(rng.randrange(10 ** rng.randrange(1, 9))),
        lambda: "".join(rng.choice("!?.,;:-_()[]{}<>|@#$%^&*+=~`\"/\\") for _ in range(rng.randrange(1, 6))),
        lambda: chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])),
        lambda: chr(rng.randrange(0x3000)),
        lambda: rng.choice(["<|endoftext|>", "\U0001f600", "e\u0301", "\u4f60\u597d", "\u0645\u0631\u062d\u0628\u0627", "\u0661\u0662", "\u00bd", "\u2167"]),
        lambda: rng.choice("ab -=1") * rng.randrange(1, 300),
    ]
    return "".join(rng.choice(pools)() for _ in range(rng.randrange(1, 60)))


def tokenize(executable, folder, texts):
    """Tokens of every text (bytes), each a document."""
    with tempfile.TemporaryDirectory() as work:
        source, prefix = os.path.join(work, "text"), os.path.join(work, "out")
        with open(source, "wb") as f:
            f.write((SEPARATOR + "\n").encode().join(texts))
        subprocess.run([executable, "data", "tokenize", "--tokenizer", folder, "--out", prefix, "--shard-tokens", "1000000000",
                        "--document-separator", SEPARATOR, source], check=True, stdout=subprocess.DEVNULL)
        tokens = np.fromfile(prefix + "_000000.bin", "<u2")[512:]
    starts = np.flatnonzero(tokens == END_OF_TEXT)
    return [t[1:].tolist() for t in np.split(tokens, starts)[1:]]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executable", default=os.path.join(ROOT, "build", "speedrun"))
    parser.add_argument("--tokenizer", default=os.path.join(ROOT, "data", "tokenizer"))
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    encoding = reference(args.tokenizer)
    rng = random.Random(args.seed)
    # every code point once, between letters; then random texts; a text ends with a line end, for the separator's sake
    texts = ["".join(f"a{chr(c)}b 1{chr(c)} {chr(c)}" for c in range(at, min(at + 256, 0x110000)) if not 0xD800 <= c < 0xE000) + "\n"
             for at in range(0, 0x110000, 256)]
    texts = [t for t in texts if t != "\n"] + [random_text(rng) + "\n" for _ in range(args.texts)]
    texts += [open(f, encoding="utf-8", errors="replace", newline="").read() + "\n" for f in args.files]
    ours = tokenize(args.executable, args.tokenizer, [t.encode() for t in texts])
    start = time.perf_counter()
    theirs = [encoding.encode_ordinary(t) for t in texts]
    seconds = time.perf_counter() - start
    if len(ours) != len(texts):
        sys.exit(f"{len(ours)} documents for {len(texts)} texts")
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    for i in wrong[:5]:
        print(f"differs: {texts[i][:80]!r}\n  ours   {ours[i][:40]}\n  theirs {theirs[i][:40]}")
    # any bytes at all: the tokens must give them back
    noise = [bytes(rng.randrange(256) for _ in range(200)).replace(b"\n", b"") + b"\n" for _ in range(1000)]
    lost = sum(encoding.decode_bytes(t) != n for t, n in zip(tokenize(args.executable, args.tokenizer, noise), noise))
    size = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} texts, {size} bytes, {len(wrong)} differ; {lost} of {len(noise)} byte strings not given back; "
          f"tiktoken {tiktoken.__version__}: {size / seconds / 1e6:.1f} MB/s")
    for f in args.files:
        text = open(f, encoding="utf-8", errors="replace", newline="").read()
        best = min(timed(encoding, text) for _ in range(10))
        print(f"{f}: tiktoken {len(text.encode()) / best / 1e6:.1f} MB/s")
    sys.exit(1 if wrong or lost else 0)


def timed(encoding, text):
    start = time.perf_counter()
    encoding.encode_ordinary(text)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
