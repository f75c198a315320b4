#!/usr/bin/env python3
"""Writes tests/golden/tokenizer.json: tricky strings with tiktoken's tokens.

  python tests/reference/make_tokenizer_golden.py --tokenizer FOLDER > tests/golden/tokenizer.json
"""
import argparse
import json

from test_tokenizer import reference

TEXTS = [
    "", " ", "  ", "\n", "a", "Hello world", "Hello  world", "Hello   world ", " leading", "trailing  ", "\n\nfoo\n\n\n  bar\t\tbaz \n",
    "I'm you're he's we've they'll I'd don't", "I'M YOU'RE", "'s's 's ''s '", "rock'n'roll o'clock 'tis", "it\u2019s", "'lx 've 'v 'r",
    "1234567890 12 3.14159 1e-9 \u00bd \u2167 \u0661\u0662\u0663", "x=1;y[2]+=3//4 <<= >>>", "don't!!! ...what?? --ok--", "http://example.com/?q=a%20b#c",
    "<|endoftext|>", "a<|endoftext|>b", "\u00a0\u00a0nbsp\u00a0x", "\u2003em \u3000ideographic\u3000", "\u200bzero\u200bwidth", "\x85nel\x85", "\x1c\x1d\x1e\x1f", "\x00\x01\x7f",
    "\u180e mongolian", "\ufeffbom", "e\u0301 combining \u0301", "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m stra\u00dfe", "\u4f60\u597d\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155\ud558\uc138\uc694",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea", "\U0010ffff\ue000\ufffd", "\U00010d4a \U0002ebf0 \U000323b0 new letters",
    "\r\nwindows\r\nlines\r\n", " \n \n x", "\t\t\tindented", "a" * 95, "a" * 96, "a" * 97, "ab" * 150, " " * 200 + "x", "\n" * 130, "-" * 97, "=" * 300, "supercalifragilisticexpialidocious" * 5,
    "\u0661" * 60, "\u4f60" * 70, "!?" * 80, "Th\u00e9" * 40, "0" * 250, "antidisestablishmentarianism \u017fharp", "DUKE.\nIf music be the food of love, play on;\n",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    encoding = reference(parser.parse_args().tokenizer)
    lines = [json.dumps({"text": t, "tokens": encoding.encode_ordinary(t)}) for t in TEXTS]
    print("[\n" + ",\n".join(lines) + "\n]")


if __name__ == "__main__":
    main()
