"""Record 43's model, loss, optimizers and schedule in plain PyTorch, written from their formulas.

It shares no code with the C++ program, only the resolved config, the shards and the names of the parameters, so that a
mistake would have to be made twice to go unseen. `Twin(run).load(file)`, then `twin.train_step(step, batches)`.
"""
import math
from types import SimpleNamespace
from typing import Iterable, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from run_config import Settings, settings_at
from shards import Batch

LAYERS, WITHOUT_ATTENTION, LONG, BACKOUT_AFTER = 12, (0, 7), (4, 11), 8
VALUE_TABLE = {1: 1, 2: 2, 9: 0, 10: 1, 11: 2}  # layer -> value embedding
SKIP_FROM = {6: 5, 7: 4, 8: 3, 9: 2, 10: 1}     # layer -> layer whose output is added before it
SKIP, BLOCK, VALUE, SMEAR, BACKOUT = 0, LAYERS, 3 * LAYERS, 5 * LAYERS, 5 * LAYERS + 1  # offsets in `scalars`
GATE_DIMS, NORM_EPS = 12, torch.finfo(torch.float32).eps
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


# ---- attention ---------------------------------------------------------------------------------------------------

def attention_mask(starts: Tensor, tokens: int, window: int, dtype: torch.dtype, block: int = 128) -> Tensor:
    """What scaled_dot_product_attention adds to the scores: 0 where query t sees key s, that is t - window <= s <= t in
    one document, else -inf. [n, 1, block, span]: queries in n blocks, each against the `span` keys that end with its
    own block, so that the work grows with the window, not with T. n = 1 and span = T where that would not pay."""
    document = torch.bucketize(torch.arange(tokens), starts, right=True)
    span = block * (1 + math.ceil(window / block))
    if tokens % block or span >= tokens:
        block = span = tokens
    query = torch.arange(tokens).view(-1, block, 1)
    key = (query[:, :1] + block - span + torch.arange(span)).expand(-1, block, span)
    seen = (key >= 0) & (key <= query) & (key >= query - window) & (document[key.clamp(min=0)] == document[query])
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -math.inf).unsqueeze(1)


class Documents(NamedTuple):
    """What varlen_attn wants instead of a mask."""
    cu_seqlens: Tensor  # [documents + 1] int32
    longest: int        # tokens of the longest document
    window: int         # keys before its own that a query sees


def mask_for(kind: str, starts: Tensor, tokens: int, window: int, dtype: torch.dtype, block: int, device: str):
    """What `attention` of that kind takes as its mask, for work on the device. `starts` is on the CPU."""
    if kind in ("sdpa", "explicit"):
        return attention_mask(starts, tokens, window, dtype, block).to(device)
    if kind == "varlen":
        ends = torch.cat([starts, starts.new_tensor([tokens])]).to(torch.int32)
        return Documents(ends.to(device, non_blocking=True), int(ends.diff().max()), window)
    document = torch.bucketize(torch.arange(tokens, device=device), starts.to(device, non_blocking=True), right=True)

    def seen(batch, head, query, key):
        return (key <= query) & (key >= query - window) & (document[key] == document[query])

    return create_block_mask(seen, None, None, tokens, tokens, device=device, BLOCK_SIZE=block, _compile=device != "cpu")


def attention(q: Tensor, k: Tensor, v: Tensor, mask, scale: float, kind: str = "sdpa") -> Tensor:
    """q, k, v [T, heads, head_dim] -> [T, heads, head_dim]; mask from mask_for. Kinds for CPUs: "sdpa"; "explicit", two
    products, which in bf16 is less exact (the scores are rounded) and faster, forward and backward. For GPUs, whose
    flash attention they are: "varlen"; "flex", to be compiled."""
    if kind == "varlen":
        return varlen_attn(q, k, v, mask.cu_seqlens, mask.cu_seqlens, mask.longest, mask.longest, scale=scale,
                           window_size=(mask.window, 0))
    if kind == "flex":
        heads_first = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        return flex_attention(*heads_first, block_mask=mask, scale=scale)[0].transpose(0, 1)
    n, _, block, span = mask.shape

    def span_blocks(x: Tensor) -> Tensor:
        own = x.view(n, block, *x.shape[1:])
        before = [F.pad(own[:n - back], (0, 0, 0, 0, 0, 0, back, 0)) for back in range(span // block - 1, 0, -1)]
        return torch.cat([*before, own], 1).transpose(1, 2)  # [n, heads, span, head_dim]

    queries = q.view(n, block, *q.shape[1:]).transpose(1, 2)
    if kind == "explicit":
        y = (queries @ span_blocks(k).mT * scale + mask).softmax(-1) @ span_blocks(v)
    else:
        y = F.scaled_dot_product_attention(queries, span_blocks(k), span_blocks(v), attn_mask=mask, scale=scale)
    return y.transpose(1, 2).reshape(q.shape)


class Yarn:
    """Rotary frequencies and softmax scale, stretched whenever the long window grows."""

    def __init__(self, rope: SimpleNamespace, head_dim: int, dtype: torch.dtype, device: str):
        turning = rope.rotary_dims // 2
        self.rope, self.dtype, self.device, self.scale = rope, dtype, device, rope.yarn.softmax_scale_init
        self.made: dict[int, tuple[Tensor, Tensor]] = {}  # tables since the last stretch
        self.frequency = torch.zeros(head_dim // 2)
        self.frequency[:turning] = (1 / rope.theta) ** torch.linspace(0, 1, turning)

    def stretch(self, old: int, new: int) -> None:
        """From a window of `old` tokens to one of `new`."""
        alpha, beta = self.rope.yarn.alpha, self.rope.yarn.beta
        keep = ((old * self.frequency / (2 * math.pi) - alpha) / (beta - alpha)).clamp(0, 1)
        self.frequency = self.frequency * (old / new + keep * (1 - old / new))
        self.made.clear()
        self.scale *= 1 + self.rope.yarn.softmax_scale_log_coef * math.log(new / old)

    def tables(self, tokens: int) -> tuple[Tensor, Tensor]:
        if tokens not in self.made:
            angle = torch.outer(torch.arange(tokens, dtype=torch.float32), self.frequency).unsqueeze(1)
            self.made[tokens] = angle.cos().to(self.device, self.dtype), angle.sin().to(self.device, self.dtype)
        return self.made[tokens]


# ---- model -------------------------------------------------------------------------------------------------------

def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), -1).to(x.dtype)


def linear(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w.to(x.dtype))


def uniform(*shape: int, dim: int) -> Tensor:
    bound = 3**0.5 * 0.5 * dim**-0.5
    return torch.empty(shape).uniform_(-bound, bound)


class Fp8Linear(torch.autograd.Function):
    """x [T, in] @ w [out, in].T, operands in e4m3 and the gradient in e5m2; a scale is what an 8-bit 1 stands for."""

    @staticmethod
    def forward(ctx, x, w, scales: SimpleNamespace):
        x8, w8 = (x / scales.x_scale).to(torch.float8_e4m3fn), (w / scales.w_scale).to(torch.float8_e4m3fn)
        ctx.save_for_backward(x8, w8)
        ctx.scales = scales
        return scaled_product(x8, w8.T, scales.x_scale, scales.w_scale, torch.bfloat16, fast=True)

    @staticmethod
    def backward(ctx, grad):
        (x8, w8), scales = ctx.saved_tensors, ctx.scales
        g8 = (grad / scales.grad_scale).to(torch.float8_e5m2)
        by_column = w8.T.contiguous().T
        dx = scaled_product(g8, by_column, scales.grad_scale, scales.w_scale, torch.bfloat16, fast=False)
        dw = scaled_product(x8.T.contiguous(), g8.T.contiguous().T, scales.x_scale, scales.grad_scale, torch.float32, fast=False)
        return dx, dw.T, None


def scaled_product(a: Tensor, b: Tensor, scale_a: float, scale_b: float, dtype: torch.dtype, fast: bool) -> Tensor:
    """a row by row, b column by column in memory, as 8-bit products want them."""
    scales = (torch.full((), s, dtype=torch.float32, device=a.device) for s in (scale_a, scale_b))
    return torch._scaled_mm(a, b, *scales, out_dtype=dtype, use_fast_accum=fast)


class Weight(nn.Module):
    """A parameter called `weight`: a gate or the head."""

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.kind = heads, "sdpa"
        qkvo = torch.cat([uniform(3, dim, dim, dim=dim), torch.zeros(1, dim, dim)])
        self.qkvo_w = nn.Parameter(qkvo.view(dim, 4 * dim))  # the memory is q, k, v, o, each [out, in]
        self.attn_gate = Weight(heads, GATE_DIMS)

    def forward(self, x, value, lambdas, cos, sin, mask, scale):
        w = self.qkvo_w.view(4, *[x.shape[-1]] * 2)
        q, k, v = linear(x, w[:3].flatten(0, 1)).view(x.shape[0], 3, self.heads, -1).unbind(1)
        v = lambdas[0] * v if value is None else lambdas[0] * v + lambdas[1] * value.view_as(v)
        y = attention(rotate(norm(q), cos, sin), rotate(norm(k), cos, sin), v, mask, scale, self.kind)
        y = y * torch.sigmoid(linear(x[:, :GATE_DIMS], self.attn_gate.weight)).unsqueeze(-1)
        return linear(y.flatten(1), w[3])


class Mlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.c_fc = nn.Parameter(uniform(dim, 4 * dim, dim=dim))  # [in, out]
        self.c_proj = nn.Parameter(torch.zeros(dim, 4 * dim))     # [out, in]

    def forward(self, x):
        return linear(F.relu(linear(x, self.c_fc.T)).square(), self.c_proj)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, layer: int):
        super().__init__()
        self.attn = None if layer in WITHOUT_ATTENTION else Attention(dim, heads)
        self.mlp = None if layer == 0 else Mlp(dim)


class Model(nn.Module):
    """Parameters are drawn in the reference's order: under torch's default seed they are its initial weights."""

    def __init__(self, vocab: int, dim: int, heads: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.smear_gate = Weight(1, GATE_DIMS)
        self.value_embeds = nn.ModuleList(nn.Embedding(vocab, dim) for _ in range(3))
        self.blocks = nn.ModuleList(Block(dim, heads, layer) for layer in range(LAYERS))
        self.lm_head = Weight(vocab, dim)
        self.scalars = nn.Parameter(torch.tensor([-1.5] * LAYERS + [1.0, 0.0] * LAYERS + [0.5] * 2 * LAYERS + [0.0, 0.5]))
        self.activations, self.loss_dtype = torch.float32, None  # loss_dtype: None = that of the activations
        self.fp8: SimpleNamespace | None = None  # the head's scales where training has it in 8 bits

    def forward(self, inputs, targets, short_mask, long_mask, cos, sin, scale: float) -> Tensor:
        """Cross-entropy of [T] tokens: their sum in training, their mean in evaluation."""
        s = self.scalars
        value = [table(inputs).to(self.activations) for table in self.value_embeds]
        x = self.embed(inputs).to(self.activations)
        gate = torch.sigmoid(linear(x[1:, :GATE_DIMS], self.smear_gate.weight))
        x = x0 = norm(torch.cat([x[:1], x[1:] + s[SMEAR] * gate * x[:-1]]))
        outputs = {}
        for i in range(1, LAYERS):
            if i in SKIP_FROM:
                x = x + torch.sigmoid(s[SKIP + i - 6]) * outputs[SKIP_FROM[i]]
            x = s[BLOCK + 2 * i] * x + s[BLOCK + 2 * i + 1] * x0
            if self.blocks[i].attn is not None:
                ve = value[VALUE_TABLE[i]] if i in VALUE_TABLE else None
                mask = long_mask if i in LONG else short_mask
                x = x + self.blocks[i].attn(norm(x), ve, s[VALUE + 2 * i:VALUE + 2 * i + 2], cos, sin, mask, scale)
            x = x + self.blocks[i].mlp(norm(x))
            outputs[i] = x
        x = norm(x - s[BACKOUT] * outputs[BACKOUT_AFTER])
        head = self.lm_head.weight
        z = Fp8Linear.apply(x, head, self.fp8) if self.training and self.fp8 else linear(x, head)
        logits = 30 * torch.sigmoid(z / 7.5)
        if not self.training:
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        elif self.loss_dtype is not None:
            logits = logits.to(self.loss_dtype)
        return F.cross_entropy(logits, targets, reduction="sum" if self.training else "mean")


# ---- optimizers --------------------------------------------------------------------------------------------------

POLAR_EXPRESS = ((8.156554524902461, -22.48329292557795, 15.878769915207462),
                 (4.042929935166739, -2.808917465908714, 0.5000178451051316),
                 (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                 (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                 (2.3465413258596377, -1.7097828382687081, 0.42323551169305323))


def polar_express(g: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearly U V^T of each matrix g = U S V^T, [..., rows, cols]."""
    x = g.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        xx = x @ x.mT
        x = a * x + (b * xx + c * (xx @ xx)) @ x
    return x.mT if tall else x


class NorMuon:
    """One bank of matrices that share a shape; `square`: each holds several [rows, rows] one after the other (qkvo_w)."""

    def __init__(self, config: SimpleNamespace, params: list[nn.Parameter], lr_mul: list[float], dtype: torch.dtype, square=False):
        self.config, self.params, self.dtype = config, params, dtype
        rows, cols = params[0].shape
        self.shape = (-1, rows, rows if square else cols)
        self.lr_mul = torch.tensor(lr_mul, dtype=torch.float64, device=params[0].device).view(-1, 1, 1)
        self.momentum = torch.zeros(len(params), rows, cols, dtype=params[0].dtype, device=params[0].device)
        self.second = torch.zeros_like(self.momentum.view(self.shape)[:, :1])
        self.orthogonalize = polar_express

    @torch.no_grad()
    def step(self, lr_scale: float, momentum: float) -> None:
        lr, beta2 = self.config.lr * lr_scale, self.config.beta2
        grad = torch.stack([p.grad for p in self.params])
        self.momentum.lerp_(grad, 1 - momentum)
        update = self.orthogonalize(grad.lerp_(self.momentum, momentum).view(self.shape), self.dtype)
        before = update.norm(dim=(-2, -1), keepdim=True)
        self.second.lerp_(update.square().mean(-2, keepdim=True).to(self.second.dtype), 1 - beta2)
        update *= self.second.clamp(min=1e-10).rsqrt()
        update *= before / update.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-10)
        weights = torch.stack(list(self.params))
        update = update.reshape(weights.shape)
        update.addcmul_(weights, lr * self.config.weight_decay * (update * weights >= 0).to(weights.dtype))
        weights.addcmul_(update, -(lr * self.lr_mul).to(weights.dtype))
        for p, w in zip(self.params, weights):
            p.copy_(w)


class Adam:
    def __init__(self, config: SimpleNamespace, param: nn.Parameter, lr_mul: float):
        assert config.weight_decay == 0
        self.config, self.param, self.lr_mul, self.steps = config, param, lr_mul, 0
        dtype = param.dtype if param.ndim < 2 or param.dtype == torch.float64 else DTYPES[config.state_dtype]
        self.exp_avg, self.exp_avg_sq = (torch.zeros_like(param, dtype=dtype, requires_grad=False) for _ in range(2))
        self.update = adam_update

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        self.steps += 1
        (beta1, beta2), t = self.config.betas, self.steps
        size = self.config.lr * lr_scale * self.lr_mul * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        self.update(self.param, self.param.grad, self.exp_avg, self.exp_avg_sq, beta1, beta2, self.config.eps, torch.tensor(size))


def adam_update(p, g, m, v, beta1: float, beta2: float, eps: float, size: Tensor) -> None:
    m.mul_(beta1).add_(g, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    p.sub_((m / (v.sqrt() + eps) * size).to(p.dtype))


# ---- a run -------------------------------------------------------------------------------------------------------

class Twin:
    def __init__(self, run: SimpleNamespace, fp64: bool = False, device: str = "cpu"):
        self.run, self.device, model, numerics = run, device, run.model, run.numerics
        self.model = Model(model.vocab_size, model.d_model, model.n_head)
        self.model.activations = DTYPES["fp64" if fp64 else numerics.activations]
        for module in self.model.modules():
            if isinstance(module, (nn.Embedding, Weight)) and numerics.params == "declared":
                module.bfloat16()
        if fp64:
            self.model.double()
        self.model.to(device)
        self.yarn = Yarn(model.rope, model.head_dim, torch.float64 if fp64 else DTYPES[model.rope.table_dtype], device)
        self.window_long = settings_at(run, 0).window_long
        self.compute, self.block, self.kind = self.model, 128, "sdpa"
        self._make_optimizers(torch.float64 if fp64 else DTYPES[run.optimizer.matrix.orthogonalize.dtype])

    def load(self, file: str) -> "Twin":
        state = load_file(file)
        state["scalars"] = state["scalars"][:self.model.scalars.numel()]  # the rest is padding for many ranks
        self.model.load_state_dict(state)
        return self

    def attend_by(self, kind: str) -> "Twin":
        """As `attention` names the ways."""
        self.kind = kind
        for module in self.model.modules():
            if isinstance(module, Attention):
                module.kind = kind
        return self

    def fp8_head(self, scales: SimpleNamespace) -> "Twin":
        self.model.fp8 = scales
        return self

    def compile(self, mode: str = "default") -> "Twin":
        self.compute = torch.compile(self.model, mode=mode, dynamic=False, fullgraph=True)
        for bank in self.normuon:
            bank.orthogonalize = torch.compile(polar_express, mode=mode, dynamic=False)
        for row in self.adam:
            row.update = torch.compile(adam_update, mode=mode, dynamic=False)
        return self

    def _make_optimizers(self, dtype: torch.dtype) -> None:
        config, blocks = self.run.optimizer, self.model.blocks[1:]
        lr_mul = {name: getattr(config.params, name).lr_mul for name in vars(config.params)}
        attns = [b.attn for b in blocks if b.attn is not None]
        self.normuon = [NorMuon(config.matrix, params, muls, dtype, square) for params, muls, square in (
            ([self.model.smear_gate.weight], [lr_mul["smear_gate"]], False),
            ([a.attn_gate.weight for a in attns], [lr_mul["attn_gate"]] * len(attns), False),
            ([a.qkvo_w for a in attns], [lr_mul["attn_qkvo"]] * len(attns), True),
            ([b.mlp.c_fc for b in blocks] + [b.mlp.c_proj for b in blocks],
             [lr_mul["mlp_fc"]] * len(blocks) + [lr_mul["mlp_proj"]] * len(blocks), False))]
        self.adam = [Adam(config.adam, p, lr_mul[name]) for name, p in (
            ("embed", self.model.embed.weight), ("lm_head", self.model.lm_head.weight), ("scalars", self.model.scalars),
            *(("value_embeds", table.weight) for table in self.model.value_embeds))]

    def at(self, step: int) -> Settings:
        """Settings of `step`; steps are asked for in order, because YaRN stretches from one to the next."""
        settings = settings_at(self.run, step)
        if settings.window_long != self.window_long:
            self.yarn.stretch(self.window_long, settings.window_long)
            self.window_long = settings.window_long
        return settings

    def arguments(self, batch: Batch, window_short: int, window_long: int) -> tuple:
        tokens, dtype = len(batch.inputs), self.model.activations
        inputs, targets = (x.to(self.device, non_blocking=True) for x in (batch.inputs, batch.targets))
        masks = [mask_for(self.kind, batch.starts, tokens, w, dtype, self.block, self.device) for w in (window_short, window_long)]
        return inputs, targets, *masks, *self.yarn.tables(tokens), self.yarn.scale

    def forward_backward(self, settings: Settings, batches: Iterable[Batch]) -> list[float]:
        """Adds the gradients of these micro-batches' summed losses, / grad_divisor; returns those losses."""
        divide, losses = 1 / self.run.objective.grad_divisor, []
        for batch in batches:
            loss = self.compute(*self.arguments(batch, settings.window_short, settings.window_long))
            (loss * divide).backward()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()  # waits for a GPU once

    def update(self, step: int, settings: Settings) -> None:
        for bank in self.normuon:
            bank.step(settings.lr_scale, settings.momentum)
        every = self.run.optimizer.adam.every_n_steps
        adam_steps = step % every == every - 1
        for row in self.adam if adam_steps else ():
            row.step(settings.lr_scale)
        for p in self.model.parameters() if adam_steps else (p for bank in self.normuon for p in bank.params):
            p.grad = None

    def train_step(self, step: int, batches: Iterable[Batch]) -> list[float]:
        settings = self.at(step)
        losses = self.forward_backward(settings, batches)
        self.update(step, settings)
        return losses

    @torch.no_grad()
    def validate(self, step: int, batches: Iterable[Batch]) -> list[float]:
        """Mean loss of each micro-batch; after the last step the long window is wider, without a stretch."""
        settings, schedule = self.at(step), self.run.schedule
        last = step == schedule.scheduled_steps + schedule.extension_steps
        long = schedule.eval.final_long_window * schedule.block_size if last else settings.window_long
        self.model.eval()
        losses = [self.model(*self.arguments(batch, settings.window_short, long)).item() for batch in batches]
        self.model.train()
        return losses
