"""The spike-driven decoder in MLX: over whole rows, or onwards from a state.

    x = embedding[tokens]
    per layer:  x = x + W_o neuron(norm(mixer(neuron(norm(x)))))
                x = x + W_down neuron(activate(W_up neuron(norm(x))))
    logits = W_head mean_T neuron(norm(x))

The residual stream x `[T, B, L, D]` is continuous (the membrane shortcut). Modules are named as the
weights in `model.safetensors`. `Model` is what mlx-lm calls a model, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
from mlx import nn

from spikeloom.backends import check
from spikeloom.backends.mlx import attention
from spikeloom.backends.mlx.neurons import Neuron
from spikeloom.backends.mlx.state import LayerMemory
from spikeloom.config import LayerConfig, ModelConfig

Memory = LayerMemory | None
Rates = list[mx.array]


class Output(NamedTuple):
    """Logits `[B, L, V]`, and channel rates in order of computation, `[N]`."""

    logits: mx.array
    rates: mx.array


class Product(nn.Linear):
    """`W y` without a bias, computed in the type of its weights, or in `half` while training."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)
        self.half: mx.Dtype | None = None

    def __call__(self, y: mx.array) -> mx.array:
        return _product(y, self.weight, self.half)


class Embedding(nn.Embedding):
    """Vectors of tokens; as the tied head also a product."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__(tokens, width)
        self.half: mx.Dtype | None = None

    def as_linear(self, y: mx.array) -> mx.array:
        return _product(y, self.weight, self.half)


def _product(y: mx.array, weight: mx.array, half: mx.Dtype | None) -> mx.array:
    weight = weight if half is None else weight.astype(half)
    return y.astype(weight.dtype) @ weight.T


class RMSNorm(nn.RMSNorm):
    """A row of zeros gets no gradient, as in PyTorch (`spikeloom.model.norm`)."""

    def __call__(self, x: mx.array) -> mx.array:
        if self.training:
            x = mx.where(mx.any(x != 0, axis=-1, keepdims=True), x, 0)
        return super().__call__(x)


class Mixer(nn.Module):
    """What tokens read in those before them, from spikes `[T, B, L, D]`; same shape."""

    def __init__(self, c: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        D, H, kv = c.hidden_size, c.num_attention_heads, c.key_value_heads
        self.layer, self.kv, self.groups = layer, kv, H // kv
        self.rope_theta = layer.rope_theta or c.rope_theta
        self.q_proj = Product(D, D)
        self.k_proj = Product(D, kv * c.head_dim)
        self.v_proj = Product(D, kv * c.head_dim)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        if layer.mixer != "attention":
            if layer.decay != "none":
                self.raw_decay = mx.zeros(H)
            if layer.decay == "gated":
                self.decay_proj = Product(D, H)

    def __call__(self, y: mx.array, memory: Memory) -> mx.array:
        q, k, v = (
            attention.split_heads(self[f"{x}_proj"](y), self.kv, self.groups if x == "q" else 1)
            for x in "qkv"
        )
        if "q_norm" in self:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.layer.mixer == "attention":
            return attention.merge_heads(self.attend(q, k, v, memory))
        form = attention.sdsa if self.layer.mixer == "sdsa" else attention.sdsa_hadamard
        before = None if memory is None else memory.arrays.get("mixer")
        out, last = form(q, k, v, self.log_decay(y), before)
        if memory is not None:
            memory.arrays["mixer"] = last
        return attention.merge_heads(out)

    def attend(self, q: mx.array, k: mx.array, v: mx.array, memory: Memory) -> mx.array:
        """Softmax attention with rotary positions; `memory` keeps keys and values."""
        window = self.layer.sliding_window
        q, k = (self.rotate(x, 0 if memory is None else memory.offset) for x in (q, k))
        if memory is not None:
            for name, new in (("keys", k), ("values", v)):
                old = memory.arrays.get(name, new[..., :0, :])
                memory.arrays[name] = mx.concatenate([old, new], axis=-2)
            k, v = memory.arrays["keys"], memory.arrays["values"]
            if window is not None:
                memory.arrays |= {"keys": k[..., -window:, :], "values": v[..., -window:, :]}
        return attention.softmax_attention(q, k, v, window)

    def rotate(self, x: mx.array, offset: int) -> mx.array:
        """Rotary positions (Su et al. 2021), halves turning together."""
        flat = x.reshape(-1, 1, *x.shape[-2:])
        turned = mx.fast.rope(
            flat, x.shape[-1], traditional=False, base=self.rope_theta, scale=1.0, offset=offset
        )
        return turned.reshape(x.shape)

    def log_decay(self, y: mx.array) -> mx.array:
        """`g = -softplus(raw)` `[..., H_kv, G, L]`, raw per head and, gated, per token as well."""
        shape = (self.kv, self.groups, y.shape[-2])
        if self.layer.decay == "none":
            return mx.zeros(shape)
        raw = mx.broadcast_to(self.raw_decay.reshape(self.kv, self.groups, 1), shape)
        if self.layer.decay == "gated":
            gate = attention.split_heads(self.decay_proj(y), self.kv, self.groups)
            raw = raw + gate[..., 0].astype(mx.float32)
        return -mx.logaddexp(0.0, raw.astype(mx.float32))


class MixerBlock(nn.Module):
    """norm, neuron, mixer, norm, neuron, output product."""

    def __init__(self, c: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        D, eps = c.hidden_size, c.rms_norm_eps
        self.norm = RMSNorm(D, eps)
        self.input_neuron = Neuron(c.neurons.mixer_input, D)
        self.mixer = Mixer(c, layer)
        if c.output_norm:
            self.output_norm = RMSNorm(D, eps)
        self.output_neuron = Neuron(c.neurons.mixer_output, D)
        self.o_proj = Product(D, D)

    def __call__(self, x: mx.array, memory: Memory) -> tuple[mx.array, Rates]:
        y, rate_in = self.input_neuron(self.norm(x), memory, "input_neuron")
        mixed = self.mixer(y, memory)
        if "output_norm" in self:
            mixed = self.output_norm(mixed)
        z, rate_out = self.output_neuron(mixed, memory, "output_neuron")
        return self.o_proj(z), [rate_in, rate_out]


class MLP(nn.Module):
    """up (and gate), activation, neuron, down."""

    def __init__(self, c: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        D, F = c.hidden_size, c.intermediate_size
        self.kind = layer.mlp
        self.up_proj = Product(D, F)
        if layer.mlp == "swiglu":
            self.gate_proj = Product(D, F)
        self.hidden_neuron = Neuron(c.neurons.mlp_hidden, F)
        self.down_proj = Product(F, D)

    def __call__(self, y: mx.array, memory: Memory) -> tuple[mx.array, mx.array]:
        h = self.up_proj(y)
        if self.kind == "swiglu":
            gate = self.gate_proj(y)
            h = gate * mx.sigmoid(gate) * h  # nn.silu and nn.relu2 compile, on Linux with g++
        if self.kind == "relu2":
            h = mx.square(mx.maximum(h, 0))
        z, rate = self.hidden_neuron(h, memory, "hidden_neuron")
        return self.down_proj(z), rate


class MLPBlock(nn.Module):
    """norm, neuron, MLP."""

    def __init__(self, c: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.input_neuron = Neuron(c.neurons.mlp_input, c.hidden_size)
        self.mlp = MLP(c, layer)

    def __call__(self, x: mx.array, memory: Memory) -> tuple[mx.array, Rates]:
        y, rate_in = self.input_neuron(self.norm(x), memory, "mlp_neuron")
        out, rate_hidden = self.mlp(y, memory)
        return out, [rate_in, rate_hidden]


class Layer(nn.Module):
    """A mixer block and, unless it has none, an MLP block, each added to the residual stream."""

    def __init__(self, c: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        blocks: list[nn.Module] = [MixerBlock(c, layer)]
        self.blocks = blocks + ([] if layer.mlp == "none" else [MLPBlock(c, layer)])

    def __call__(self, x: mx.array, memory: Memory = None) -> tuple[mx.array, Rates]:
        rates: Rates = []
        for block in self.blocks:
            out, found = block(x, memory)
            x = x + out
            rates += found
        return x, rates


class Decoder(nn.Module):
    """Tokens `[B, L]` to what the head reads, `[B, L, D]`, and all channel rates."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.num_steps = c.num_steps
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.layers = [Layer(c, layer) for layer in c.layer_list]
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.head_neuron = Neuron(c.neurons.head, c.hidden_size)

    def __call__(self, tokens: mx.array, cache: Sequence[Memory]) -> tuple[mx.array, mx.array]:
        x = self.embed_tokens(tokens)
        x = mx.broadcast_to(x, (self.num_steps, *x.shape))
        rates: Rates = []
        for layer, memory in zip(self.layers, cache[:-1], strict=True):
            x, found = layer(x, memory)
            rates += found
        y, rate = self.head_neuron(self.norm(x), cache[-1], "head_neuron")
        return y.mean(0), mx.stack([*rates, rate])


class Trunk(nn.Module):
    """Holds the decoder under the name that it has in checkpoints, `model.decoder`."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.decoder = Decoder(c)


class Model(nn.Module):
    """The language model.

    Args:
        config: the architecture.

    Raises:
        ConfigError: it has a part that this backend lacks.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check("mlx", config)  # also for mlx-lm, which comes here without our commands
        self.config = config
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = Product(config.hidden_size, config.vocab_size)

    def forward(self, tokens: mx.array, cache: Sequence[LayerMemory] | None = None) -> Output:
        """Read tokens `[B, L]`: a document each, or, with a `cache`, what follows in them."""
        decoder = self.model.decoder
        y, rates = decoder(tokens, cache or [None] * (len(self.layers) + 1))
        for memory in cache or ():
            memory.offset += tokens.shape[-1]
        head = decoder.embed_tokens.as_linear if "lm_head" not in self else self.lm_head
        return Output(head(y), rates)

    def __call__(self, inputs: mx.array, cache: Sequence[LayerMemory] | None = None) -> mx.array:
        """Logits `[B, L, V]`."""
        return self.forward(inputs, cache).logits

    def make_cache(self) -> list[LayerMemory]:
        """Memories that have read nothing: one for each layer, and the head's."""
        return [LayerMemory() for _ in range(len(self.layers) + 1)]

    def compute_in(self, half: mx.Dtype | None) -> None:
        """Compute products in `half`, from weights that stay as they are; None: in their type."""
        for module in self.modules():
            if isinstance(module, Product | Embedding):
                module.half = half

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A tied head that was saved twice is dropped."""
        tied = self.config.tie_word_embeddings
        return {k: w for k, w in weights.items() if not (tied and k == "lm_head.weight")}

    @property
    def layers(self) -> list[Layer]:
        return self.model.decoder.layers  # type: ignore[no-any-return]
