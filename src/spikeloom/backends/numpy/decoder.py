"""The spike-driven decoder, forward and back.

    x = embedding[tokens]
    per layer:  x = x + W_o neuron(norm(mixer(neuron(norm(x)))))
                x = x + W_down neuron(activate(W_up neuron(norm(x))))
    logits = W_head mean_T neuron(norm(x))

The residual stream x `[T, B, L, D]` is continuous (the membrane shortcut): `+` sends a gradient
both ways unchanged. Every part returns its result and `pull`, its way back; the way back of the
whole calls those of the parts in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spikeloom.backends import check
from spikeloom.backends.numpy import attention
from spikeloom.backends.numpy.layers import (
    Pull,
    add,
    cross_entropy,
    linear,
    rms_norm,
    silu_gate,
    squared_relu,
)
from spikeloom.backends.numpy.neurons import neuron
from spikeloom.backends.weights import ROOT, Array, Weights, fed_shares, head_name, touched
from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig

Block = tuple[Array, list[float], Callable[[Array, list[float], Weights], Array]]


@dataclass
class Output:
    """Logits `[B, L, V]`, channel rates in order of computation, and the way back.

    `pull(dlogits, drates)` returns the gradient of every weight, by name.
    """

    logits: Array
    rates: list[float]
    pull: Callable[[Array, list[float]], Weights]


class Decoder:
    """All tokens of a row at once; `recurrent.py` is the same one token at a time.

    Args:
        config: the architecture.
        weights: by the names they have in `model.safetensors` (`backends/weights.py`).

    Raises:
        ConfigError: the architecture has a part that is not written out here.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        check("numpy", config)
        self.config, self.w = config, weights

    def forward(self, tokens: Array) -> Output:
        """Read rows of tokens `[B, L]`, one document each."""
        T, embedding = self.config.num_steps, self.w[f"{ROOT}.embed_tokens.weight"]
        x = np.broadcast_to(embedding[tokens], (T, *tokens.shape, embedding.shape[-1]))
        rates: list[float] = []
        pulls = []
        for i, layer in enumerate(self.config.layer_list):
            blocks = (self.mixer_block, self.mlp_block)[: 1 if layer.mlp == "none" else 2]
            for number, block in enumerate(blocks):
                out, block_rates, pull = block(x, f"{ROOT}.layers.{i}.blocks.{number}", layer)
                x = x + out
                rates += block_rates
                pulls.append(pull)
        n, norm_pull = self.norm(x, f"{ROOT}.norm")
        y, rate, neuron_pull = self.fire(n, f"{ROOT}.head_neuron", self.config.neurons.head)
        logits, head_pull = self.product(y.mean(0), head_name(self.config))  # the mean is a rate

        def pull_all(dlogits: Array, drates: list[float]) -> Weights:
            grads: Weights = {}
            dy = np.broadcast_to(head_pull(dlogits, grads) / T, y.shape)
            dx = norm_pull(neuron_pull(dy, drates[-1], grads), grads)
            for i, pull in reversed(list(enumerate(pulls))):
                dx = dx + pull(dx, drates[2 * i : 2 * i + 2], grads)
            dembedding = np.zeros_like(embedding)
            np.add.at(dembedding, tokens, dx.sum(0))
            add(grads, f"{ROOT}.embed_tokens.weight", dembedding)
            return grads

        return Output(logits, [*rates, rate], pull_all)

    def mixer_block(self, x: Array, name: str, layer: LayerConfig) -> Block:
        """norm, neuron, mixer, norm, neuron, output product."""
        neurons, normed = self.config.neurons, self.config.output_norm
        n, norm_pull = self.norm(x, f"{name}.norm")
        y, rate_in, in_pull = self.fire(n, f"{name}.input_neuron", neurons.mixer_input)
        mixed, mixer_pull = self.mixer(y, f"{name}.mixer", layer)
        if normed:
            mixed, out_norm_pull = self.norm(mixed, f"{name}.output_norm")
        z, rate_out, out_pull = self.fire(mixed, f"{name}.output_neuron", neurons.mixer_output)
        out, o_pull = self.product(z, f"{name}.o_proj")

        def pull(dout: Array, drates: list[float], grads: Weights) -> Array:
            dmixed = out_pull(o_pull(dout, grads), drates[1], grads)
            if normed:
                dmixed = out_norm_pull(dmixed, grads)
            return norm_pull(in_pull(mixer_pull(dmixed, grads), drates[0], grads), grads)

        return out, [rate_in, rate_out], pull

    def mlp_block(self, x: Array, name: str, layer: LayerConfig) -> Block:
        """norm, neuron, up (and gate), activation, neuron, down."""
        neurons = self.config.neurons
        n, norm_pull = self.norm(x, f"{name}.norm")
        y, rate_in, in_pull = self.fire(n, f"{name}.input_neuron", neurons.mlp_input)
        h, up_pull = self.hidden(y, f"{name}.mlp", layer)
        z, rate_out, hidden_pull = self.fire(h, f"{name}.mlp.hidden_neuron", neurons.mlp_hidden)
        out, down_pull = self.product(z, f"{name}.mlp.down_proj")

        def pull(dout: Array, drates: list[float], grads: Weights) -> Array:
            dh = hidden_pull(down_pull(dout, grads), drates[1], grads)
            return norm_pull(in_pull(up_pull(dh, grads), drates[0], grads), grads)

        return out, [rate_in, rate_out], pull

    def hidden(self, y: Array, name: str, layer: LayerConfig) -> tuple[Array, Pull]:
        """What the hidden neuron gets: `up`, `relu(up)^2`, or `silu(gate) * up`."""
        up, up_pull = self.product(y, f"{name}.up_proj")
        if layer.mlp == "swiglu":
            gate, gate_pull = self.product(y, f"{name}.gate_proj")
            h, gate_back = silu_gate(gate, up)

            def pull(dh: Array, grads: Weights) -> Array:
                dgate, dup = gate_back(dh)
                return up_pull(dup, grads) + gate_pull(dgate, grads)

            return h, pull
        if layer.mlp == "spiking":
            return up, up_pull
        h, back = squared_relu(up)
        return h, lambda dh, grads: up_pull(back(dh), grads)

    def mixer(self, y: Array, name: str, layer: LayerConfig) -> tuple[Array, Pull]:
        """What tokens read in those before them, from spikes `[T, B, L, D]`; same shape."""
        c, rotary = self.config, layer.mixer == "attention"
        groups = {"q": c.num_attention_heads // c.key_value_heads, "k": 1, "v": 1}
        positions, theta = self.positions(y.shape[-2]), layer.rope_theta or c.rope_theta
        x, pulls, norm_pulls = {}, {}, {}
        for each in "qkv":
            product, pulls[each] = self.product(y, f"{name}.{each}_proj")
            x[each] = attention.split_heads(product, c.key_value_heads, groups[each])
            if c.qk_norm and each != "v":
                x[each], norm_pulls[each] = self.norm(x[each], f"{name}.{each}_norm")
            if rotary and each != "v":
                x[each] = attention.rotate(x[each], positions, theta)
        g, decay_pull = (None, None) if rotary else self.log_decay(y, name, layer)
        out, back = self.mix(name, layer, x["q"], x["k"], x["v"], g)

        def pull(dout: Array, grads: Weights) -> Array:
            dx = back(attention.split_heads(dout, c.key_value_heads, groups["q"]))
            dy: Array = np.zeros_like(y) if decay_pull is None else decay_pull(dx[3], grads)
            for each, dhead in zip("qkv", dx, strict=False):
                if rotary and each != "v":
                    dhead = attention.rotate(dhead, positions, theta, back=True)
                if each in norm_pulls:
                    dhead = norm_pulls[each](dhead, grads)
                dy = dy + pulls[each](attention.merge_heads(dhead), grads)
            return dy

        return attention.merge_heads(out), pull

    def log_decay(self, y: Array, name: str, layer: LayerConfig) -> tuple[Array, Pull]:
        """`g = -softplus(raw)` `[..., H_kv, G, L]`, raw per head and, gated, per token as well.

        Back: `draw = -sigmoid(raw) dg`.
        """
        H, heads = self.config.num_attention_heads, self.config.key_value_heads
        raw = np.zeros(H, y.dtype) if layer.decay == "none" else self.w[f"{name}.raw_decay"]
        raw = np.repeat(raw.reshape(heads, -1, 1), y.shape[-2], axis=-1)
        if layer.decay == "none":
            return raw, lambda dg, grads: np.zeros_like(y)
        if layer.decay == "gated":
            product, product_pull = self.product(y, f"{name}.decay_proj")
            raw = raw + attention.split_heads(product, heads, H // heads)[..., 0]

        def pull(dg: Array, grads: Weights) -> Array:
            draw = -dg / (1 + np.exp(-raw))
            grads[f"{name}.raw_decay"] = draw.sum(-1).reshape(-1, H).sum(0)
            if layer.decay != "gated":
                return np.zeros_like(y)
            return product_pull(attention.merge_heads(draw[..., None]), grads)

        return -np.logaddexp(0, raw), pull

    # What the recurrent form does in its own way.

    def norm(self, x: Array, name: str) -> tuple[Array, Pull]:
        return rms_norm(x, self.w, name, self.config.rms_norm_eps)

    def product(self, y: Array, name: str) -> tuple[Array, Pull]:
        return linear(y, self.w, f"{name}.weight")

    def fire(self, x: Array, name: str, c: NeuronConfig) -> tuple[Array, float, Pull]:
        return neuron(x, self.w, name, c)

    def positions(self, length: int) -> Array:
        return np.arange(length)

    def mix(
        self, name: str, layer: LayerConfig, q: Array, k: Array, v: Array, g: Array | None
    ) -> tuple[Array, attention.Back]:
        if g is None:
            return attention.softmax_attention(q, k, v, layer.sliding_window)
        form = attention.sdsa if layer.mixer == "sdsa" else attention.sdsa_hadamard
        return form(q, k, v, g)


def loss_and_gradients(
    decoder: Decoder,
    tokens: Array,
    targets: Array,
    target_active_share: float | None = None,
    rate_weight: float = 2.0,
) -> tuple[float, float, Weights]:
    """Cross-entropy in nats, active share, and the gradient of every weight.

    What is descended is `cross-entropy + rate_weight * max(0, active share - target)`; the active
    share is the mean firing rate, weighted by how many weights each neuron feeds; gains count at 1.
    """
    out = decoder.forward(tokens)
    loss, dlogits = cross_entropy(out.logits, targets)
    shares = fed_shares(decoder.config)
    share = touched(out.rates, shares)
    pressed = target_active_share is not None and share >= target_active_share
    return loss, share, out.pull(dlogits, list(rate_weight * shares[:-1] * pressed))
