#!/usr/bin/env python3
"""Every rule that configs can choose for matrices, in plain PyTorch, each written from its paper or source document.

    python optimizers.py          # writes tests/golden/optimizers.json

It shares no code with the program. All arithmetic is fp64, so the golden numbers say how far the program's fp32 and bf16
are from what the formulas mean. A rule sees one matrix; `step(p, g, lr_scale)` returns the new p.
"""
import json
from pathlib import Path

import torch
from torch import Tensor

from golden_inputs import uniform
from twin import POLAR_EXPRESS

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "optimizers.json"
STEPS, SHOWN = 20, (2, 20)
F64 = torch.float64


# ---- parts -------------------------------------------------------------------------------------------------------

def quintic(g: Tensor, steps: int, dtype=F64, safety: float = 1.0, eps: float = 1e-7) -> Tensor:
    """Newton-Schulz, https://kellerjordan.github.io/posts/muon."""
    return polynomial(g, [(3.4445, -4.7750, 2.0315)] * steps, dtype, safety, eps)


def polar_express(g: Tensor, steps: int, dtype=F64) -> Tensor:
    """arXiv 2505.16932, Algorithm 1, the published coefficients for five steps."""
    return polynomial(g, POLAR_EXPRESS[:steps], dtype, 1.02, 1e-6)


def polynomial(g: Tensor, coefficients, dtype, safety: float, eps: float) -> Tensor:
    x = g.to(dtype)
    if g.shape[0] > g.shape[1]:
        x = x.T
    x = x / (x.norm() * safety + eps)
    for a, b, c in coefficients:
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return (x.T if g.shape[0] > g.shape[1] else x).to(dtype)


class Momentum:
    """lerp: m = mu m + (1 - mu) g. accumulate: m = mu m + g. Nesterov: the same once more with the new m."""

    def __init__(self, form: str, nesterov: bool, mu: float):
        self.form, self.nesterov, self.mu, self.m = form, nesterov, mu, 0.0

    def __call__(self, g: Tensor) -> Tensor:
        new = (lambda m: self.mu * m + (1 - self.mu) * g) if self.form == "lerp" else (lambda m: self.mu * m + g)
        self.m = new(self.m)
        return new(self.m) if self.nesterov else self.m


class Decay:
    """decoupled: p *= 1 - c; cautious (arXiv 2510.12402): u += c p where u p >= 0; with c = wd * lr, * schedule, * 1."""

    def __init__(self, lr: float, lr_mul: float = 1, wd: float = 0, kind: str = "none", coefficient: str = "lr"):
        self.lr, self.lr_mul, self.wd, self.kind, self.coefficient = lr, lr_mul, wd, kind, coefficient

    def __call__(self, p: Tensor, u: Tensor, lr_scale: float) -> Tensor:
        c = self.wd * {"lr": self.lr * lr_scale, "schedule": lr_scale, "constant": 1.0}[self.coefficient]
        if self.kind == "cautious":
            u = u + c * p * (u * p >= 0)
        if self.kind == "decoupled":
            p = p * (1 - c)
        return p - self.lr * lr_scale * self.lr_mul * u


# ---- rules -------------------------------------------------------------------------------------------------------

class Muon:
    """Keller Jordan's; `size` is his sqrt(max(1, rows / cols)) or Moonlight's 0.2 sqrt(max(rows, cols))."""

    def __init__(self, decay: Decay, momentum: Momentum, size: str = "rows_over_cols", orthogonalize=quintic, iters: int = 5):
        self.decay, self.momentum, self.size, self.orthogonalize, self.iters = decay, momentum, size, orthogonalize, iters

    def update(self, g: Tensor) -> Tensor:
        return self.orthogonalize(self.momentum(g), self.iters)

    def step(self, p: Tensor, g: Tensor, lr_scale: float) -> Tensor:
        rows, cols = p.shape
        size = {"rows_over_cols": max(1, rows / cols) ** 0.5, "longer_side": 0.2 * max(rows, cols) ** 0.5, "none": 1}[self.size]
        return self.decay(p, self.update(g) * size, lr_scale)


class NorMuon(Muon):
    """arXiv 2510.05491 and its relatives. axis: the dimension averaged over. form: how eps enters. norm: what ||u|| becomes."""

    def __init__(self, *args, axis: int, beta2: float, eps: float, form: str, norm: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.axis, self.beta2, self.eps, self.form, self.norm, self.v = axis, beta2, eps, form, norm, 0.0

    def update(self, g: Tensor) -> Tensor:
        o = super().update(g)
        self.v = self.beta2 * self.v + (1 - self.beta2) * (o * o).mean(self.axis, keepdim=True)
        u = o / self.v.clamp(min=self.eps).sqrt() if self.form == "clamp" else o / (self.v.sqrt() + self.eps)
        length = {"restore": o.norm(), "paper": 0.2 * o.numel() ** 0.5, "free": u.norm()}[self.norm]
        return u * (length / u.norm().clamp(min=1e-10))


class AdaMuon(Muon):
    """MuonVariants: s from 0 and not corrected, unless asked for."""

    def __init__(self, *args, beta2: float = 0.995, correct: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.beta2, self.correct, self.s, self.t = beta2, correct, 0.0, 0

    def update(self, g: Tensor) -> Tensor:
        u = self.momentum(g)
        n = u.norm()
        self.t += 1
        self.s = self.s + (1 - self.beta2) * (n * n - self.s)
        x = quintic(u, self.iters)
        x = x * (n / (x.norm() + 1e-8))
        return x / ((self.s / (1 - self.beta2**self.t if self.correct else 1)) ** 0.5 + 1e-8)


class MomMuon(Muon):
    """MuonVariants: a running average of SWAN's (G G^T)^(-1/2), made every few steps, and first when there is a gradient."""

    def __init__(self, *args, every: int = 1, beta: float = 0.9, normalized: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.every, self.beta, self.normalized, self.root, self.t = every, beta, normalized, None, 0

    def update(self, g: Tensor) -> Tensor:
        u = self.momentum(g)
        if tall := u.shape[0] > u.shape[1]:
            u = u.T
        unit = u / (u.norm() + 1e-7)
        if (self.t % self.every == 0 or self.root is None) and u.any():
            y, z = unit @ unit.T, torch.eye(len(u), dtype=F64)
            for _ in range(self.iters):
                t = 3 * torch.eye(len(u), dtype=F64) - z @ y
                y, z = y @ t / 2, t @ z / 2
            self.root = z if self.root is None else self.root + (1 - self.beta) * (z - self.root)
        self.t += 1
        x = u if self.root is None else self.root @ (unit if self.normalized else u)
        return x.T if tall else x


class OGSignMuon(Muon):
    """MuonVariants: the orthogonal update with the signs of the gradient."""

    def update(self, g: Tensor) -> Tensor:
        return super().update(g).abs() * g.sign()


class AdamW:
    """arXiv 1711.05101, Algorithm 2."""

    def __init__(self, decay: Decay, beta1: float = 0.95, beta2: float = 0.95, eps: float = 1e-8):
        self.decay, self.beta1, self.beta2, self.eps, self.m, self.v, self.t = decay, beta1, beta2, eps, 0.0, 0.0, 0

    def step(self, p: Tensor, g: Tensor, lr_scale: float) -> Tensor:
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        m, v = self.m / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)
        return self.decay(p, m / (v.sqrt() + self.eps), lr_scale)


class Shampoo:
    """arXiv 1802.09568, Algorithm 1; beta < 1: averages; every: roots kept for some steps; one side: its square root."""

    def __init__(self, decay: Decay, momentum: Momentum, beta: float = 1, eps: float = 1e-4, every: int = 1, max_size: int = 2048):
        self.decay, self.momentum, self.beta, self.eps, self.every, self.max_size = decay, momentum, beta, eps, every, max_size
        self.sums, self.roots, self.t = [0.0, 0.0], [None, None], 0

    def step(self, p: Tensor, g: Tensor, lr_scale: float) -> Tensor:
        sides = [i for i in (0, 1) if p.shape[i] <= self.max_size]
        for i in sides:
            outer = g @ g.T if i == 0 else g.T @ g
            self.sums[i] = self.sums[i] + outer if self.beta == 1 else self.beta * self.sums[i] + (1 - self.beta) * outer
            if self.t % self.every == 0:
                values, vectors = torch.linalg.eigh(self.sums[i] + self.eps * torch.eye(len(outer), dtype=F64))
                self.roots[i] = vectors @ torch.diag(values ** (-1 / (2 * len(sides)))) @ vectors.T
        self.t += 1
        u = self.momentum(g)
        u = self.roots[0] @ u if 0 in sides else u
        return self.decay(p, u @ self.roots[1] if 1 in sides else u, lr_scale)


class Soap:
    """arXiv 2409.11321, Algorithm 3, with the first step of its authors' code, which only looks."""

    def __init__(self, decay: Decay, beta1=0.95, beta2=0.95, eps=1e-8, beta=0.95, every=10, max_size=2048):
        self.decay, self.beta1, self.beta2, self.eps, self.beta, self.every = decay, beta1, beta2, eps, beta, every
        self.max_size, self.t, self.m, self.v, self.average, self.basis = max_size, 0, 0.0, 0.0, [0.0, 0.0], [None, None]

    def turn(self, x: Tensor, back: bool = False) -> Tensor:
        left, right = (q if q is not None else torch.eye(n, dtype=F64) for q, n in zip(self.basis, x.shape))
        return left @ x @ right.T if back else left.T @ x @ right

    def step(self, p: Tensor, g: Tensor, lr_scale: float) -> Tensor:
        if self.t > 0:
            self.m = self.beta1 * self.m + (1 - self.beta1) * g
            self.v = self.beta2 * self.v + (1 - self.beta2) * self.turn(g) ** 2
            m, v = self.turn(self.m) / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)
            p = self.decay(p, self.turn(m / (v.sqrt() + self.eps), back=True), lr_scale)
        for i, outer in enumerate((g @ g.T, g.T @ g)):
            if len(outer) > self.max_size:
                continue
            self.average[i] = self.beta * self.average[i] + (1 - self.beta) * outer
            if self.t == 0:
                self.basis[i] = torch.linalg.eigh(self.average[i])[1].flip(1)
            elif self.t % self.every == 0:
                q = self.basis[i]
                order = (q.T @ self.average[i] @ q).diag().argsort(descending=True)
                self.v = self.v.index_select(i, order)
                self.basis[i] = torch.linalg.qr(self.average[i] @ q[:, order])[0]
        self.t += 1
        return p


class Sgd:
    def __init__(self, decay: Decay, momentum: Momentum):
        self.decay, self.momentum = decay, momentum

    def step(self, p: Tensor, g: Tensor, lr_scale: float) -> Tensor:
        return self.decay(p, self.momentum(g), lr_scale)


# ---- what is compared --------------------------------------------------------------------------------------------

def lerp(nesterov: bool = True, mu: float = 0.95) -> Momentum:
    return Momentum("lerp", nesterov, mu)


def accumulate(nesterov: bool = True, mu: float = 0.95) -> Momentum:
    return Momentum("accumulate", nesterov, mu)


def cases() -> list[dict]:
    """A section optimizer.matrix of a config, and what it means. max_size: the preconditioner's, too small for a config's model."""
    variant = dict(iters=6)
    return [
        {"name": "normuon", "matrix": {"rule": "normuon", "lr": 0.03, "weight_decay": 1.2, "decay": "cautious"},
         "rule": lambda wide: NorMuon(Decay(0.03, wd=1.2, kind="cautious"), lerp(), "none", polar_express, axis=-2, beta2=0.95,
                                      eps=1e-10, form="clamp", norm="restore")},
        {"name": "normuon_paper", "matrix": {"rule": "normuon_paper", "weight_decay": 0.1},
         "rule": lambda wide: NorMuon(Decay(0.02, wd=0.1, kind="decoupled"), lerp(False), "none", axis=-1, beta2=0.95, eps=1e-8,
                                      form="add", norm="paper")},
        {"name": "normuon of its authors' repository",
         "matrix": {"rule": "normuon_paper", "momentum": {"nesterov": True}, "eps": 1e-10, "scale": "restore_norm",
                    "scale_factor": "rows_over_cols"},
         "rule": lambda wide: NorMuon(Decay(0.02), lerp(), "rows_over_cols", axis=-1, beta2=0.95, eps=1e-10, form="add",
                                      norm="restore")},
        {"name": "normuon of diffusion-pipe",
         "matrix": {"rule": "normuon", "lr": 0.02, "momentum": {"nesterov": False}, "second_moment": "longer_side",
                    "scale_factor": "longer_side", "weight_decay": 0.1, "decay": "cautious"},
         "rule": lambda wide: NorMuon(Decay(0.02, wd=0.1, kind="cautious"), lerp(False), "longer_side", polar_express,
                                      axis=-2 if wide else -1, beta2=0.95, eps=1e-10, form="clamp", norm="restore")},
        {"name": "muon", "matrix": {"rule": "muon", "weight_decay": 2.0, "decay": "decoupled"},
         "rule": lambda wide: Muon(Decay(0.02, wd=2.0, kind="decoupled"), lerp())},
        {"name": "muon, Moonlight's scale", "matrix": {"rule": "muon", "scale_factor": "longer_side", "momentum": {"nesterov": False}},
         "rule": lambda wide: Muon(Decay(0.02), lerp(False), "longer_side")},
        {"name": "muon, cautious and constant decay",
         "matrix": {"rule": "muon", "weight_decay": 0.1, "decay": "cautious", "decay_coefficient": "constant",
                    "orthogonalize": {"method": "polar_express", "norm_safety": 1.02, "norm_eps": 1e-6}},
         "rule": lambda wide: Muon(Decay(0.02, wd=0.1, kind="cautious", coefficient="constant"), lerp(),
                                   orthogonalize=polar_express)},
        {"name": "adamuon", "matrix": {"rule": "adamuon"},
         "rule": lambda wide: AdaMuon(Decay(0.02), accumulate(), "none", **variant)},
        {"name": "adamuon, corrected", "matrix": {"rule": "adamuon", "bias_correction": True},
         "rule": lambda wide: AdaMuon(Decay(0.02), accumulate(), "none", correct=True, **variant)},
        {"name": "mommuon", "matrix": {"rule": "mommuon", "lr": 0.02},
         "rule": lambda wide: MomMuon(Decay(0.02), accumulate(), iters=15)},
        {"name": "mommuon, normalised, every third step",
         "matrix": {"rule": "mommuon", "lr": 0.02, "preconditioner": {"every_n_steps": 3, "normalize_input": True}},
         "rule": lambda wide: MomMuon(Decay(0.02), accumulate(), iters=15, every=3, normalized=True)},
        {"name": "ogsignmuon", "matrix": {"rule": "ogsignmuon"},
         "rule": lambda wide: OGSignMuon(Decay(0.02), accumulate(), **variant)},
        {"name": "adamw", "matrix": {"rule": "adamw", "lr": 0.01, "weight_decay": 0.5, "decay": "decoupled"},
         "rule": lambda wide: AdamW(Decay(0.01, wd=0.5, kind="decoupled"))},
        {"name": "adamw, cautious, on the schedule",
         "matrix": {"rule": "adamw", "lr": 0.01, "beta1": 0.9, "weight_decay": 0.5, "decay": "cautious", "decay_coefficient": "schedule"},
         "rule": lambda wide: AdamW(Decay(0.01, wd=0.5, kind="cautious", coefficient="schedule"), beta1=0.9)},
        {"name": "shampoo", "matrix": {"rule": "shampoo", "preconditioner": {"every_n_steps": 1}}, "rule": lambda wide: Shampoo(Decay(0.02), lerp(False, 0.0))},
        {"name": "shampoo, averages, momentum, every third step",
         "matrix": {"rule": "shampoo", "momentum": {"min": 0.9, "max": 0.9},
                    "preconditioner": {"beta": 0.9, "eps": 1e-2, "every_n_steps": 3}},
         "rule": lambda wide: Shampoo(Decay(0.02), lerp(False, 0.9), beta=0.9, eps=1e-2, every=3)},
        {"name": "shampoo, one side", "matrix": {"rule": "shampoo", "preconditioner": {"every_n_steps": 1}}, "max_size": 8,
         "rule": lambda wide: Shampoo(Decay(0.02), lerp(False, 0.0), max_size=8)},
        {"name": "soap", "matrix": {"rule": "soap", "eps": 1e-3, "preconditioner": {"every_n_steps": 5}},
         "rule": lambda wide: Soap(Decay(3e-3), eps=1e-3, every=5)},
        {"name": "soap, one side",
         "matrix": {"rule": "soap", "eps": 1e-3, "weight_decay": 0.1, "decay": "decoupled",
                    "preconditioner": {"every_n_steps": 5}}, "max_size": 8,
         "rule": lambda wide: Soap(Decay(3e-3, wd=0.1, kind="decoupled"), eps=1e-3, every=5, max_size=8)},
        {"name": "sgd", "matrix": {"rule": "sgd", "lr": 0.01, "momentum": {"nesterov": True}},
         "rule": lambda wide: Sgd(Decay(0.01), accumulate(True, 0.9))},
    ]


# Name, rows, columns, kind of gradient.
INPUTS = [("tall", 12, 8, "full"), ("wide", 8, 12, "full"), ("square", 8, 8, "full"), ("row", 1, 4, "full"),
          ("column", 4, 1, "full"), ("zero", 6, 8, "zero"), ("rank 2", 8, 9, "rank 2"), ("stops", 8, 10, "stops"), ("starts", 8, 10, "starts")]


def entries(name: str, rows: int, cols: int) -> Tensor:
    """Uniform in [-1, 1), of which the program draws the same."""
    return torch.from_numpy(2 * uniform(name, rows * cols) - 1).view(rows, cols)


def gradient(name: str, rows: int, cols: int, kind: str, step: int) -> Tensor:
    seed = f"{name}.{step}"
    if kind == "zero" or kind == "stops" and step > 5 or kind == "starts" and step == 1:
        return torch.zeros(rows, cols, dtype=F64)
    if kind == "rank 2":
        left, right = entries(seed + ".left", rows, 2), entries(seed + ".right", 2, cols)
        return (left @ right).float().to(F64)
    return entries(seed, rows, cols).float().to(F64)


def run(rule, name: str, rows: int, cols: int, kind: str):
    p, shown, basis = (0.1 * entries(name, rows, cols)).float().to(F64), {}, None
    for step in range(1, STEPS + 1):
        p = rule.step(p, gradient(name, rows, cols, kind, step), 1 - 0.02 * step)
        if step == 1 and isinstance(rule, Soap):
            basis = [q if q is None else q.flatten().tolist() for q in rule.basis]
        if step in SHOWN:
            shown[str(step)] = p.flatten().tolist()
    return {"values": shown} | ({"basis": basis} if basis else {})


def golden() -> dict:
    found = []
    for case in cases():
        runs = {}
        for name, rows, cols, kind in INPUTS:
            runs[name] = run(case["rule"](rows < cols), name, rows, cols, kind)
        found.append({key: value for key, value in case.items() if key != "rule"} | {"runs": runs})
    return {"about": "written by tests/reference/optimizers.py", "steps": STEPS,
            "inputs": [dict(zip(("name", "rows", "cols", "kind"), row)) for row in INPUTS], "cases": found}


def rounded(value):
    """Enough for fp32, whose last bit is 6e-8 of a number."""
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: rounded(member) for key, member in value.items()}
    return [rounded(member) for member in value] if isinstance(value, list) else value


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(rounded(golden()), separators=(",", ":")) + "\n")
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")
