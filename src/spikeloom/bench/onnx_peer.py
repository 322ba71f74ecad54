"""ONNX Runtime as a contender: the dense twin as a pure step, exported by `torch.onnx` (dynamo).

The graph reads the keys and values so far and returns the new ones, which are written into the same
buffers outside, so that nothing grows and nothing is copied. Needs `onnx`, `onnxscript` and
`onnxruntime`, which are installed for the benchmark only (benchmarks/README.md).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from spikeloom.bench.flow_twin import CAPACITY
from spikeloom.inference.plan import LayerPlan, Plan, make_plan
from spikeloom.model import SpikeloomForCausalLM


class DenseStep(nn.Module):
    """One token through a dense SwiGLU decoder; weights as products `x @ W`."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.embedding = nn.Parameter(plan.embedding, requires_grad=False)
        self.norm = nn.Parameter(plan.norm, requires_grad=False)
        self.head = _matrix(plan.head.data)
        self.layers = nn.ModuleList(DenseLayer(plan, layer) for layer in plan.layers)

    def forward(
        self, token: Tensor, position: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Token and position `[1]`, per layer keys `[H, K, C]` and values `[H, C, K]`; returns
        logits `[1, V]` and per layer the new key `[H, K, 1]` and value `[H, 1, K]`."""
        x = self.embedding[token]
        seen = torch.arange(CAPACITY) < position
        new_keys, new_values = [], []
        for layer, past_keys, past_values in zip(self.layers, keys, values, strict=True):
            x, key, value = layer(x, position, seen, past_keys, past_values)
            new_keys.append(key)
            new_values.append(value)
        return self._norm(x) @ self.head, new_keys, new_values

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.norm.shape, self.norm, self.plan.config.rms_norm_eps)


class DenseLayer(nn.Module):
    """Attention over a fixed number of places, of which the first `position` hold something."""

    def __init__(self, plan: Plan, layer: LayerPlan) -> None:
        super().__init__()
        assert layer.mlp is not None
        self.config = plan.config
        self.wavelengths = nn.Parameter(_there(layer.wavelengths), requires_grad=False)
        norms = (layer.norm, layer.mlp.norm, _there(layer.q_norm), _there(layer.k_norm))
        self.norms = nn.ParameterList(nn.Parameter(n, requires_grad=False) for n in norms)
        self.qkv, self.o = _matrix(layer.qkv.data), _matrix(layer.o.data)
        self.up_gate, self.down = _matrix(layer.mlp.up.data), _matrix(layer.mlp.down.data)

    def forward(
        self, x: Tensor, position: Tensor, seen: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        c, heads = self.config, (-1, 1, self.config.head_dim)
        widths = [c.hidden_size, c.key_value_heads * c.head_dim, c.key_value_heads * c.head_dim]
        q, k, v = (self._norm(x, 0) @ self.qkv).split(widths, -1)
        angles = position * self.wavelengths
        q = _turn(self._norm(q.view(heads), 2), angles)
        k = _turn(self._norm(k.view(heads), 3), angles).transpose(1, 2)
        v = v.view(heads)
        mixed = _attend(q, k, v, seen, keys, values)
        x = x + mixed.reshape(1, -1) @ self.o
        up, gate = (self._norm(x, 1) @ self.up_gate).chunk(2, -1)
        return x + (F.silu(gate) * up) @ self.down, k, v

    def _norm(self, x: Tensor, which: int) -> Tensor:
        weight = self.norms[which]
        return F.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


class OnnxPeer:
    """The exported step in one thread, and its buffers."""

    def __init__(self, file: Path, kind: str, twin: SpikeloomForCausalLM) -> None:
        self.name = f"ONNX Runtime {onnxruntime.__version__} {kind}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        c = twin.config.architecture
        size = (c.num_hidden_layers, c.key_value_heads)
        self._keys = np.zeros((*size, c.head_dim, CAPACITY), np.float32)
        self._values = np.zeros((*size, CAPACITY, c.head_dim), np.float32)
        self._token, self._position = np.zeros(1, np.int64), np.zeros(1, np.int64)
        names = [entry.name for entry in self._session.get_inputs()]
        buffers = [self._token, self._position, *self._keys, *self._values]
        self._feeds = dict(zip(names, buffers, strict=True))

    def reset(self) -> None:
        self._position[0] = 0

    def __call__(self, token: int) -> np.ndarray:
        self._token[0] = token
        logits, *new = self._session.run(None, self._feeds)
        layers, place = len(self._keys), self._position[0]
        for layer in range(layers):
            self._keys[layer, :, :, place] = new[layer][:, :, 0]
            self._values[layer, :, place] = new[layers + layer][:, 0]
        self._position[0] += 1
        return np.asarray(logits[0])


def export(twin: SpikeloomForCausalLM, file: Path) -> None:
    """Write the twin's step in float32."""
    plan = make_plan(twin.config.architecture, twin.state_dict(), "float32")
    c = plan.config
    one = torch.ones(1, dtype=torch.int64)
    keys = [torch.zeros(c.key_value_heads, c.head_dim, CAPACITY) for _ in plan.layers]
    values = [key.transpose(1, 2).contiguous() for key in keys]
    for talkative in ("onnxscript", "torch.onnx"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own exporter warns of torch's own tree library
        torch.onnx.export(
            DenseStep(plan).eval(), (one, one.clone(), keys, values), file, dynamo=True
        )


def quantise(file: Path, output: Path) -> None:
    """Dynamic int8, as ONNX Runtime quantises it: weights per channel, activations per tensor."""
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(
        file, output, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    q = q / math.sqrt(q.shape[-1])
    before = (q @ keys).masked_fill(~seen, -1e9)
    weights = torch.cat([before, q @ k], -1).softmax(-1)
    return weights[..., :-1] @ values + weights[..., -1:] * v


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _matrix(data: Tensor) -> nn.Parameter:
    return nn.Parameter(data.contiguous().clone(), requires_grad=False)


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
