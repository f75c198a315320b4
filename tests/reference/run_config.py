"""A run as the resolved config says it (`speedrun config show FILE`), and what its schedule makes of a step."""
import json
import subprocess
from types import SimpleNamespace
from typing import NamedTuple


def from_json(text: str) -> SimpleNamespace:
    return json.loads(text, object_hook=lambda members: SimpleNamespace(**members))


def overrides(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def resolve(executable: str, file: str, values: list[str] = ()) -> SimpleNamespace:
    """The resolved config of a file with "path=value" overrides; AssertionError where the twin does something else."""
    command = [executable, "config", "show", file, *overrides(values)]
    run = from_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    normuon, head = run.optimizer.matrix, run.numerics.lm_head
    assert (normuon.rule, normuon.decay, normuon.decay_coefficient) == ("normuon", "cautious", "lr")
    assert (normuon.momentum.form, normuon.momentum.nesterov) == ("lerp", True)
    assert (normuon.second_moment, normuon.eps_form, normuon.scale) == ("columns", "clamp", "restore_norm")
    assert (normuon.orthogonalize.method, normuon.orthogonalize.iters) == ("polar_express", 5)
    assert run.model.n_layer == 12 and run.model.mlp_hidden == 4 * run.model.d_model and head.format == "activations"
    assert run.objective.accumulation != "sum", "the twin divides by grad_divisor"
    return run


# The whole run in one precision, as the golden numbers have it; bf16 is what the configs say.
PRECISION = {"bf16": ["numerics.activations=bf16", "numerics.params=declared"],
             "fp32": ["numerics.activations=fp32", "numerics.params=fp32", "model.rope.table_dtype=fp32",
                      "optimizer.adam.state_dtype=fp32", "optimizer.matrix.orthogonalize.dtype=fp32"]}


class Settings(NamedTuple):
    lr_scale: float
    momentum: float
    window_short: int  # tokens
    window_long: int
    stage: SimpleNamespace


def settings_at(run: SimpleNamespace, step: int) -> Settings:
    schedule, momentum = run.schedule, run.optimizer.matrix.momentum
    stage = [s for s in schedule.stages if s.start <= step][-1]
    x, frac = min(schedule.lr.clamp_x, step / schedule.scheduled_steps), schedule.lr.cooldown_frac
    w = min(1.0, (1 - x) / frac)
    last = schedule.scheduled_steps + schedule.extension_steps
    up = step / momentum.warmup_steps if momentum.warmup_steps else 1.0
    down = (last - step) / momentum.cooldown_steps if momentum.cooldown_steps else 1.0
    part = up if step < momentum.warmup_steps else min(1.0, down)
    mul = ([s.mul for s in getattr(schedule.lr, "stages", []) if s.start <= step] or [1])[-1]
    return Settings(mul * w + schedule.lr.floor * (1 - w), momentum.min + part * (momentum.max - momentum.min),
                    stage.window.short * schedule.block_size, stage.window.long * schedule.block_size, stage)
