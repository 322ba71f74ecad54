"""One token through the decoder in plain torch: the specification of `decode.cpp`.

It also decodes where no C++ compiler is at hand; products still read only rows that fired.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.inference.plan import GainPlan, LayerPlan, MLPPlan, NeuronPlan, Plan
from spikeloom.inference.state import EngineState, LayerMemory
from spikeloom.ops.event import InputMajor, event_matvec


@torch.no_grad()
def step(plan: Plan, state: EngineState, token: int, with_logits: bool = True) -> Tensor | None:
    """Read one token, advance `state`, return its logits `[V]` (or None where not asked for).

    On the step clock all T steps of a layer run before the next layer, which is the same (a step
    depends on earlier steps of its own layer only) and finds the weights in the cache.
    """
    T = plan.config.num_steps
    if T > 1:
        state.membranes.zero_()  # membranes live through the steps of one token
    x = plan.embedding[token].repeat(T, 1)
    for layer, memory in zip(plan.layers, state.layers, strict=True):
        for t in range(T):
            x[t] += _mixer_block(plan, layer, state, memory, x[t], t)
            if layer.mlp is not None:
                x[t] += _mlp_block(plan, layer.mlp, layer.config.mlp, state, x[t])
    payload = torch.zeros(plan.config.hidden_size)
    for t in range(T):  # rate code: the head reads the mean of its steps
        payload += _fire(plan.head_neuron, state, _norm(plan, x[t], plan.norm)) / T
    state.position += 1
    return _product(plan.head_neuron, plan.head, state, payload) if with_logits else None


def _mixer_block(
    plan: Plan, layer: LayerPlan, state: EngineState, memory: LayerMemory, x: Tensor, t: int
) -> Tensor:
    payload = _fire(layer.input, state, _norm(plan, x, layer.norm))
    fed = _product(layer.input, layer.qkv, state, payload)
    c = plan.config
    H, kv, K = c.num_attention_heads, c.key_value_heads, c.head_dim
    q, k, v, decay = fed.split([H * K, kv * K, kv * K, layer.qkv.d_out - (H + 2 * kv) * K])
    q, k, v = q.view(H, K), k.view(kv, K), v.view(kv, K)
    q = q if layer.q_norm is None else _norm(plan, q, layer.q_norm)
    k = k if layer.k_norm is None else _norm(plan, k, layer.k_norm)
    if layer.config.mixer == "attention":
        mixed = _attention(layer, memory, q, k, v, state.position, t)
    else:
        mixed = _sdsa(layer, memory, q, k, v, decay, t)
    mixed = mixed if layer.output_norm is None else _norm(plan, mixed, layer.output_norm)
    return _product(layer.output, layer.o, state, _fire(layer.output, state, mixed))


def _attention(
    layer: LayerPlan, memory: LayerMemory, q: Tensor, k: Tensor, v: Tensor, position: int, t: int
) -> Tensor:
    assert layer.wavelengths is not None
    assert memory.keys is not None
    assert memory.values is not None
    angles = position * layer.wavelengths
    window = layer.config.sliding_window
    slot = position if window is None else position % window  # a ring: the oldest is overwritten
    n = position + 1 if window is None else min(position + 1, window)
    memory.keys[t, :, :, slot] = _turn(k, angles)
    memory.values[t, :, slot] = v
    groups = q.shape[0] // k.shape[0]
    keys = memory.keys[t, :, :, :n].repeat_interleave(groups, 0)
    values = memory.values[t, :, :n].repeat_interleave(groups, 0)
    scores = _turn(q, angles)[:, None] @ keys / math.sqrt(q.shape[1])
    return (scores.softmax(-1) @ values).flatten()


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _sdsa(
    layer: LayerPlan, memory: LayerMemory, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, t: int
) -> Tensor:
    assert layer.raw_decay is not None
    assert memory.memory is not None
    raw = layer.raw_decay + decay if decay.numel() else layer.raw_decay
    kept = torch.exp(-F.softplus(raw))[:, None, None]
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    memory.memory[t] = memory.memory[t] * kept + k[:, :, None] * v[:, None, :]
    return (q[:, None] / math.sqrt(q.shape[1]) @ memory.memory[t]).flatten()


def _mlp_block(plan: Plan, mlp: MLPPlan, kind: str, state: EngineState, x: Tensor) -> Tensor:
    payload = _fire(mlp.input, state, _norm(plan, x, mlp.norm))
    hidden = _product(mlp.input, mlp.up, state, payload)
    if kind == "relu2":
        hidden = F.relu(hidden).square()
    elif kind == "swiglu":
        up, gate = hidden.chunk(2)
        hidden = F.silu(gate) * up
    return _product(mlp.hidden, mlp.down, state, _fire(mlp.hidden, state, hidden))


def _norm(plan: Plan, x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, plan.config.rms_norm_eps)


def _fire(neuron: NeuronPlan, state: EngineState, x: Tensor) -> Tensor:
    """Payloads `[size]` of one step (equations: `spikeloom.ops.lif.naive`)."""
    if neuron.bias is None:
        return x
    c = neuron.config
    v = (x if neuron.gain is None else _scaled(neuron.gain, x)) + neuron.bias
    membrane = None
    if neuron.beta is not None:
        membrane = state.membranes[neuron.membrane : neuron.membrane + neuron.size]
        v = neuron.beta * membrane + v
    if c.clip_membrane is not None:
        v = v.clamp(-c.clip_membrane, c.clip_membrane)
    if neuron.theta is None:
        s = (v >= c.v_threshold).float()
        drop = c.v_threshold * s
    else:
        k = torch.round(v / neuron.theta)
        fires = (k.abs() if c.signed else k) >= c.fire_level
        s = torch.where(fires, k.clamp(-c.levels if c.signed else 0, c.levels), 0.0)
        drop = neuron.theta * s
    if membrane is not None:
        membrane.copy_(torch.where(s != 0, c.v_reset, v) if c.reset == "hard" else v - drop)
    return s


def _scaled(gain: GainPlan, x: Tensor) -> Tensor:
    """`2 sigmoid(U V x + c) * x` (`spikeloom.neurons.gain`)."""
    context = torch.mv(gain.narrow.data.float(), x) * gain.narrow.scale
    score = torch.mv(gain.widen.data.float().t(), context * gain.widen.scale) + gain.bias
    return x * (2.0 * torch.sigmoid(score))


def _product(
    neuron: NeuronPlan, weights: InputMajor, state: EngineState, payload: Tensor
) -> Tensor:
    fired = int(payload.count_nonzero()) if neuron.spikes else neuron.size
    state.counters[neuron.index, 0] += fired
    state.counters[neuron.index, 1] += neuron.size
    if neuron.spikes:
        return event_matvec(payload, weights)
    return torch.mv(weights.data.float().t(), payload * weights.scale)
