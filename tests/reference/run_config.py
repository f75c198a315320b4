"""A run as the resolved config says it (`speedrun config show FILE`), and what its schedule makes of a step."""
import json
import subprocess
from types import SimpleNamespace
from typing import NamedTuple


def from_json(text: str) -> SimpleNamespace:
    return json.loads(text, object_hook=lambda members: SimpleNamespace(**members))


def resolve(executable: str, file: str, overrides: list[str] = ()) -> SimpleNamespace:
    command = [executable, "config", "show", file, *(word for value in overrides for word in ("--set", value))]
    return from_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Settings(NamedTuple):
    lr_scale: float
    momentum: float
    window_short: int  # tokens
    window_long: int
    stage: SimpleNamespace


def settings_at(run: SimpleNamespace, step: int) -> Settings:
    schedule, momentum = run.schedule, run.optimizer.normuon.momentum
    stage = [s for s in schedule.stages if s.start <= step][-1]
    x, frac = min(schedule.lr.clamp_x, step / schedule.scheduled_steps), schedule.lr.cooldown_frac
    w = min(1.0, (1 - x) / frac)
    last = schedule.scheduled_steps + schedule.extension_steps
    up = step / momentum.warmup_steps if momentum.warmup_steps else 1.0
    down = (last - step) / momentum.cooldown_steps if momentum.cooldown_steps else 1.0
    part = up if step < momentum.warmup_steps else min(1.0, down)
    return Settings(stage.lr_mul * (w + schedule.lr.floor * (1 - w)), momentum.min + part * (momentum.max - momentum.min),
                    stage.window.short * schedule.block_size, stage.window.long * schedule.block_size, stage)
