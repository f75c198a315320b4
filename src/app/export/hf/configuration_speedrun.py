"""What modeling_speedrun.py builds a model from."""
from transformers import PretrainedConfig


class SpeedrunConfig(PretrainedConfig):
    """`model`: the section "model" of the run's resolved config: sizes, parameters, and how tokens become logits.
    `trained_end`: what the run's schedule had come to when it ended:
        short_window, long_window   tokens before its own that a query sees
        rotary_frequencies          [head_dim / 2], radians a position
        attention_scale             of the scores q.k
        tied                        whether tokens are looked up in model.input.tied_to
        context                     tokens that `speedrun generate` looks back on, at most
    """

    model_type = "speedrun"

    def __init__(self, model: dict | None = None, trained_end: dict | None = None, **others):
        self.model, self.trained_end = model or {}, trained_end or {}
        super().__init__(**others)

    # Names under which other programs look for sizes.
    vocab_size = property(lambda self: self.model.get("vocab_size"))
    hidden_size = property(lambda self: self.model.get("d_model"))
    num_attention_heads = property(lambda self: self.model.get("n_head"))
    num_hidden_layers = property(lambda self: self.model.get("n_layer"))
    max_position_embeddings = property(lambda self: self.trained_end.get("context"))
