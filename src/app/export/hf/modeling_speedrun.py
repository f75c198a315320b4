"""A model of modded-nanogpt's track, whatever the record: it does what its plan says, which is the config's `model`.

The plan declares parameters ("params") and goes from tokens ("input") through "layers" to logits ("output"). What flows
through it are values [batch, tokens, channels], each with a name: "x" is the residual stream, "x0" what it began as, "ve.K"
are value embeddings, "lane1" is a second stream, and layers keep x under names of their own ("cache"). A mix is a list of
[coefficient, name]: the sum of those values, each times its coefficient; `Expression` has the grammar of coefficients.

Nothing is kept from token to token: to generate one, all of the text goes through the model again.
"""
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_speedrun import SpeedrunConfig


# ---- parameters ------------------------------------------------------------------------------------------------------

class Bank:
    """A parameter of the plan: one tensor of the weights file or, where the name there has a "{", one for each index of its
    dimension 0, such as a layer's."""

    def __init__(self, name: str, declared: dict):
        pattern, self.shape = declared.get("state_dict", name), declared["shape"]
        self.split, self.transposed = "{" in pattern, declared["state_dict_transposed"]
        self.names = [pattern]
        if self.split:
            count, *self.shape = self.shape
            layers = declared.get("layers", range(count))
            self.names = [pattern.replace("{i}", str(layer)).replace("{k}", str(k)) for k, layer in enumerate(layers)]
        self.stored_shape = declared.get("state_dict_shape", self.shape[::-1] if self.transposed else self.shape)
        self.slices = declared.get("slices", {})

    def of(self, module: nn.Module) -> Tensor | list[Tensor]:
        """In the plan's own shape; where it is split, the list of its entries."""
        stored = [module.get_parameter(name) for name in self.names]
        entries = [(x.mT if self.transposed else x).view(self.shape) for x in stored]
        return entries if self.split else entries[0]


def register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Under a name with dots, "blocks.1.mlp.c_fc", as modules within modules have it."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(last, parameter)


# ---- the plan's notation ---------------------------------------------------------------------------------------------

def indexed_name(text: str) -> tuple[str, tuple]:
    """The name and its indices: of "qk_bank[6:9]" they are "qk_bank" and (slice(6, 9),), of "scalars.sa[3,1]" (3, 1)."""
    name, _, indices = text.rstrip("]").partition("[")
    bounds = [[int(n) if n else None for n in index.split(":")] for index in indices.split(",") if index]
    return name, tuple(slice(*b) if len(b) == 2 else b[0] for b in bounds)


class Expression:
    """The text of a coefficient. Its value is a number for the model, or (of gates and nets) [batch, tokens, n]: numbers
    for each token, each of which multiplies an n-th of the channels.

        sum     = [-] product { (+ | -) product }
        product = factor { * factor }
        factor  = number | sigmoid(sum) | tanh(sum) | (sum) | element | gate | output
        element = scalars.skip[0], x0_lambdas[3]     of a parameter, or of a slice of one
        gate    = attn_gate[3]@a[:12]|ve.0[:6]       the first channels of values, one after the other, times a matrix
        output  = m0[3], m0[6:8]                     of a net (plan["coef_nets"])
    """
    WORD = re.compile(r"sigmoid\(|tanh\(|[a-zA-Z_][\w.]*(?:\[[^]]*\])?|[\d.]+(?:e[+-]?\d+)?|.")

    def __init__(self, text: str, forward: "ForwardPass"):
        self.words, self.forward = self.WORD.findall(text)[::-1], forward

    def take(self, *wanted: str) -> str | None:
        """The next word, if it is one of these."""
        return self.words.pop() if self.words and self.words[-1] in wanted else None

    def sum(self) -> Tensor | float:
        total = -self.product() if self.take("-") else self.product()
        while sign := self.take("+", "-"):
            total = total + self.product() if sign == "+" else total - self.product()
        return total

    def product(self) -> Tensor | float:
        value = self.factor()
        while self.take("*"):
            value = value * self.factor()
        return value

    def factor(self) -> Tensor | float:
        if opened := self.take("sigmoid(", "tanh(", "("):
            value = self.sum()
            self.take(")")
            return value if opened == "(" else torch.sigmoid(value) if opened == "sigmoid(" else torch.tanh(value)
        word = self.words.pop()
        if word[0].isdigit():
            return float(word)
        return self.gate(word) if self.take("@") else self.element_or_output(word)

    def gate(self, matrix: str) -> Tensor:
        inputs = []
        while not inputs or self.take("|"):
            name, (channels,) = indexed_name(self.words.pop())
            inputs.append(self.forward.values[name][..., channels])
        return F.linear(torch.cat(inputs, -1), self.forward.weight(matrix))

    def element_or_output(self, word: str) -> Tensor:
        name, index = indexed_name(word)
        if name not in self.forward.outputs:
            return self.forward.weight(word)
        columns = index[0] if isinstance(index[0], slice) else slice(index[0], index[0] + 1)
        return self.forward.outputs[name][..., columns]


# ---- small functions -------------------------------------------------------------------------------------------------

def times(coefficient: Tensor | float, x: Tensor) -> Tensor:
    """Where the coefficient is n numbers for each token, each multiplies the next of n equal parts of the channels."""
    if not isinstance(coefficient, Tensor) or coefficient.dim() == 0:
        return coefficient * x
    return (coefficient.unsqueeze(-1) * x.unflatten(-1, (coefficient.shape[-1], -1))).flatten(-2)


def previous(x: Tensor) -> Tensor:
    """x [batch, tokens, ...]: for each token what the one before it has, for the first zeros."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


def visible(tokens: int, before: int, device: torch.device) -> Tensor:
    """[query, key]: whether the query sees the key: itself, and so many tokens before it."""
    position = torch.arange(tokens, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance <= before)


# ---- the model -------------------------------------------------------------------------------------------------------

class ForwardPass:
    """From tokens [batch, tokens] to what the head reads. A row is one document, from its first column on."""

    def __init__(self, model: "SpeedrunForCausalLM", tokens: Tensor):
        self.model, self.tokens = model, tokens
        self.plan, self.end = model.config.model, model.config.trained_end
        self.values: dict[str, Tensor] = {}   # by their names in the plan
        self.outputs: dict[str, Tensor] = {}  # of nets, [batch, tokens, outputs]

    def run(self) -> Tensor:
        """[batch, tokens, d_model]"""
        self.embed()
        for layer in self.plan["layers"]:
            if not layer["skip_layer"]:
                self.layer(layer)
        self.nets(-1)
        return self.norm(self.mix(self.plan["output"].get("mix")), self.plan["output"])

    def weight(self, text: str) -> Tensor:
        """A part of a parameter, or of a slice of one: "mlp_bank[3,1]", "qk_bank[6:9]", "scalars.sa[3,1]"."""
        name, index = indexed_name(text)
        name, _, part = name.partition(".")
        bank = self.model.banks[name]
        found = bank.of(self.model)
        if part:
            begin, shape = bank.slices[part]["at"], torch.Size(bank.slices[part]["shape"])
            found = found.flatten()[begin:begin + shape.numel()].view(shape)
        if isinstance(found, list):
            found, index = found[index[0]], index[1:]
        return found[index]

    def coefficient(self, c: float | str) -> Tensor | float:
        return Expression(c, self).sum() if isinstance(c, str) else c

    def mix(self, terms: list | None) -> Tensor:
        """The sum of the terms; x where there are none."""
        if not terms:
            return self.values["x"]
        return sum(times(self.coefficient(c), self.values[name]) for c, name in terms)

    def norm(self, x: Tensor, place: dict | None = None) -> Tensor:
        """With the gains that the plan has at this place, if any."""
        return F.rms_norm(x, x.shape[-1:], self.optional(place or {}, "norm_gain"), self.plan["norm_eps"])

    def optional(self, place: dict, key: str) -> Tensor | None:
        return self.weight(place[key]) if key in place else None

    # ---- from tokens to the stream

    def embed(self) -> None:
        plan, values = self.plan["input"], self.values
        e = values["e"] = F.embedding(self.tokens, self.weight(plan["tied_to"] if self.end["tied"] else plan["token"]))
        if plan["smear"] is not None:
            e = e + times(self.coefficient(plan["smear"]), previous(e))
        values["x"] = values["x0"] = self.norm(e, plan)
        if "value_embeds" in plan:
            for k, table in enumerate(self.model.banks[plan["value_embeds"]].of(self.model)):
                values[f"ve.{k}"] = F.embedding(self.tokens, table)
        if plan["bigram"]:
            values["x0_bigram"] = self.bigram(plan["bigram"])
        self.nets(0)
        values["x"] = self.mix(plan.get("init"))

    def bigram(self, plan: dict) -> Tensor:
        """For each token and the one before it a row of a table, chosen by a hash in 32-bit arithmetic; in later records
        times a row of signs. The first token has the table's last row."""
        table, before = self.weight(plan["table"]), previous(self.tokens)
        last = len(table) - 1
        if plan["previous_of_row_1"] == "row_0":  # the reference has overwritten the first token with its row by then
            before[:, 1:2] = last
        rows = ((plan["mul_cur"] * self.tokens) ^ (plan["mul_prev"] * before)).to(torch.int32) % last
        rows[:, 0] = last
        x = F.embedding(rows, table)
        if "signs" in plan:
            signs = self.weight(plan["signs"])
            sign_rows = (previous(self.tokens) ^ self.tokens) % len(signs)
            sign_rows[:, 0] = 0
            x = x * F.embedding(sign_rows, signs)
        return F.pad(x, (0, self.plan["d_model"] - x.shape[-1]))

    def nets(self, layer: int) -> None:
        """Evaluates the small nets that stand at the entry of this layer (-1: behind the last)."""
        for name, net in self.plan.get("coef_nets", {}).items():
            if net["entry_of_layer"] == layer:
                hidden = F.gelu(F.linear(self.values[net.get("input", "x")], self.weight(net["w1"])))
                outputs = F.linear(hidden, self.weight(net["w2"]), self.weight(net["b2"]))
                self.outputs[name] = outputs * self.coefficient(net.get("scale", 1))

    # ---- a layer

    def layer(self, plan: dict) -> None:
        self.keep(plan, "cache_entry")
        if plan["i"] > 0:
            self.nets(plan["i"])
        self.advance(plan, "entry")
        self.advance(plan, "before_attn")
        if plan["attn"]:
            self.values["attn_out"] = self.attention(plan["attn"])
        self.advance(plan, "after_attn")
        self.keep(plan, "cache_after_attn")
        if plan["mlp"]:
            self.values["mlp_out"] = self.mlp(plan["mlp"])
        self.advance(plan, "after_mlp")
        self.keep(plan, "cache")

    def advance(self, plan: dict, place: str) -> None:
        """The mixes of both streams at this place of the layer, which read them as they were."""
        x, lane = self.mix(plan.get(place)), (plan["lane1"] or {}).get(place)
        if lane:
            self.values["lane1"] = self.mix(lane)
        self.values["x"] = x

    def keep(self, plan: dict, place: str) -> None:
        if place in plan:
            self.values[plan[place]] = self.values["x"]

    def mlp(self, plan: dict) -> Tensor:
        fc, proj = self.weight(plan["fc"]), self.weight(plan["proj"])
        fc = fc if plan["fc_layout"] == "in_out" else fc.mT
        proj = proj if plan["proj_layout"] == "in_out" else proj.mT
        hidden = F.linear(self.norm(self.values[plan.get("input", "x")], plan), fc.mT, self.optional(plan, "fc_bias"))
        return F.linear(F.relu(hidden).square(), proj.mT, self.optional(plan, "proj_bias"))

    # ---- attention, on [batch, tokens, heads, head_dim]

    def attention(self, plan: dict) -> Tensor:
        a = self.values["a"] = self.norm(self.values[plan.get("input", "x")], plan)
        q, k, v = (F.linear(a, self.projection(plan[name]), self.optional(plan, name + "_bias")) for name in "qkv")
        q, k = (self.rotate(self.norm(self.by_head(x)), plan["kind"]) for x in (q, k))
        for moved in plan.get("key_offset", []):  # these channels come from the token before
            channels = slice(*moved["channels"])
            k = k.clone()
            k[:, 1:, :, channels] = k[:, :-1, :, channels].clone()
        if "v_terms" in plan:
            self.values["v"] = v
            v = self.mix(plan["v_terms"])
        v = self.by_head(v)
        y = self.attend(q, k, v, plan)
        if plan["dc"]:
            y = y + self.composed(q, k, v, plan["dc"])
        if plan["xsa"] is not None:  # takes out what is parallel to the token's own value
            along = (y * v).sum(-1, keepdim=True) / v.square().sum(-1, keepdim=True).clamp(min=1e-8)
            y = y - torch.tanh(self.coefficient(plan["xsa"])).unsqueeze(-1) * along * v
        y = y.flatten(-2)
        if plan["out_gate"] is not None:
            y = times(self.coefficient(plan["out_gate"]), y)
        return F.linear(y, self.projection(plan["o"]), self.optional(plan, "o_bias"))

    def projection(self, text: str) -> Tensor:
        """[out, in]; its rows may be those of several entries."""
        return self.weight(text).reshape(self.plan["d_model"], self.plan["d_model"])

    def by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.plan["n_head"], self.plan["head_dim"]))

    def rotate(self, x: Tensor, kind: str) -> Tensor:
        """Rotary embedding: pairs of channels turn by an angle that grows with the position. Paired heads stand at twice as
        many positions, those of odd numbers behind the others."""
        position = torch.arange(x.shape[1], device=x.device)[:, None]
        if kind == "paired":
            position = 2 * position + torch.arange(x.shape[2], device=x.device) % 2
        angle = position.unsqueeze(-1) * torch.tensor(self.end["rotary_frequencies"], dtype=torch.float32, device=x.device)
        table_dtype = torch.bfloat16 if self.plan["rope"]["table_dtype"] == "bf16" else torch.float32
        cos, sin = (table.to(table_dtype).to(x.dtype) for table in (angle.cos(), angle.sin()))
        neighbours = self.plan["rope"]["layout"] == "pairs"
        a, b = (x[..., ::2], x[..., 1::2]) if neighbours else x.chunk(2, -1)
        turned = a * cos + b * sin, b * cos - a * sin
        return torch.stack(turned, -1).flatten(-2) if neighbours else torch.cat(turned, -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: dict) -> Tensor:
        """Softmax attention within the layer's window. Paired: a head of the first half and one of the second are one head
        of twice as many tokens, which the window counts."""
        def heads_first(x: Tensor) -> Tensor:
            x = x.unflatten(2, (2, -1)).flatten(1, 2) if plan["kind"] == "paired" else x
            return x.transpose(1, 2)

        queries, keys, contents = heads_first(q), heads_first(k), heads_first(v)
        mask = visible(queries.shape[2], self.end[plan["window"] + "_window"], q.device)
        y = F.scaled_dot_product_attention(queries, keys, contents, attn_mask=mask, scale=self.end["attention_scale"])
        return y.transpose(1, 2).reshape(q.shape)

    def composed(self, q: Tensor, k: Tensor, v: Tensor, plan: dict) -> Tensor:
        """What dynamic composition adds to each head's output: the attention maps of all heads are added up to one, with
        weights of each token, and that map is applied to each head's values."""
        w1, w2 = self.coefficient(plan["w1"]), self.coefficient(plan["w2"])
        u = w1 * torch.rsqrt(w1.square().mean(-1, keepdim=True) + 1e-6)
        scores = torch.einsum("bthd,bshd->bhts", q, k) * self.end["attention_scale"]
        seen = visible(q.shape[1], plan["window"] - 1, q.device)
        maps = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        one_map = torch.einsum("bth,bhts->bts", u, maps)
        return w2.unsqueeze(-1) * torch.einsum("bts,bshd->bthd", one_map, v)


class SpeedrunForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = SpeedrunConfig
    _supports_sdpa = True

    def __init__(self, config: SpeedrunConfig):
        super().__init__(config)
        self.banks = {name: Bank(name, declared) for name, declared in config.model["params"].items()}
        for bank in self.banks.values():
            for name in bank.names:
                register(self, name, nn.Parameter(torch.zeros(bank.stored_shape)))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None,
                logits_to_keep: int = 0, **_) -> CausalLMOutput:
        """Padding, where attention_mask is 0, may stand on both sides of a row's tokens. `logits_to_keep`: of so many columns
        at the end; 0: of all."""
        if attention_mask is None:
            x = ForwardPass(self, input_ids).run()
        else:
            x = self.run_padded(input_ids, attention_mask)
        logits = self.logits(x[:, -logits_to_keep:])
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def run_padded(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """A token sees only those before it, so that padding behind a row's tokens changes nothing: what stands before them
        is brought there, and the result back."""
        column = torch.arange(tokens.shape[1], device=tokens.device)
        first = mask.int().argmax(1, keepdim=True)
        to_front, back = (column + first) % len(column), (column - first) % len(column)
        if (mask.int().gather(1, to_front).diff() > 0).any():
            raise ValueError("attention_mask: the tokens of a row must follow each other, with padding around them only")
        x = ForwardPass(self, tokens.gather(1, to_front)).run()
        return x.gather(1, back.unsqueeze(-1).expand_as(x))

    def logits(self, x: Tensor) -> Tensor:
        output = self.config.model["output"]
        cap, head = output["softcap"], self.banks[output["head"]].of(self)
        bias = self.banks[output["head_bias"]].of(self) if "head_bias" in output else None
        z = F.linear(x, head, bias)
        if cap["form"] == "rsqrt":
            return cap["a"] * z * torch.rsqrt(z.square() + cap["a"] ** 2)
        return cap["a"] * torch.sigmoid((z + cap["b"]) / cap["c"])

    # ---- generate()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others) -> dict:
        """Of a longer text the last `context` tokens, as `speedrun generate` does."""
        context = self.config.trained_end["context"]
        mask = None if attention_mask is None else attention_mask[:, -context:]
        return {"input_ids": input_ids[:, -context:], "attention_mask": mask, "logits_to_keep": others.get("logits_to_keep", 0)}
