#!/usr/bin/env python3
"""Deterministic inputs of the golden run of record 43 (tests/golden/record43.json).

    python golden_inputs.py --out DIR

writes DIR/init.safetensors (every parameter, float32, under the reference's names) and DIR/data/*.bin (three shards).
Their sha256 are in record43.json. The arithmetic fits in a few lines of any language:

    uniform(name, i):  z = fnv1a64(name) + (i + 1) * 0x9E3779B97F4A7C15          (mod 2^64; splitmix64)
                       z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) * 0x94D049BB133111EB;  z ^= z >> 31
                       (z >> 11) * 2^-53
    weight i of a parameter:  float32(base + std * sqrt(12) * (uniform(name, i) - 0.5)), rounded to bf16 (ties to even)
    where the reference stores bf16, so that the same file is exact for programs of either precision.
"""
import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "record43.json"
DIM, HEADS, LAYERS, VOCAB, BOS = 128, 2, 12, 512, 499  # token ids are below 500, the table is padded to 512
MASK64 = (1 << 64) - 1


def uniform(name: str, count: int) -> np.ndarray:
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK64
    u = np.uint64
    with np.errstate(over="ignore"):
        z = u(h) + np.arange(1, count + 1, dtype=u) * u(0x9E3779B97F4A7C15)
        z = (z ^ z >> u(30)) * u(0xBF58476D1CE4E5B9)
        z = (z ^ z >> u(27)) * u(0x94D049BB133111EB)
        z ^= z >> u(31)
    return (z >> u(11)).astype(np.float64) * 2.0**-53


def round_to_bf16(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32).astype(np.uint64)
    bits = bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1)) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32)


def parameters() -> dict[str, np.ndarray]:
    fan_in = 0.5 * DIM**-0.5
    table = {"embed.weight": ((VOCAB, DIM), 1.0, True), "smear_gate.weight": ((1, 12), 0.3, True),
             "lm_head.weight": ((VOCAB, DIM), 0.05, True)}
    table |= {f"value_embeds.{k}.weight": ((VOCAB, DIM), 1.0, True) for k in range(3)}
    for i in range(1, LAYERS):
        if i != 7:
            table[f"blocks.{i}.attn.qkvo_w"] = ((DIM, 4 * DIM), fan_in, False)
            table[f"blocks.{i}.attn.attn_gate.weight"] = ((HEADS, 12), 0.3, True)
        table[f"blocks.{i}.mlp.c_fc"] = ((DIM, 4 * DIM), fan_in, False)
        table[f"blocks.{i}.mlp.c_proj"] = ((DIM, 4 * DIM), fan_in / 2, False)

    def draw(name, shape, std, base=0.0):
        return (std * 12**0.5 * (uniform(name, int(np.prod(shape))) - 0.5).reshape(shape) + base).astype(np.float32)

    # 12 skip weights, 12 x (x, x0), 12 x (v, ve), smear, backout
    base = np.array([-1.5] * LAYERS + [1.0, 0.0] * LAYERS + [0.5, 0.5] * LAYERS + [0.25, 0.5])
    weights = {"scalars": draw("scalars", (62,), 0.1, base)}
    for name, (shape, std, bf16) in table.items():
        values = draw(name, shape, std)
        weights[name] = round_to_bf16(values) if bf16 else values
    return weights


DOCUMENT_LENGTHS = [21, 3, 1, 170, 60, 2, 44, 230, 7, 100, 1, 1, 85, 300, 12, 36, 145, 5, 70, 28]


def tokens(name: str, count: int) -> np.ndarray:
    """Documents led by BOS; round k of the lengths adds k % 7 to those over 3. A token follows from the last one
    (7 t + 3 mod BOS) with probability 0.6, else it is drawn with small ids more likely."""
    u = uniform("tokens." + name, 2 * count).reshape(count, 2)
    out = np.empty(count, np.uint16)
    at = document = 0
    while at < count:
        cycle, which = divmod(document, len(DOCUMENT_LENGTHS))
        length = DOCUMENT_LENGTHS[which]
        length += cycle % 7 if length > 3 else 0
        end, last = min(at + length, count), 0
        out[at] = BOS
        for j in range(at + 1, end):
            last = (7 * last + 3) % BOS if u[j, 0] < 0.6 else int(BOS * u[j, 1] * u[j, 1])
            out[j] = last
        at, document = end, document + 1
    return out


def write_shard(path: Path, ids: np.ndarray) -> None:
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + ids.astype("<u2").tobytes())


def write(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file(parameters(), out / "init.safetensors")
    for file, name, count in (("train_000001", "train1", 50000), ("train_000002", "train2", 6000), ("val_000000", "val", 10000)):
        write_shard(out / "data" / "fineweb10B" / f"fineweb_{file}.bin", tokens(name, count))


def check(out: Path) -> None:
    """AssertionError unless every file is the one the golden numbers were computed from."""
    for name, sha256 in json.loads(GOLDEN.read_text())["inputs_sha256"].items():
        found = hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert found == sha256, f"{name}: sha256 {found}, expected {sha256}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    write(out)
    check(out)
