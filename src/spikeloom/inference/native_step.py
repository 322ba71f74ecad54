"""The token step in C++ (`decode.cpp`): a plan and a state as structs of pointers.

The structs below repeat those of `decode.cpp` in order; every field is 8 bytes wide.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spikeloom.inference.plan import (
    MIXERS,
    MLPS,
    NEURONS,
    GainPlan,
    LayerPlan,
    NeuronPlan,
    Plan,
)
from spikeloom.inference.state import EngineState
from spikeloom.ops.event import build
from spikeloom.ops.event.native import CWeights, c_weights

SOURCE = Path(__file__).with_name("decode.cpp")


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class _Gain(ctypes.Structure):
    _fields_ = (*_fields(CWeights, "narrow widen"), ("bias", ctypes.c_void_p))


class _Neuron(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_int64, "kind size index is_signed hard_reset membrane"),
        *_fields(ctypes.c_double, "levels fire_level v_threshold v_reset clip"),
        *_fields(ctypes.c_void_p, "bias theta beta"),
        ("gain", _Gain),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_int64, "mixer mlp window gated"),
        *_fields(ctypes.c_void_p, "norm q_norm k_norm raw_decay wavelengths output_norm mlp_norm"),
        *_fields(_Neuron, "input output mlp_input mlp_hidden"),
        *_fields(CWeights, "qkv o up down"),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_int64, "D H KV K F V T num_layers R"),
        ("eps", ctypes.c_double),
        *_fields(ctypes.c_void_p, "embedding norm"),
        ("layers", ctypes.POINTER(_Layer)),
        ("head_neuron", _Neuron),
        ("head", CWeights),
    )


class _Memory(ctypes.Structure):
    _fields_ = (*_fields(ctypes.c_void_p, "state keys values"), ("capacity", ctypes.c_int64))


class _State(ctypes.Structure):
    _fields_ = (
        ("position", ctypes.c_int64),
        ("membranes", ctypes.c_void_p),
        ("num_membranes", ctypes.c_int64),
        ("counters", ctypes.c_void_p),
        ("memories", ctypes.POINTER(_Memory)),
    )


class NativeStep:
    """The C++ form of `torch_step` for one plan.

    Steps on different states may run at once: a call releases Python's lock and its buffers are
    the thread's own.
    """

    def __init__(self, plan: Plan, library: ctypes.CDLL) -> None:
        _check_layout(library)
        self._decode = library.spikeloom_decode
        self._decode.restype = None
        self._plan = plan  # owns what the structs point to
        self._model = _model(plan)
        self._model_pointer = ctypes.byref(self._model)

    def __call__(
        self, state: EngineState, tokens: Sequence[int], with_logits: bool = True
    ) -> Tensor | None:
        """Read `tokens` in order; the logits `[V]` after the last, or None where not asked for."""
        state.reserve(len(tokens))
        if state.native is None:
            state.native = _state(state)
        state.native.position = state.position
        logits = torch.empty(self._plan.config.vocab_size) if with_logits else None
        self._decode(
            self._model_pointer,
            ctypes.byref(state.native),
            (ctypes.c_int64 * len(tokens))(*tokens),
            ctypes.c_int64(len(tokens)),
            ctypes.c_void_p(_pointer(logits)),
        )
        state.position = state.native.position
        return logits


def load(plan: Plan) -> NativeStep | None:
    """The C++ step, or None (and one line on stderr) where it cannot be compiled."""
    library = build.load(SOURCE)
    return None if library is None else NativeStep(plan, library)


def _check_layout(library: ctypes.CDLL) -> None:
    ours = (_Neuron, CWeights, _Layer, _Model, _Memory, _State)
    theirs = [library.spikeloom_struct_size(ctypes.c_int64(i)) for i in range(len(ours))]
    assert theirs == [ctypes.sizeof(s) for s in ours], "decode.cpp and native_step.py disagree"


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _neuron(plan: NeuronPlan) -> _Neuron:
    c = plan.config
    return _Neuron(
        kind=NEURONS.index(c.kind),
        size=plan.size,
        index=plan.index,
        is_signed=c.signed,
        hard_reset=c.reset == "hard",
        membrane=plan.membrane,
        levels=c.levels,
        fire_level=c.fire_level,
        v_threshold=c.v_threshold,
        v_reset=c.v_reset,
        clip=math.inf if c.clip_membrane is None else c.clip_membrane,
        bias=_pointer(plan.bias),
        theta=_pointer(plan.theta),
        beta=_pointer(plan.beta),
        gain=_Gain() if plan.gain is None else _gain(plan.gain),
    )


def _gain(plan: GainPlan) -> _Gain:
    return _Gain(c_weights(plan.narrow), c_weights(plan.widen), _pointer(plan.bias))


def _layer(plan: LayerPlan) -> _Layer:
    layer = _Layer(
        mixer=MIXERS.index(plan.config.mixer),
        mlp=MLPS.index(plan.config.mlp),
        window=plan.config.sliding_window or 0,
        gated=plan.config.decay == "gated",
        norm=_pointer(plan.norm),
        q_norm=_pointer(plan.q_norm),
        k_norm=_pointer(plan.k_norm),
        raw_decay=_pointer(plan.raw_decay),
        wavelengths=_pointer(plan.wavelengths),
        output_norm=_pointer(plan.output_norm),
        input=_neuron(plan.input),
        output=_neuron(plan.output),
        qkv=c_weights(plan.qkv),
        o=c_weights(plan.o),
    )
    if plan.mlp is not None:
        layer.mlp_norm = _pointer(plan.mlp.norm)
        layer.mlp_input, layer.mlp_hidden = _neuron(plan.mlp.input), _neuron(plan.mlp.hidden)
        layer.up, layer.down = c_weights(plan.mlp.up), c_weights(plan.mlp.down)
    return layer


def _model(plan: Plan) -> _Model:
    c = plan.config
    layers = [_layer(layer) for layer in plan.layers]
    return _Model(
        D=c.hidden_size,
        H=c.num_attention_heads,
        KV=c.key_value_heads,
        K=c.head_dim,
        F=c.intermediate_size,
        V=c.vocab_size,
        T=c.num_steps,
        num_layers=len(layers),
        R=max(n.config.gain_rank for n in plan.neurons),
        eps=c.rms_norm_eps,
        embedding=_pointer(plan.embedding),
        norm=_pointer(plan.norm),
        layers=(_Layer * len(layers))(*layers),
        head_neuron=_neuron(plan.head_neuron),
        head=c_weights(plan.head),
    )


def _state(state: EngineState) -> _State:
    memories = [
        _Memory(_pointer(m.memory), _pointer(m.keys), _pointer(m.values), m.capacity)
        for m in state.layers
    ]
    return _State(
        position=state.position,
        membranes=_pointer(state.membranes),
        num_membranes=state.membranes.numel(),
        counters=_pointer(state.counters),
        memories=(_Memory * len(memories))(*memories),
    )
