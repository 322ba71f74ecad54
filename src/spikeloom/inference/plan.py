"""A checkpoint's weights, laid out for decoding: what both token steps (C++ and torch) read.

A plan is data only. It is built once, from named tensors as `model.safetensors` holds them, without
making a model: products that share an input neuron become one matrix (q, k, v; up and gate), and
every matrix is input-major (`spikeloom.ops.event.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig
from spikeloom.errors import CheckpointError, ConfigError, did_you_mean
from spikeloom.ops.event import Arena, InputMajor, pack
from spikeloom.ops.event.weights import DTYPES

MIXERS = ("attention", "sdsa")
MLPS = ("none", "spiking", "relu2", "swiglu")
NEURONS = ("none", "graded", "lif")
EXTRAS = ("gain_rank",)


@dataclass(frozen=True)
class GainPlan:
    """What scales the input of a neuron (`spikeloom.neurons.gain`).

    Attributes:
        narrow, widen: V and U, both as `[rank, size]`: each is read in one piece.
        bias: c, `[size]`.
    """

    narrow: InputMajor
    widen: InputMajor
    bias: Tensor

    @property
    def weights(self) -> int:
        """How many are read for a token."""
        return self.narrow.data.numel() + self.widen.data.numel()


@dataclass(frozen=True)
class NeuronPlan:
    """One neuron.

    Attributes:
        config: its equations.
        size: channels.
        index: its number in order of computation.
        bias: input current, `[size]`; None for a wire.
        theta: payload step, `[size]`; None but for graded neurons.
        beta: share of the membrane kept, `[size]`; None without memory.
        membrane: where its membrane starts in the state; -1 without memory.
        gain: None but where the config asks for one.
    """

    config: NeuronConfig
    size: int
    index: int
    bias: Tensor | None
    theta: Tensor | None
    beta: Tensor | None
    membrane: int
    gain: GainPlan | None = None

    @property
    def spikes(self) -> bool:
        return self.config.kind != "none"


@dataclass(frozen=True)
class MLPPlan:
    """norm `[D]`, neurons, and the products up (and gate, behind it) and down."""

    norm: Tensor
    input: NeuronPlan
    up: InputMajor
    hidden: NeuronPlan
    down: InputMajor


@dataclass(frozen=True)
class LayerPlan:
    """One decoder layer; `qkv` holds q, k, v and, where the decay is gated, the decay product.

    Attributes:
        raw_decay: sdsa only, `[H]`.
        wavelengths: attention only: angles per position of the rotary embedding, `[K / 2]`.
        The norms are None where the config leaves them out.
    """

    config: LayerConfig
    norm: Tensor
    input: NeuronPlan
    qkv: InputMajor
    q_norm: Tensor | None
    k_norm: Tensor | None
    raw_decay: Tensor | None
    wavelengths: Tensor | None
    output_norm: Tensor | None
    output: NeuronPlan
    o: InputMajor
    mlp: MLPPlan | None


@dataclass(frozen=True)
class Plan:
    """A whole decoder. `membranes` is the number of floats that all membranes take."""

    config: ModelConfig
    dtype: str
    embedding: Tensor
    layers: tuple[LayerPlan, ...]
    norm: Tensor
    head_neuron: NeuronPlan
    head: InputMajor
    neurons: tuple[NeuronPlan, ...]
    membranes: int

    @property
    def products(self) -> list[tuple[NeuronPlan, InputMajor]]:
        """Every product and the neuron in front, in order of computation."""
        pairs = []
        for layer in self.layers:
            pairs += [(layer.input, layer.qkv), (layer.output, layer.o)]
            if layer.mlp is not None:
                pairs += [(layer.mlp.input, layer.mlp.up), (layer.mlp.hidden, layer.mlp.down)]
        return [*pairs, (self.head_neuron, self.head)]

    @property
    def dense_weights(self) -> int:
        """How many weights neurons read themselves for a token, whatever fires."""
        return sum(n.gain.weights for n in self.neurons if n.gain is not None)

    @property
    def weights(self) -> int:
        """All weights in products and gains."""
        return self.dense_weights + sum(w.d_in * w.d_out for _, w in self.products)


def make_plan(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: str) -> Plan:
    """Lay out the tensors of a checkpoint.

    Args:
        config: the architecture.
        tensors: by the names of `SpikeloomForCausalLM.state_dict()`.
        dtype: of the weight products: `float32`, `bfloat16` or `int8`.

    Raises:
        ConfigError: the architecture or the dtype has no event-driven form.
        CheckpointError: tensors are missing, foreign, or of the wrong shape.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    check_supported(config)
    return _Planner(config, tensors, dtype).plan()


def check_supported(config: ModelConfig) -> None:
    """Refuse, by name, what the engine cannot run.

    Raises:
        ConfigError: names the field and the value.
    """
    for i, layer in enumerate(config.layer_list):
        _refuse_unknown(f"layers[{i}].mixer", layer.mixer, MIXERS)
        _refuse_unknown(f"layers[{i}].mlp", layer.mlp, MLPS)
    for place in (place for place, extra in config.extras().items() if extra not in EXTRAS):
        raise ConfigError(f"{place}: the event-driven engine does not have it")
    for role, neuron in vars(config.neurons).items():
        _refuse_unknown(f"neurons.{role}.kind", neuron.kind, NEURONS)


def _refuse_unknown(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(
            f"{field}: the event-driven engine has no '{value}' (it has {', '.join(known)})"
        )


class _Planner:
    """Takes tensors by name, counting neurons and membranes on the way."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor], dtype: str) -> None:
        self.config = config
        self.dtype = dtype
        self.arena = Arena()
        self.neurons: list[NeuronPlan] = []
        self.membranes = 0
        self._tensors = tensors
        self._left = set(tensors)

    def plan(self) -> Plan:
        config, size = self.config, self.config.hidden_size
        embedding = self.take("model.decoder.embed_tokens.weight", config.vocab_size, size)
        embedding = embedding.clone()  # no view of a live model or of a file that may be replaced
        layers = tuple(self.layer(i, layer) for i, layer in enumerate(config.layer_list))
        norm = self.take("model.decoder.norm.weight", size)
        head_neuron = self.neuron("model.decoder.head_neuron", config.neurons.head, size)
        head = self.head(embedding, head_neuron)
        if self._left:
            name = min(self._left)
            raise CheckpointError(f"{name}: the event-driven engine does not know this tensor")
        return Plan(
            config,
            self.dtype,
            embedding,
            layers,
            norm,
            head_neuron,
            head,
            tuple(self.neurons),
            self.membranes,
        )

    def head(self, embedding: Tensor, neuron: NeuronPlan) -> InputMajor:
        if not self.config.tie_word_embeddings:
            return self.product(neuron, ["lm_head"], [self.config.vocab_size])
        self._left.discard("lm_head.weight")  # a live model names the tied weight twice
        return pack(embedding, neuron.theta, self.dtype, self.arena)

    def layer(self, i: int, layer: LayerConfig) -> LayerPlan:
        c = self.config
        root = f"model.decoder.layers.{i}.blocks"
        mixer, size, width = f"{root}.0.mixer", c.hidden_size, c.key_value_heads * c.head_dim
        names, widths = [f"{mixer}.{x}_proj" for x in "qkv"], [size, width, width]
        if layer.mixer == "sdsa" and layer.decay == "gated":
            names, widths = [*names, f"{mixer}.decay_proj"], [*widths, c.num_attention_heads]
        sdsa = layer.mixer == "sdsa"
        fed = self.neuron(f"{root}.0.input_neuron", c.neurons.mixer_input, size)
        output = self.neuron(f"{root}.0.output_neuron", c.neurons.mixer_output, size)
        return LayerPlan(
            config=layer,
            norm=self.take(f"{root}.0.norm.weight", size),
            input=fed,
            qkv=self.product(fed, names, widths),
            q_norm=self.take(f"{mixer}.q_norm.weight", c.head_dim) if c.qk_norm else None,
            k_norm=self.take(f"{mixer}.k_norm.weight", c.head_dim) if c.qk_norm else None,
            raw_decay=self.take(f"{mixer}.raw_decay", c.num_attention_heads) if sdsa else None,
            wavelengths=None if sdsa else _wavelengths(c, layer),
            output_norm=self.take(f"{root}.0.output_norm.weight", size) if c.output_norm else None,
            output=output,
            o=self.product(output, [f"{root}.0.o_proj"], [size]),
            mlp=None if layer.mlp == "none" else self.mlp(f"{root}.1", layer.mlp),
        )

    def mlp(self, root: str, kind: str) -> MLPPlan:
        c = self.config
        width = c.intermediate_size
        names = [f"{root}.mlp.up_proj"] + [f"{root}.mlp.gate_proj"] * (kind == "swiglu")
        fed = self.neuron(f"{root}.input_neuron", c.neurons.mlp_input, c.hidden_size)
        hidden = self.neuron(f"{root}.mlp.hidden_neuron", c.neurons.mlp_hidden, width)
        return MLPPlan(
            norm=self.take(f"{root}.norm.weight", c.hidden_size),
            input=fed,
            up=self.product(fed, names, [width] * len(names)),
            hidden=hidden,
            down=self.product(hidden, [f"{root}.mlp.down_proj"], [c.hidden_size]),
        )

    def product(self, neuron: NeuronPlan, names: list[str], widths: list[int]) -> InputMajor:
        parts = [
            self.take(f"{name}.weight", width, neuron.size)
            for name, width in zip(names, widths, strict=True)
        ]
        weight = parts[0] if len(parts) == 1 else torch.cat(parts)
        return pack(weight, neuron.theta, self.dtype, self.arena)

    def neuron(self, root: str, config: NeuronConfig, size: int) -> NeuronPlan:
        index = len(self.neurons)
        if config.kind == "none":
            plan = NeuronPlan(config, size, index, None, None, None, -1)
        else:
            theta = None
            if config.kind == "graded":
                theta = self.take(f"{root}.log_theta", size).exp()
            bias = self.take(f"{root}.bias", size)
            beta = self.beta(root, config, size)
            start = -1 if beta is None else self.membranes
            self.membranes += 0 if beta is None else size
            gain = self.gain(f"{root}.gain", config.gain_rank, size) if config.gain_rank else None
            plan = NeuronPlan(config, size, index, bias, theta, beta, start, gain)
        self.neurons.append(plan)
        return plan

    def gain(self, root: str, rank: int, size: int) -> GainPlan:
        narrow = self.take(f"{root}.narrow", rank, size)
        widen = self.take(f"{root}.widen", size, rank)
        return GainPlan(
            narrow=pack(narrow.t(), None, self.dtype, self.arena),
            widen=pack(widen, None, self.dtype, self.arena),
            bias=self.take(f"{root}.bias", size),
        )

    def beta(self, root: str, config: NeuronConfig, size: int) -> Tensor | None:
        if config.memoryless:
            return None
        if config.learn_beta:
            return torch.sigmoid(self.take(f"{root}.raw_beta", size))
        return torch.full((size,), config.beta)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of the checkpoint as contiguous float32."""
        if name not in self._tensors:
            hint = did_you_mean(name, self._tensors)
            raise CheckpointError(f"the checkpoint lacks {name}{hint}")
        self._left.discard(name)
        tensor = self._tensors[name].detach()
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{name}: shape {tuple(tensor.shape)}, expected {shape}")
        tensor = tensor.to("cpu", torch.float32).contiguous()
        return tensor.clone() if tensor.ndim == 1 else tensor  # matrices are packed, so copied


def _wavelengths(config: ModelConfig, layer: LayerConfig) -> Tensor:
    half = config.head_dim // 2
    theta = layer.rope_theta or config.rope_theta
    return theta ** -(torch.arange(half, dtype=torch.float32) / half)
