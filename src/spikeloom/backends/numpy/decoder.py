"""The spike-driven decoder, forward and back.

    x = embedding[tokens]
    per layer:  x = x + W_o neuron(norm(mixer(neuron(norm(x)))))
                x = x + W_down neuron(activate(W_up neuron(norm(x))))
    logits = W_head mean_T neuron(norm(x))

The residual stream x `[T, B, L, D]` is continuous (the membrane shortcut): `+` sends a gradient
both ways unchanged. Every block returns its output, the firing rates of its two neurons and `pull`,
its way back; the decoder calls them in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spikeloom.backends.numpy import attention
from spikeloom.backends.numpy.layers import (
    add,
    cross_entropy,
    linear,
    rms_norm,
    silu_gate,
    squared_relu,
)
from spikeloom.backends.numpy.neurons import Array, Pull, Weights, neuron
from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig

ROOT = "model.decoder"
MIXERS = ("attention", "sdsa", "sdsa_hadamard")
MLPS = ("spiking", "relu2", "swiglu", "none")
BlockPull = Callable[[Array, list[float], Weights], Array]


@dataclass
class Output:
    """Logits `[B, L, V]`, channel rates in order of computation, and the way back.

    `pull(dlogits, drates)` returns the gradient of every weight, by name.
    """

    logits: Array
    rates: list[float]
    pull: Callable[[Array, list[float]], Weights]


def forward(w: Weights, config: ModelConfig, tokens: Array) -> Output:
    """Read rows of tokens `[B, L]`, one document each."""
    T = config.num_steps
    embedding = w[f"{ROOT}.embed_tokens.weight"]
    x = np.broadcast_to(embedding[tokens], (T, *tokens.shape, config.hidden_size))
    rates: list[float] = []
    pulls: list[BlockPull] = []
    for i, layer in enumerate(config.layer_list):
        name = f"{ROOT}.layers.{i}.blocks"
        out, block_rates, pull = mixer_block(x, w, f"{name}.0", config, layer)
        x, rates, pulls = x + out, rates + block_rates, [*pulls, pull]
        if layer.mlp != "none":
            out, block_rates, pull = mlp_block(x, w, f"{name}.1", config, layer)
            x, rates, pulls = x + out, rates + block_rates, [*pulls, pull]
    n, norm_pull = rms_norm(x, w, f"{ROOT}.norm", config.rms_norm_eps)
    y, rate, neuron_pull = neuron(n, w, f"{ROOT}.head_neuron", config.neurons.head)
    logits, head_pull = linear(y.mean(0), w, head_name(config))  # a rate code over the T steps

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


def mixer_block(
    x: Array, w: Weights, name: str, config: ModelConfig, layer: LayerConfig
) -> tuple[Array, list[float], BlockPull]:
    """norm, neuron, mixer, norm, neuron, output product."""
    neurons = config.neurons
    n, norm_pull = rms_norm(x, w, f"{name}.norm", config.rms_norm_eps)
    y, rate_in, in_pull = neuron(n, w, f"{name}.input_neuron", neurons.mixer_input)
    mixed, mixer_pull = mixer(y, w, f"{name}.mixer", config, layer)
    if config.output_norm:
        mixed, out_norm_pull = rms_norm(mixed, w, f"{name}.output_norm", config.rms_norm_eps)
    z, rate_out, out_pull = neuron(mixed, w, f"{name}.output_neuron", neurons.mixer_output)
    out, o_pull = linear(z, w, f"{name}.o_proj")

    def pull(dout: Array, drates: list[float], grads: Weights) -> Array:
        dmixed = out_pull(o_pull(dout, grads), drates[1], grads)
        if config.output_norm:
            dmixed = out_norm_pull(dmixed, grads)
        return norm_pull(in_pull(mixer_pull(dmixed, grads), drates[0], grads), grads)

    return out, [rate_in, rate_out], pull


def mlp_block(
    x: Array, w: Weights, name: str, config: ModelConfig, layer: LayerConfig
) -> tuple[Array, list[float], BlockPull]:
    """norm, neuron, up, activation, neuron, down."""
    neurons, swiglu = config.neurons, layer.mlp == "swiglu"
    n, norm_pull = rms_norm(x, w, f"{name}.norm", config.rms_norm_eps)
    y, rate_in, in_pull = neuron(n, w, f"{name}.input_neuron", neurons.mlp_input)
    up, up_pull = linear(y, w, f"{name}.mlp.up_proj")
    if swiglu:
        gate, gate_pull = linear(y, w, f"{name}.mlp.gate_proj")
        h, gate_back = silu_gate(gate, up)
    else:
        h, back = squared_relu(up) if layer.mlp == "relu2" else (up, lambda dh: dh)
    z, rate_hidden, hidden_pull = neuron(h, w, f"{name}.mlp.hidden_neuron", neurons.mlp_hidden)
    out, down_pull = linear(z, w, f"{name}.mlp.down_proj")

    def pull(dout: Array, drates: list[float], grads: Weights) -> Array:
        dh = hidden_pull(down_pull(dout, grads), drates[1], grads)
        if swiglu:
            dgate, dup = gate_back(dh)
            dy = up_pull(dup, grads) + gate_pull(dgate, grads)
        else:
            dy = up_pull(back(dh), grads)
        return norm_pull(in_pull(dy, drates[0], grads), grads)

    return out, [rate_in, rate_hidden], pull


def mixer(
    y: Array, w: Weights, name: str, config: ModelConfig, layer: LayerConfig
) -> tuple[Array, Pull]:
    """Spikes `[T, B, L, D]` to mixed values of the same shape."""
    heads, L = config.key_value_heads, y.shape[-2]
    groups = {"q": config.num_attention_heads // heads, "k": 1, "v": 1}
    positions, theta = np.arange(L), layer.rope_theta or config.rope_theta
    x, pulls, norm_pulls = {}, {}, {}
    for each in "qkv":
        product, pulls[each] = linear(y, w, f"{name}.{each}_proj")
        x[each] = attention.split_heads(product, heads, groups[each])
        if config.qk_norm and each != "v":
            norm = f"{name}.{each}_norm"
            x[each], norm_pulls[each] = rms_norm(x[each], w, norm, config.rms_norm_eps)
        if layer.mixer == "attention" and each != "v":
            x[each] = attention.rotate(x[each], positions, theta)
    if layer.mixer == "attention":
        out, back = attention.softmax_attention(x["q"], x["k"], x["v"], layer.sliding_window)
    else:
        g, decay_pull = log_decay(y, w, name, config, layer)
        form = attention.sdsa if layer.mixer == "sdsa" else attention.sdsa_hadamard
        out, back = form(x["q"], x["k"], x["v"], g)

    def pull(dout: Array, grads: Weights) -> Array:
        dx = back(attention.split_heads(dout, heads, groups["q"]))
        dy: Array = decay_pull(dx[3], grads) if len(dx) == 4 else np.zeros_like(y)
        for each, dhead in zip("qkv", dx, strict=False):
            if layer.mixer == "attention" and each != "v":
                dhead = attention.rotate(dhead, positions, theta, back=True)
            if each in norm_pulls:
                dhead = norm_pulls[each](dhead, grads)
            dy = dy + pulls[each](attention.merge_heads(dhead), grads)
        return dy

    return attention.merge_heads(out), pull


def log_decay(
    y: Array, w: Weights, name: str, config: ModelConfig, layer: LayerConfig
) -> tuple[Array, Pull]:
    """`g = -softplus(raw)` `[..., H_kv, G, L]`, raw per head and, gated, per token as well.

    Back: `draw = -sigmoid(raw) dg`.
    """
    shape = (config.key_value_heads, -1, 1)
    if layer.decay == "none":
        heads = np.zeros(config.num_attention_heads, y.dtype)
        return np.repeat(heads.reshape(shape), y.shape[-2], -1), lambda dg, grads: np.zeros_like(y)
    raw = np.repeat(w[f"{name}.raw_decay"].reshape(shape), y.shape[-2], -1)
    if gated(layer):
        product, product_pull = linear(y, w, f"{name}.decay_proj")
        raw = raw + attention.split_heads(product, *raw.shape[:2])[..., 0]

    def pull(dg: Array, grads: Weights) -> Array:
        draw = -dg / (1 + np.exp(-raw))
        grads[f"{name}.raw_decay"] = draw.sum(-1).reshape(-1, config.num_attention_heads).sum(0)
        if not gated(layer):
            return np.zeros_like(y)
        return product_pull(attention.merge_heads(draw[..., None]), grads)

    return -np.logaddexp(0, raw), pull


def gated(layer: LayerConfig) -> bool:
    """Whether the decay also depends on the token."""
    return layer.mixer != "attention" and layer.decay == "gated"


def head_name(config: ModelConfig) -> str:
    """The tied head is the embedding."""
    return f"{ROOT}.embed_tokens" if config.tie_word_embeddings else "lm_head"


def roles(config: ModelConfig) -> dict[str, tuple[NeuronConfig, list[str]]]:
    """Every neuron by name, in order of computation: its config, and the products it feeds."""
    found, n = {}, config.neurons
    for i, layer in enumerate(config.layer_list):
        mix, mlp = f"{ROOT}.layers.{i}.blocks.0", f"{ROOT}.layers.{i}.blocks.1"
        read = ["q_proj", "k_proj", "v_proj"] + ["decay_proj"] * gated(layer)
        found[f"{mix}.input_neuron"] = (n.mixer_input, [f"{mix}.mixer.{x}" for x in read])
        found[f"{mix}.output_neuron"] = (n.mixer_output, [f"{mix}.o_proj"])
        if layer.mlp != "none":
            ups = [f"{mlp}.mlp.up_proj"] + [f"{mlp}.mlp.gate_proj"] * (layer.mlp == "swiglu")
            found[f"{mlp}.input_neuron"] = (n.mlp_input, ups)
            found[f"{mlp}.mlp.hidden_neuron"] = (n.mlp_hidden, [f"{mlp}.mlp.down_proj"])
    found[f"{ROOT}.head_neuron"] = (n.head, [head_name(config)])
    return found


def loss_and_gradients(
    w: Weights,
    config: ModelConfig,
    tokens: Array,
    targets: Array,
    target_active_share: float | None = None,
    rate_weight: float = 2.0,
) -> tuple[float, float, Weights]:
    """Cross-entropy in nats, active share, and the gradient of every weight.

    What is descended is `cross-entropy + rate_weight * max(0, active share - target)`.
    """
    out = forward(w, config, tokens)
    loss, dlogits = cross_entropy(out.logits, targets)
    shares = fed_shares(w, config)
    share = float(np.dot(out.rates, shares))
    pressed = target_active_share is not None and share >= target_active_share
    drates = rate_weight * shares if pressed else np.zeros_like(shares)
    return loss, share, out.pull(dlogits, list(drates))


def fed_shares(w: Weights, config: ModelConfig) -> Array:
    """The share of all weights in products that each neuron feeds, `[N]`."""
    fed = [sum(w[f"{p}.weight"].size for p in products) for _, products in roles(config).values()]
    return np.array(fed) / sum(fed)
