"""One training step of the seed's geometry: all tokens at once, and a plain loop over tokens.

12 layers, 256 wide, 8 heads, T = 4, context 64, one row. `TokenLoop` is the same mathematics as
`spikeloom.backends.numpy`, one token, one step and one layer at a time, with NumPy vectors over the
width; attention is its recurrence, forward and back. Before anything is timed, the loss and every
gradient of the two must agree. Both use the BLAS threads that the environment grants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import next_tokens
from spikeloom.backends.weights import ROOT, Array, Weights, initial_weights
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import time_cpu
from spikeloom.config import ModelConfig, load_config
from spikeloom.errors import ConfigError

CONTEXT, ROUNDS, TARGET = 64, 3, 20.0
Vectors = list[Array]  # one per step


def run(device: str) -> list[Row]:
    """Vectorised against looped.

    Raises:
        ConfigError: the device is not the CPU.
    """
    if device != "cpu":
        raise ConfigError("NumPy runs on the CPU: use --device cpu")
    config = load_config("spike-transformer").model
    decoder = Decoder(config, initial_weights(config))
    loop = TokenLoop(config, decoder.w)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, CONTEXT)
    check(decoder, loop, tokens)
    rows = tokens[None]
    times = time_cpu(
        {
            "ours": lambda: loss_and_gradients(decoder, rows, next_tokens(rows)),
            "loop": lambda: loop.loss_and_gradients(tokens),
        },
        rounds=ROUNDS,
    )
    return [
        Row(
            f"spike-transformer, loss and gradients of {CONTEXT} tokens x {config.num_steps} steps",
            device_name("cpu"),
            times["ours"].ms,
            times["loop"].ms,
            "the same in NumPy, token by token",
            "ms",
            TARGET,
            times["ours"].spread,
        )
    ]


def check(decoder: Decoder, loop: TokenLoop, tokens: Array) -> None:
    """Loss and gradients agree, in float64 (in float32 a rounding error may flip a spike).

    Raises:
        AssertionError: they do not, so that their times say nothing.
    """
    exact = {name: weight.astype(np.float64) for name, weight in decoder.w.items()}
    rows = tokens[None]
    ours, _, expected = loss_and_gradients(Decoder(decoder.config, exact), rows, next_tokens(rows))
    theirs, grads = TokenLoop(loop.config, exact).loss_and_gradients(tokens)
    assert math.isclose(ours, theirs, rel_tol=1e-9), f"loss {ours}, token by token {theirs}"
    for name, gradient in expected.items():
        error = np.linalg.norm(grads[name] - gradient) / np.linalg.norm(gradient)
        assert error < 1e-6, f"{name}: relative error {error:.1e}"


@dataclass
class Fed:
    """What one token left in a norm and the neuron behind it, per step."""

    normed: list[tuple[Array, Array]]
    v: Vectors
    s: Vectors
    free: Vectors


@dataclass
class Mixed:
    """What one token left in a mixer block, per step."""

    fed: Fed
    heads: list[tuple[Any, ...]]
    sent: Fed


class TokenLoop:
    """The spike-transformer preset for one row, without any vectorisation over tokens."""

    def __init__(self, config: ModelConfig, w: Weights) -> None:
        self.config, self.w = config, w
        self.steps, self.heads = range(config.num_steps), config.num_attention_heads
        self.scale = config.head_dim**-0.5

    def loss_and_gradients(self, tokens: Array) -> tuple[float, Weights]:
        """Mean cross-entropy of the next tokens `[L]`, and the gradient of every weight."""
        self.g = {name: np.zeros_like(w) for name, w in self.w.items()}
        embedding, L = self.w[f"{ROOT}.embed_tokens.weight"], len(tokens)
        xs = [[embedding[token] for _ in self.steps] for token in tokens]
        layers = range(self.config.num_hidden_layers)
        past: list[tuple[list[Mixed], list[tuple[Fed, Fed]]]] = []
        for i in layers:
            name, memory = f"{ROOT}.layers.{i}.blocks", self.empty()
            past.append(([self.mix(x, f"{name}.0", memory) for x in xs], []))
            for x in xs:
                past[-1][1].append(self.think(x, f"{name}.1"))
        loss, dxs = 0.0, []
        for j in range(L):
            following = int(tokens[j + 1]) if j + 1 < L else None
            part, dx = self.predict(xs[j], following, L - 1)
            loss += part
            dxs.append(dx)
        for i in reversed(layers):
            name, dmemory = f"{ROOT}.layers.{i}.blocks", self.empty()
            for j in reversed(range(L)):
                self.think_back(dxs[j], f"{name}.1", past[i][1][j])
                before = past[i][0][j - 1].heads if j else None
                self.mix_back(dxs[j], f"{name}.0", past[i][0][j], before, dmemory)
        for token, dx in zip(tokens, dxs, strict=True):
            self.g[f"{ROOT}.embed_tokens.weight"][token] += sum(dx)
        return loss, self.g

    def empty(self) -> Vectors:
        K, dtype = self.config.head_dim, self.w[f"{ROOT}.norm.weight"].dtype
        return [np.zeros((self.heads, K, K), dtype) for _ in self.steps]

    def mix(self, x: Vectors, name: str, memory: Vectors) -> Mixed:
        """One token through a mixer block; the residual stream and the memory move on."""
        ys, fed = self.feed(x, f"{name}.norm", f"{name}.input_neuron", "mixer_input")
        decay = np.exp(-np.logaddexp(0, self.w[f"{name}.mixer.raw_decay"]))[:, None, None]
        outs, heads = [], []
        for t in self.steps:
            q, k, v = (self.read(ys[t], f"{name}.mixer.{p}_proj") for p in "qkv")
            q, k, v = (z.reshape(self.heads, -1) for z in (q, k, v))
            q, past_q = self.norm(q, f"{name}.mixer.q_norm")
            k, past_k = self.norm(k, f"{name}.mixer.k_norm")
            memory[t] = decay * memory[t] + k[:, :, None] * v[:, None, :]
            outs.append((q[:, None, :] @ memory[t]).reshape(-1) * self.scale)
            heads.append((q, k, v, past_q, past_k, memory[t]))
        zs, sent = self.feed(outs, f"{name}.output_norm", f"{name}.output_neuron", "mixer_output")
        for t in self.steps:
            x[t] = x[t] + self.read(zs[t], f"{name}.o_proj")
        return Mixed(fed, heads, sent)

    def mix_back(self, dx: Vectors, name: str, past: Mixed, before: Any, dmemory: Vectors) -> None:
        dzs = [self.read_back(dx[t], past.sent.s[t], f"{name}.o_proj") for t in self.steps]
        douts = self.feed_back(dzs, past.sent, f"{name}.output_norm", f"{name}.output_neuron")
        raw = self.w[f"{name}.mixer.raw_decay"]
        decay, slope = np.exp(-np.logaddexp(0, raw)), -1 / (1 + np.exp(-raw))
        dys: Vectors = []
        for t in self.steps:
            q, k, v, past_q, past_k, memory = past.heads[t]
            do = douts[t].reshape(self.heads, -1) * self.scale
            dm = dmemory[t] + q[:, :, None] * do[:, None, :]
            dq, dk = (memory @ do[:, :, None])[..., 0], (dm @ v[:, :, None])[..., 0]
            dv = (k[:, None, :] @ dm)[:, 0]
            if before is not None:
                kept = (dm * before[t][-1]).sum((1, 2))
                self.g[f"{name}.mixer.raw_decay"] += kept * decay * slope
            dmemory[t] = decay[:, None, None] * dm
            dq = self.norm_back(dq, past_q, f"{name}.mixer.q_norm")
            dk = self.norm_back(dk, past_k, f"{name}.mixer.k_norm")
            y, parts = past.fed.s[t], {"q": dq, "k": dk, "v": dv}
            back = [
                self.read_back(d.reshape(-1), y, f"{name}.mixer.{p}_proj") for p, d in parts.items()
            ]
            dys.append(back[0] + back[1] + back[2])
        self.add_back(dx, dys, past.fed, f"{name}.norm", f"{name}.input_neuron")

    def think(self, x: Vectors, name: str) -> tuple[Fed, Fed]:
        """One token through an MLP block."""
        ys, fed = self.feed(x, f"{name}.norm", f"{name}.input_neuron", "mlp_input")
        ups = [self.read(y, f"{name}.mlp.up_proj") for y in ys]
        zs, sent = self.feed(ups, None, f"{name}.mlp.hidden_neuron", "mlp_hidden")
        for t in self.steps:
            x[t] = x[t] + self.read(zs[t], f"{name}.mlp.down_proj")
        return fed, sent

    def think_back(self, dx: Vectors, name: str, past: tuple[Fed, Fed]) -> None:
        fed, sent = past
        dzs = [self.read_back(dx[t], sent.s[t], f"{name}.mlp.down_proj") for t in self.steps]
        dups = self.feed_back(dzs, sent, None, f"{name}.mlp.hidden_neuron")
        dys = [self.read_back(dups[t], fed.s[t], f"{name}.mlp.up_proj") for t in self.steps]
        self.add_back(dx, dys, fed, f"{name}.norm", f"{name}.input_neuron")

    def predict(self, x: Vectors, target: int | None, count: int) -> tuple[float, Vectors]:
        """A token's share of the loss, and the gradient of its residual stream."""
        ys, fed = self.feed(x, f"{ROOT}.norm", f"{ROOT}.head_neuron", "head")
        if target is None:
            return 0.0, [np.zeros_like(step) for step in x]
        y, name = np.mean(ys, axis=0), f"{ROOT}.embed_tokens"
        logits = self.read(y, name)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        loss = -math.log(p[target]) / count
        p[target] -= 1
        dy = self.read_back(p / count, y, name) / len(ys)
        return loss, self.feed_back([dy] * len(ys), fed, f"{ROOT}.norm", f"{ROOT}.head_neuron")

    def feed(self, x: Vectors, norm: str | None, name: str, role: str) -> tuple[Vectors, Fed]:
        """norm, LIF over the steps of one token."""
        c, fed = getattr(self.config.neurons, role), Fed([], [], [], [])
        a = np.zeros_like(x[0])
        for step in x:
            if norm is not None:
                step, normed = self.norm(step, norm)
                fed.normed.append(normed)
            v = c.beta * a + step + self.w[f"{name}.bias"]
            fed.free.append(np.abs(v) <= c.clip_membrane)
            v = np.clip(v, -c.clip_membrane, c.clip_membrane)
            s = (v >= c.v_threshold).astype(v.dtype)
            a = np.where(s > 0, c.v_reset, v)
            fed.v.append(v - c.v_threshold)
            fed.s.append(s)
        return fed.s, fed

    def feed_back(self, dy: Vectors, fed: Fed, norm: str | None, name: str) -> Vectors:
        beta = self.config.neurons.head.beta  # the preset has one leak
        dx, da = [dy[0]] * len(dy), np.zeros_like(dy[0])
        for t in reversed(self.steps):
            slope = 1 - np.tanh(2 * fed.v[t]) ** 2
            dv = (dy[t] * slope + da * (fed.s[t] == 0)) * fed.free[t]
            self.g[f"{name}.bias"] += dv
            dx[t] = dv if norm is None else self.norm_back(dv, fed.normed[t], norm)
            da = beta * dv
        return dx

    def add_back(self, dx: Vectors, dys: Vectors, fed: Fed, norm: str, name: str) -> None:
        for t, d in enumerate(self.feed_back(dys, fed, norm, name)):
            dx[t] = dx[t] + d

    def norm(self, x: Array, name: str) -> tuple[Array, tuple[Array, Array]]:
        r = 1 / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.config.rms_norm_eps)
        return self.w[f"{name}.weight"] * (r * x), (r * x, r)

    def norm_back(self, dy: Array, past: tuple[Array, Array], name: str) -> Array:
        n, r = past
        self.g[f"{name}.weight"] += (dy * n).reshape(-1, n.shape[-1]).sum(0)
        dn = dy * self.w[f"{name}.weight"]
        return r * (dn - n * np.mean(dn * n, -1, keepdims=True))

    def read(self, y: Array, name: str) -> Array:
        return self.w[f"{name}.weight"] @ y

    def read_back(self, dz: Array, y: Array, name: str) -> Array:
        self.g[f"{name}.weight"] += np.outer(dz, y)
        return dz @ self.w[f"{name}.weight"]
