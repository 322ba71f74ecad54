"""One training step of the seed's geometry: all tokens at once, and a plain loop over tokens.

12 layers, 256 wide, 8 heads, T = 4, context 64, one row. `TokenLoop` is the same mathematics as
`spikeloom.backends.numpy`, one token, one step and one layer at a time, with NumPy vectors over the
width; attention is its recurrence, forward and back. Before anything is timed, the loss and every
gradient of the two must agree. Both use the BLAS threads that the environment grants, and both run
as training does, with freed memory kept in the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from spikeloom.backends.numpy.decoder import Decoder, loss_and_gradients
from spikeloom.backends.numpy.layers import next_tokens
from spikeloom.backends.weights import ROOT, Array, Weights, initial_weights
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import time_cpu
from spikeloom.config import ModelConfig, load_config
from spikeloom.errors import ConfigError
from spikeloom.training.memory import keep_freed_memory

CONTEXT, ROUNDS, TARGET = 64, 3, 20.0


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Vectorised against looped.

    Raises:
        ConfigError: the device is not the CPU.
    """
    options.select(())
    if device != "cpu":
        raise ConfigError("NumPy runs on the CPU: use --device cpu")
    config = load_config("spike-transformer").model
    decoder = Decoder(config, initial_weights(config))
    loop = TokenLoop(config, decoder.w)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, CONTEXT)
    check(decoder, loop, tokens)
    keep_freed_memory()
    rows = tokens[None]
    times = time_cpu(
        {
            "ours": lambda: loss_and_gradients(decoder, rows, next_tokens(rows)),
            "loop": lambda: loop.loss_and_gradients(tokens),
        },
        rounds=ROUNDS,
    )
    yield Row(
        f"spike-transformer, loss and gradients of {CONTEXT} tokens x {config.num_steps} steps",
        device_name("cpu"),
        times["ours"].ms,
        times["loop"].ms,
        "the same in NumPy, token by token",
        "ms",
        TARGET,
        times["ours"].spread,
    )


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


class TokenLoop:
    """The spike-transformer preset for one row: for each token, for each step, for each layer.

    As a simulation runs: membranes `a` and attention states `m` move on from step to step and from
    token to token. What the way back needs is put on a tape, and taken from it in reverse order.
    """

    def __init__(self, config: ModelConfig, w: Weights) -> None:
        self.config, self.w = config, w
        self.layers = [f"{ROOT}.layers.{i}.blocks" for i in range(config.num_hidden_layers)]
        self.heads, self.scale = config.num_attention_heads, config.head_dim**-0.5

    def loss_and_gradients(self, tokens: Array) -> tuple[float, Weights]:
        """Mean cross-entropy of the next tokens `[L]`, and the gradient of every weight."""
        self.g = {name: np.zeros_like(w) for name, w in self.w.items()}
        self.m: dict[tuple[str, int], Any] = {}
        self.tape: list[tuple[Any, ...]] = []
        T, embedding = self.config.num_steps, f"{ROOT}.embed_tokens"
        losses = []
        for token, following in zip(tokens, [*tokens[1:], None], strict=True):
            self.a: dict[str, Any] = {}
            x = self.w[f"{embedding}.weight"][token]
            y: Array = np.mean([self.step(x, t) for t in range(T)], axis=0)
            logits = self.read(y, embedding)
            p = np.exp(logits - logits.max())
            p /= p.sum()
            if following is None:
                p[:] = 0
            else:
                losses.append(-math.log(p[following]))
                p[following] -= 1
            self.tape.append((p / (len(tokens) - 1), y))
        for token in tokens[::-1]:
            self.a = {}
            dlogits, y = self.tape.pop()
            dy = self.read_back(dlogits, y, embedding) / T
            for t in reversed(range(T)):
                self.g[f"{embedding}.weight"][token] += self.step_back(dy, t)
        return sum(losses) / len(losses), self.g

    def step(self, x: Array, t: int) -> Array:
        """What the head neuron sends in step t of a token."""
        for name in self.layers:
            x = x + self.mix(x, f"{name}.0", t)
            x = x + self.think(x, f"{name}.1")
        return self.fire(self.norm(x, f"{ROOT}.norm"), f"{ROOT}.head_neuron")

    def step_back(self, dy: Array, t: int) -> Array:
        dx = self.norm_back(self.fire_back(dy, f"{ROOT}.head_neuron"), f"{ROOT}.norm")
        for name in reversed(self.layers):
            dx = dx + self.think_back(dx, f"{name}.1")
            dx = dx + self.mix_back(dx, f"{name}.0", t)
        return dx

    def mix(self, x: Array, name: str, t: int) -> Array:
        y = self.fire(self.norm(x, f"{name}.norm"), f"{name}.input_neuron")
        q, k, v = (self.read(y, f"{name}.mixer.{p}_proj").reshape(self.heads, -1) for p in "qkv")
        q, k = self.norm(q, f"{name}.mixer.q_norm"), self.norm(k, f"{name}.mixer.k_norm")
        before = self.m.get((name, t), np.zeros((1, 1, 1), x.dtype))
        decay = np.exp(-np.logaddexp(0, self.w[f"{name}.mixer.raw_decay"]))[:, None, None]
        m = self.m[name, t] = decay * before + k[:, :, None] * v[:, None, :]
        out = (q[:, None, :] @ m).reshape(-1) * self.scale
        z = self.fire(self.norm(out, f"{name}.output_norm"), f"{name}.output_neuron")
        self.tape.append((y, q, k, v, before, m, z))
        return self.read(z, f"{name}.o_proj")

    def mix_back(self, dx: Array, name: str, t: int) -> Array:
        y, q, k, v, before, m, z = self.tape.pop()
        dz = self.fire_back(self.read_back(dx, z, f"{name}.o_proj"), f"{name}.output_neuron")
        do = self.norm_back(dz, f"{name}.output_norm").reshape(self.heads, -1) * self.scale
        dm = self.m.get((f"d{name}", t), 0.0) + q[:, :, None] * do[:, None, :]
        dq, dk = (m @ do[:, :, None])[..., 0], (dm @ v[:, :, None])[..., 0]
        dv = (k[:, None, :] @ dm)[:, 0]
        raw = self.w[f"{name}.mixer.raw_decay"]
        decay, slope = np.exp(-np.logaddexp(0, raw)), -1 / (1 + np.exp(-raw))
        self.g[f"{name}.mixer.raw_decay"] += (dm * before).sum((1, 2)) * decay * slope
        self.m[f"d{name}", t] = decay[:, None, None] * dm
        dk = self.norm_back(dk, f"{name}.mixer.k_norm")
        dq = self.norm_back(dq, f"{name}.mixer.q_norm")
        dy = self.read_back(dq.reshape(-1), y, f"{name}.mixer.q_proj")
        dy = dy + self.read_back(dk.reshape(-1), y, f"{name}.mixer.k_proj")
        dy = dy + self.read_back(dv.reshape(-1), y, f"{name}.mixer.v_proj")
        return self.norm_back(self.fire_back(dy, f"{name}.input_neuron"), f"{name}.norm")

    def think(self, x: Array, name: str) -> Array:
        y = self.fire(self.norm(x, f"{name}.norm"), f"{name}.input_neuron")
        z = self.fire(self.read(y, f"{name}.mlp.up_proj"), f"{name}.mlp.hidden_neuron")
        self.tape.append((y, z))
        return self.read(z, f"{name}.mlp.down_proj")

    def think_back(self, dx: Array, name: str) -> Array:
        y, z = self.tape.pop()
        dz = self.read_back(dx, z, f"{name}.mlp.down_proj")
        dup = self.fire_back(dz, f"{name}.mlp.hidden_neuron")
        dy = self.read_back(dup, y, f"{name}.mlp.up_proj")
        return self.norm_back(self.fire_back(dy, f"{name}.input_neuron"), f"{name}.norm")

    def fire(self, x: Array, name: str) -> Array:
        """One step of an LIF with hard reset."""
        c = self.neuron(name)
        v = c.beta * self.a.get(name, 0.0) + x + self.w[f"{name}.bias"]
        free = np.abs(v) <= c.clip_membrane
        v = np.clip(v, -c.clip_membrane, c.clip_membrane)
        s = (v >= c.v_threshold).astype(v.dtype)
        self.a[name] = np.where(s > 0, c.v_reset, v)
        self.tape.append((v - c.v_threshold, s, free))
        return s

    def fire_back(self, dy: Array, name: str) -> Array:
        u, s, free = self.tape.pop()
        slope = 0.5 - 0.5 * np.tanh(u) ** 2
        dv = (dy * slope + self.a.get(name, 0.0) * (s == 0)) * free
        self.a[name] = self.neuron(name).beta * dv
        self.g[f"{name}.bias"] += dv
        return dv

    def neuron(self, name: str) -> Any:
        n = self.config.neurons
        return n.mlp_hidden if name.endswith("hidden_neuron") else n.head

    def norm(self, x: Array, name: str) -> Array:
        r = 1 / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.config.rms_norm_eps)
        self.tape.append((r * x, r))
        return self.w[f"{name}.weight"] * (r * x)

    def norm_back(self, dy: Array, name: str) -> Array:
        n, r = self.tape.pop()
        self.g[f"{name}.weight"] += (dy * n).reshape(-1, n.shape[-1]).sum(0)
        dn = dy * self.w[f"{name}.weight"] * n.any(-1, keepdims=True)
        return r * (dn - n * np.mean(dn * n, -1, keepdims=True))

    def read(self, y: Array, name: str) -> Array:
        return self.w[f"{name}.weight"] @ y

    def read_back(self, dz: Array, y: Array, name: str) -> Array:
        self.g[f"{name}.weight"] += np.outer(dz, y)
        return dz @ self.w[f"{name}.weight"]
