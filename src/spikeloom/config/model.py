"""The architecture: neurons, layers and sizes of a decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from spikeloom.strict import one_of, require, require_each

MIXERS = ("attention", "sdsa", "sdsa_hadamard")
MLPS = ("spiking", "relu2", "swiglu", "none")
SURROGATES = ("straight_through", "atan", "sigmoid", "fast_sigmoid", "piecewise_quadratic")
EXTRAS = ("spiking", "mixer_rate", "mlp_rate", "key_stride", "salience", "predictive")
"""Keys of a layer beyond mixer and MLP; not every backend has what they ask for."""
MAX_LEVELS = 127


@dataclass(frozen=True)
class NeuronConfig:
    """The neuron that stands before a weight product (design: section 2, LIF and graded LIF).

    `graded` fires `s = k` where `|k| >= fire_level`, with `k = clip(round(v / theta))`, and emits
    `theta * s`; `lif` fires 0/1 at `v >= v_threshold`; `none` is a wire (dense product).
    """

    kind: Literal["graded", "lif", "none"] = "graded"
    signed: bool = True  # payloads in [-levels, levels] instead of [0, levels]
    levels: int = 24  # the largest payload
    fire_level: int = 6  # the smallest payload that is sent; below it lies the dead zone
    theta: float = 0.25  # initial payload step; learned per channel
    window: float = 0.5  # gradient passes from window * fire_level up to levels
    beta: float = 0.0  # share of the membrane kept from step to step; 0 is memoryless
    learn_beta: bool = False
    reset: Literal["soft", "hard"] = "soft"
    v_threshold: float = 1.0  # `lif` only
    v_reset: float = 0.0  # hard reset only
    surrogate: str = "atan"  # `lif` only; `graded` is straight-through
    clip_membrane: float | None = None  # keep v within ±clip

    def __post_init__(self) -> None:
        levels = f"between 1 and {MAX_LEVELS}: payloads are then exact in int8 and bfloat16"
        require(1 <= self.levels <= MAX_LEVELS, "levels", self.levels, levels)
        require(
            1 <= self.fire_level <= self.levels,
            "fire_level",
            self.fire_level,
            f"between 1 and levels ({self.levels})",
        )
        require(self.theta > 0, "theta", self.theta, "a positive step")
        require(0 <= self.window <= 1, "window", self.window, "a share of fire_level in [0, 1]")
        require(0 <= self.beta < 1, "beta", self.beta, "a decay in [0, 1)")
        require(
            not self.learn_beta or self.beta > 0,
            "learn_beta",
            self.learn_beta,
            "false, or a beta above 0 to start from",
        )
        require_each(self, "v_threshold clip_membrane", lambda v: v > 0, "a positive voltage")
        one_of("surrogate", self.surrogate, SURROGATES)
        require(
            self.kind != "lif" or self.reset == "soft" or self.v_reset < self.v_threshold,
            "v_reset",
            self.v_reset,
            f"a voltage below v_threshold ({self.v_threshold}), or it fires for ever",
        )

    @property
    def memoryless(self) -> bool:
        """Whether a step depends on its own input only."""
        return self.beta == 0 and not self.learn_beta


@dataclass(frozen=True)
class NeuronsConfig:
    """One neuron per role: each role is a place right before weight products.

    In YAML, `default` may give what all roles share; a role's own keys override it.
    """

    mixer_input: NeuronConfig = field(default_factory=NeuronConfig)  # before q, k, v
    mixer_output: NeuronConfig = field(default_factory=NeuronConfig)  # before o
    mlp_input: NeuronConfig = field(default_factory=NeuronConfig)  # before up (and gate)
    mlp_hidden: NeuronConfig = field(  # before down
        default_factory=lambda: NeuronConfig(signed=False, fire_level=1)
    )
    head: NeuronConfig = field(default_factory=NeuronConfig)  # before the vocabulary


WIRES = NeuronsConfig(*(NeuronConfig(kind="none") for _ in fields(NeuronsConfig)))
"""No neurons: every product is dense."""


@dataclass(frozen=True)
class RateCodeConfig:
    """A neuron *after* a block's output product, read as a firing rate (model.rate_code; Pulse).

    It fires over `steps` steps of a static input; what goes into the residual stream is its rate
    times the size of the input times a learned scale.
    """

    neuron: NeuronConfig = field(default_factory=lambda: NeuronConfig(kind="lif", beta=0.95))
    steps: int = 4

    def __post_init__(self) -> None:
        require(self.neuron.kind != "none", "neuron.kind", "none", "graded or lif")
        require(self.steps >= 2, "steps", self.steps, "at least 2: a rate takes several steps")


@dataclass(frozen=True)
class LayerConfig:
    """One decoder layer."""

    mixer: str = "attention"
    mlp: str = "spiking"
    spiking: bool = True  # false: wires in place of this layer's neurons
    sliding_window: int | None = None  # attention: how many tokens back, this one included
    rope_theta: float | None = None  # attention: base of the rotary angles; null takes the model's
    # sdsa and sdsa_hadamard: per head; per head and token; nothing is forgotten (the seed's form)
    decay: Literal["learned", "gated", "none"] = "learned"
    mixer_rate: RateCodeConfig | None = None  # a rate code behind the mixer's output product
    mlp_rate: RateCodeConfig | None = None  # the same behind the MLP's
    key_stride: int = 1  # attention: a token reads every n-th token of its document, and itself
    salience: NeuronConfig | None = None  # attention: reads only tokens for which it fires
    predictive: bool = False  # the MLP sees what the token before did not predict

    def __post_init__(self) -> None:
        one_of("mixer", self.mixer, MIXERS)
        one_of("mlp", self.mlp, MLPS)
        require_each(self, "sliding_window", lambda v: v >= 1, "null or at least 1 token")
        require_each(self, "rope_theta", lambda v: v > 0, "null or a positive base")
        require(
            self.decay != "none" or self.mixer == "sdsa_hadamard",
            "decay",
            self.decay,
            "learned or gated: only the mixer sdsa_hadamard may forget nothing",
        )
        require(
            self.mlp_rate is None or self.mlp != "none",
            "mlp_rate",
            self.mlp_rate,
            "null: this layer has no MLP",
        )
        require(
            self.spiking or self.mlp != "spiking",
            "mlp",
            self.mlp,
            "relu2 or swiglu: without neurons it is linear",
        )
        require(
            not self.predictive or self.mlp != "none", "predictive", True, "false, without an MLP"
        )
        require_each(self, "key_stride", lambda v: v >= 1, "at least 1 token")
        self._check_attention()

    def _check_attention(self) -> None:
        for name, plain in {"key_stride": 1, "salience": None}.items():
            value = getattr(self, name)
            require(
                value == plain or self.mixer == "attention",
                name,
                value,
                f"{'null' if plain is None else plain}: only the mixer attention has keys",
            )
        if self.salience is not None:
            kind = self.salience.kind
            require(kind == "lif", "salience.kind", kind, "lif: a token is kept or it is not")

    @property
    def extras(self) -> tuple[str, ...]:
        """Which of `EXTRAS` it uses."""
        plain = {f.name: f.default for f in fields(self)}
        return tuple(name for name in EXTRAS if getattr(self, name) != plain[name])

    def without_spikes(self) -> LayerConfig:
        """The same layer without neurons: a spiking MLP, left linear, gets squared ReLU."""
        mlp = "relu2" if self.mlp == "spiking" else self.mlp
        return replace(self, mlp=mlp, mixer_rate=None, mlp_rate=None, salience=None)


@dataclass(frozen=True)
class ModelConfig:
    """A decoder: sizes, the pattern of its layers, and its neurons.

    `layers` is a pattern that repeats until there are `num_hidden_layers`. `spiking: false` takes
    every neuron out of the same file: sizes, mixers and windows stay.
    """

    spiking: bool = True  # false: wires for neurons, no rate codes, one step per token
    vocab_size: int = 4096
    hidden_size: int = 384
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int | None = None  # null: as many as heads
    intermediate_size: int = 1536
    max_position_embeddings: int = 512  # the context it is trained on
    layers: tuple[LayerConfig, ...] = (LayerConfig(),)
    neurons: NeuronsConfig = field(default_factory=NeuronsConfig)
    num_steps: int = 1  # T > 1 is the step clock: T steps per token on a static input
    rope_theta: float = 10000.0
    output_norm: bool = True  # RMSNorm between the mixer and its output product
    qk_norm: bool = True
    bidirectional: bool = False  # mixers look both ways: for tagging, not for language models
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    bos_token_id: int = 0
    eos_token_id: int = 0
    pad_token_id: int | None = 1

    def __post_init__(self) -> None:
        sizes = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size"
        require_each(
            self, f"{sizes} max_position_embeddings num_steps", lambda v: v >= 1, "at least 1"
        )
        heads, kv = self.num_attention_heads, self.key_value_heads
        require(
            self.hidden_size % heads == 0 and (self.hidden_size // heads) % 2 == 0,
            "num_attention_heads",
            heads,
            f"a number that divides hidden_size ({self.hidden_size}) into even head widths",
        )
        require(
            kv >= 1 and heads % kv == 0, "num_key_value_heads", kv, f"a divisor of heads ({heads})"
        )
        require(len(self.layers) >= 1, "layers", "[]", "at least one entry")
        require_each(self, "rms_norm_eps", lambda v: v > 0, "a small positive number")
        require_each(self, "rope_theta", lambda v: v > 0, "a positive base")
        require_each(
            self,
            "bos_token_id eos_token_id pad_token_id",
            lambda v: 0 <= v < self.vocab_size,
            f"a token id below vocab_size ({self.vocab_size})",
        )
        if not self.spiking:
            self._take_neurons_out()
        for i, layer in enumerate(self.layers):
            token_clock = {"mixer_rate", "mlp_rate", "salience"} & set(layer.extras)
            require(
                self.num_steps == 1 or not token_clock,
                "num_steps",
                self.num_steps,
                f"1: layers[{i}].{min(token_clock, default='')} has a clock of its own",
            )

    def _take_neurons_out(self) -> None:
        """Here, and not where neurons are made: whoever reads the config sees what is built."""
        layers = tuple(layer.without_spikes() for layer in self.layers)
        for name, value in {"neurons": WIRES, "layers": layers, "num_steps": 1}.items():
            object.__setattr__(self, name, value)  # frozen, but not yet made

    @property
    def key_value_heads(self) -> int:
        given = self.num_key_value_heads
        return self.num_attention_heads if given is None else given

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def neurons_of(self, layer: LayerConfig) -> NeuronsConfig:
        """The neurons of one layer."""
        return self.neurons if layer.spiking else WIRES

    @property
    def layer_list(self) -> tuple[LayerConfig, ...]:
        """One `LayerConfig` per layer: the pattern, unrolled."""
        pattern = self.layers
        return tuple(pattern[i % len(pattern)] for i in range(self.num_hidden_layers))


def require_causal(model: ModelConfig) -> None:
    """Refuse a language model that would read the token it is to predict.

    Raises:
        ConfigError: `model.bidirectional` is set.
    """
    what = "false: it would read the tokens that it is to predict (true is for --task ner)"
    require(not model.bidirectional, "model.bidirectional", model.bidirectional, what)
