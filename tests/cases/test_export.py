#!/usr/bin/env python3
"""`speedrun export --hf`: what Hugging Face's transformers makes of the folder computes what the program computes.

    .deps/venv/bin/python tests/cases/test_export.py [NAME...]      the cases of these names, or all; needs build/speedrun
                                                                    and data/tokenizer
"""
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path

from fixture import REPOSITORY, Case, main, require, sets, shard

HUGGING_FACE = tempfile.TemporaryDirectory(prefix="speedrun_export_")  # where transformers puts modules that it loads
os.environ.update(HF_HOME=HUGGING_FACE.name, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
                  TRANSFORMERS_VERBOSITY="error")

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(REPOSITORY / "src/app/export"))
from hf.configuration_speedrun import SpeedrunConfig
from hf.modeling_speedrun import SpeedrunForCausalLM

TRACK_3 = 3
# Between them they have every part that a plan can name.
RECORDS = {43: "golden_tiny", 62: "record_62_tiny", 73: "record_73_tiny", 77: "record_77_tiny", 82: "record_82_tiny",
           89: "record_89_tiny", TRACK_3: "track_3_tiny"}
# The first leave a text 32 tokens to look back on, the others are the track's own.
SETTINGS = {43: ["data.rows=64"], 77: ["model.rope.table_dtype=bf16"],
            TRACK_3: ["data.sequence_tokens=0"]}  # rows are documents here
BOS = 499  # of the tiny configs, which have 500 tokens
PROMPT = "It's 1984 -\n\n  a cafe"


def small_tokenizer(folder: Path) -> None:
    """GPT-2's first 499 tokens, and end-of-text."""
    whole = REPOSITORY / "data/tokenizer"
    ids = {token: i for token, i in json.loads((whole / "encoder.json").read_text()).items() if i < BOS}
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps({**ids, "<|endoftext|>": BOS}))
    lines = (whole / "vocab.bpe").read_text().splitlines()
    (folder / "vocab.bpe").write_text("\n".join(lines[:1 + BOS - 256]) + "\n")


def random_weights(plan: dict, seed: int) -> dict[str, torch.Tensor]:
    """Of the names and shapes that the modelling file has, with which load_weights compares the program's. Initial ones would
    hide much: many are zeros."""
    drawn = torch.Generator().manual_seed(seed)
    model = SpeedrunForCausalLM(SpeedrunConfig(model=plan))
    def draw(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=drawn)
        return 0.5 + 0.2 * noise if x.dim() < 2 or x.shape[-1] <= 2 else noise * x.shape[-1]**-0.5
    return {name: draw(parameter) for name, parameter in model.named_parameters()}


class Exported:
    """A record's tiny model with random weights, as the program has it and as transformers reads the export."""

    def __init__(self, case: Case, record: int):
        self.case, self.folder = case, case / f"hf_{record}"
        self.tokenizer_folder = case / "tokenizer"
        config = REPOSITORY / f"tests/golden/{RECORDS[record]}.json"
        settings = sets("runtime.threads=1", *SETTINGS.get(record, []))
        self.words = ["--config", config, "--weights", case / f"w_{record}.safetensors", *settings]
        plan = json.loads(case.run("config", "show", config, *settings).out)["model"]
        save_file(random_weights(plan, record), case / f"w_{record}.safetensors")
        ended = case.run("export", "--hf", self.folder, *self.words, "--tokenizer", self.tokenizer_folder)
        require(ended.code == 0, record, ended)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, trust_remote_code=True)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=True)
        require(self.model.dtype == torch.float32, self.model.dtype)

    def program_loss(self, tokens: int, rows: int, shard_file: Path) -> float:
        """The program's mean loss over the first rows of a shard, each of `tokens` tokens."""
        return json.loads(self.evaluate(tokens, rows, shard_file, "--json"))["val_loss"]

    def evaluate(self, tokens: int, rows: int, shard_file: Path, *more) -> str:
        """What `speedrun eval` prints of these rows."""
        shape = sets(f"data.val={shard_file}", f"data.val_micro_batch_tokens={tokens}", f"data.val_tokens={rows * tokens}")
        ended = self.case.run("eval", *self.words, *shape, *more)
        require(ended.code == 0, ended)
        return ended.out

    @torch.no_grad()
    def logits(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(tokens, attention_mask=mask).logits


def check_losses(exported: Exported) -> None:
    """Rows are one document each. Short ones show what happens at a document's beginning, long ones windows and rotation."""
    for tokens, rows in ((4, 16), (256, 2)):
        drawn = random.Random(tokens)
        text = [token for _ in range(rows) for token in [BOS] + [drawn.randrange(BOS) for _ in range(tokens - 1)]] + [BOS]
        file = exported.case / f"rows_{tokens}.bin"
        shard(file, text)
        text = torch.tensor(text)
        found = cross_entropy(exported.logits(text[:-1].view(rows, tokens)).flatten(0, 1), text[1:]).item()
        expected = exported.program_loss(tokens, rows, file)
        print(f"  {exported.folder.name}, rows of {tokens}: {found:.7f}, the program's {expected:.7f}")
        # Both sum in fp32, in other orders: 1e-6 was the most seen.
        require(abs(found - expected) < 5e-6, exported.folder, tokens, found, expected)


def check_text(exported: Exported) -> None:
    tokens = 20
    ended = exported.case.run("generate", *exported.words, "--tokenizer", exported.tokenizer_folder, "--prompt", PROMPT,
                              "--tokens", tokens, "--temperature", 0)
    prompt = exported.tokenizer(PROMPT, return_tensors="pt")
    written = exported.model.generate(**prompt, max_new_tokens=tokens, do_sample=False)
    found = exported.tokenizer.decode(written[0], skip_special_tokens=True)
    require(ended.code == 0 and ended.out == found + "\n", exported.folder, ended, found)


def check_padding(exported: Exported) -> None:
    """A row gives the same logits alone as in a batch, on whichever side its padding stands."""
    drawn = random.Random(1)
    texts = [[BOS] + [drawn.randrange(BOS) for _ in range(length)] for length in (5, 0, 29, 17)]
    width = max(map(len, texts))
    alone = [exported.logits(torch.tensor([text]))[0] for text in texts]
    for left in (lambda spare: spare, lambda spare: 0, lambda spare: spare // 2):
        before = [left(width - len(text)) for text in texts]
        rows, mask = torch.full((len(texts), width), BOS), torch.zeros(len(texts), width, dtype=torch.long)
        for i, text in enumerate(texts):
            own = slice(before[i], before[i] + len(text))
            rows[i, own], mask[i, own] = torch.tensor(text), 1
        together = exported.logits(rows, mask)
        for i, text in enumerate(texts):
            # Logits reach 30; products of other shapes sum in other orders.
            torch.testing.assert_close(together[i, before[i]:before[i] + len(text)], alone[i], rtol=0, atol=1e-4)


def check_mask(exported: Exported) -> None:
    """A mask with a hole is refused."""
    try:
        exported.logits(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[1, 0, 1]]))
    except ValueError as error:
        require("must follow each other" in str(error), error)
    else:
        raise AssertionError("a mask with a hole was taken")


def check_tokens(exported: Exported) -> None:
    """transformers makes the same tokens of a text as the program, and puts end-of-text before it."""
    case, text = exported.case, PROMPT + " d'ete\u0301 \u4e16\u754c \U0001f600\t\t \r\n 3.14 we'll THEY'LL  x"
    (case / "text").write_text(text, newline="")
    ended = case.run("data", "tokenize", "--tokenizer", exported.tokenizer_folder, "--out", case / "s", case / "text")
    require(ended.code == 0, ended)
    tokens = torch.frombuffer(bytearray((case / "s_000000.bin").read_bytes()[1024:]), dtype=torch.int16).tolist()
    require(exported.tokenizer(text).input_ids == tokens and tokens[0] == BOS, exported.tokenizer(text).input_ids, tokens)


def check_bits_per_byte(exported: Exported) -> None:
    """`eval --tokenizer` counts the bytes of the predicted tokens, of which end-of-text has none."""
    file, tokenizer = exported.case / "bytes.bin", exported.tokenizer_folder
    text = [BOS, 40, 300, 498, BOS, 257, 3, 400, BOS]
    shard(file, text)
    token_of = {i: token for token, i in json.loads((tokenizer / "encoder.json").read_text()).items()}
    expected = sum(len(token_of[i]) for i in text[1:] if i != BOS)  # there a character stands for a byte
    found = json.loads(exported.evaluate(4, 2, file, "--tokenizer", tokenizer, "--json"))
    bits = found["val_loss"] * 8 / (math.log(2) * expected)
    require(found["val_bytes"] == expected and abs(found["bits_per_byte"] - bits) < 1e-12, found, expected, bits)
    printed = exported.evaluate(4, 2, file, "--tokenizer", tokenizer)
    wanted = f"val_loss:{found['val_loss']:.6f} val_tokens:8 val_bytes:{expected} bits_per_byte:{bits:.6f}\n"
    require(printed == wanted, printed, wanted)


def case_models(case: Case) -> None:
    """Losses, greedy text, padded batches and tokens are the program's, for models of six records and of track 3."""
    small_tokenizer(case / "tokenizer")
    for record in RECORDS:
        exported = Exported(case, record)
        check_losses(exported)
        check_text(exported)
        check_padding(exported)
    check_mask(exported)
    check_tokens(exported)
    check_bits_per_byte(exported)


def case_mistakes(case: Case) -> None:
    """What cannot be exported is refused, and nothing is written."""
    small_tokenizer(case / "tokenizer")
    config = ["--config", REPOSITORY / "tests/golden/golden_tiny.json"]
    good = ["--hf", case / "hf", "--tokenizer", case / "tokenizer", *config]
    full = case / "full"
    full.mkdir()
    (full / "notes").touch()
    for words, text in (
            (["--run-dir", case], "--hf is missing"),
            ([*good, "--gguf", "x"], "gguf"),
            ([*good], "which weights?"),
            ([*good, "--weights", case / "none"], "none"),
            ([*good, "--weights", case / "val.bin"], "val.bin"),
            (["--hf", case / "hf", *config, "--weights", case / "none"], "50257 tokens, the model was trained on 500"),
            (["--hf", full, "--run-dir", case], "found notes there, expected a new or empty folder"),
            (["--hf", full / "notes", "--run-dir", case], "found a file, expected a new or empty folder")):
        ended = case.run("export", *words)
        require(ended.code == 2 and text in ended.err and not (case / "hf").exists(), words, ended)
    require([path.name for path in full.iterdir()] == ["notes"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main({name: body for name, body in globals().items() if name.startswith("case_")}))
