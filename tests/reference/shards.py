"""The track's token files and record 43's batches, as straightforward as they can be said."""
import glob
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    inputs: Tensor   # [T] int64
    targets: Tensor  # [T] int64, the token after each input
    starts: Tensor   # [documents] int64, where documents begin in inputs; the first is 0


def read_shard(path: str | Path) -> np.ndarray:
    header = np.fromfile(path, "<i4", 256)
    assert tuple(header[:2]) == (20240520, 1), f"{path}: not a token shard"
    tokens = np.fromfile(path, "<u2", offset=1024)
    assert len(tokens) == header[2], f"{path}: {len(tokens)} tokens, header says {header[2]}"
    return tokens


def shards(pattern: str) -> Iterator[np.ndarray]:
    files = sorted(glob.glob(pattern))
    assert files, f"no file matches {pattern}"
    return (read_shard(file) for file in files)


def train_rows(pattern: str, bos: int, row_tokens: int, rows: int, max_seq_len: int) -> Iterator[list[Batch]]:
    """Steps of `rows` micro-batches. A row is filled with documents from their BOS on, each cut at max_seq_len and at
    the row's end (row_tokens + 1 tokens); what is cut off is dropped. A step that a shard cannot fill is dropped."""
    for tokens in shards(pattern):
        at = np.append(np.flatnonzero(tokens == bos), len(tokens))
        document, step = 0, []
        while document < len(at) - 1:
            pieces, length = [], 0
            while length <= row_tokens and document < len(at) - 1:
                take = min(at[document + 1] - at[document], max_seq_len, row_tokens + 1 - length)
                pieces.append(tokens[at[document]:at[document] + take])
                length, document = length + take, document + 1
            if length <= row_tokens:
                break
            row = torch.from_numpy(np.concatenate(pieces).astype(np.int64))
            # A last document of one token is only a target; the row then ends with a document of no token.
            starts = np.cumsum([0] + [len(piece) for piece in pieces[:-1]])
            step.append(Batch(row[:-1], row[1:], torch.from_numpy(starts)))
            if len(step) == rows:
                yield step
                step = []


def val_rows(pattern: str, bos: int, row_tokens: int) -> Iterator[Batch]:
    """The validation stream without gaps, in micro-batches; documents part at BOS, the first one may be a remainder."""
    for tokens in shards(pattern):
        for at in range(0, len(tokens) - row_tokens - 1, row_tokens):
            row = torch.from_numpy(tokens[at:at + row_tokens + 1].astype(np.int64))
            starts = torch.nonzero(row[:-1] == bos)[:, 0]
            yield Batch(row[:-1], row[1:], torch.cat([starts.new_zeros(1), starts]))
