"""The architecture: neurons, layers and sizes of a decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from spikeloom.strict import brief, one_of, require, require_each

MIXERS = ("attention", "sdsa", "sdsa_hadamard", "recurrent_lif", "rwkv")
MLPS = ("spiking", "relu2", "swiglu", "rwkv", "none")
SURROGATES = ("straight_through", "atan", "sigmoid", "fast_sigmoid", "piecewise_quadratic")
MODEL_EXTRAS = ("embedding_size", "norm")
LAYER_EXTRAS = (
    "spiking", "gate", "mixer_rate", "mlp_rate", "mixer_spikes", "mlp_spikes", "key_stride",
    "salience", "predictive",
)  # fmt: skip
NEURONS_WITHIN = ("mixer_rate", "mlp_rate", "mixer_spikes", "mlp_spikes", "salience")
"""Keys of a layer that hold neurons of its own; they spike on the token clock only."""
MODULATIONS = ("homeostasis", "diversity", "stress_gain")
EXTRAS = (*MODEL_EXTRAS, *LAYER_EXTRAS, *MODULATIONS, "taps", "gain_rank")
"""Keys of a model, a layer and a neuron that ask for more than the plain decoder; not every backend
has what they ask for."""
MAX_LEVELS = 127


@dataclass(frozen=True)
class NeuronConfig:
    """The neuron that stands before a weight product (design: section 2, LIF and graded LIF).

    `graded` fires `s = k` where `|k| >= fire_level`, with `k = clip(round(v / theta))`, and emits
    `theta * s`; `lif` fires 0/1 at `v >= v_threshold`; so does `psn`, whose membrane is a learned
    mean of the last `taps` inputs that nothing resets; `none` is a wire (dense product).
    """

    kind: Literal["graded", "lif", "psn", "none"] = "graded"
    signed: bool = True  # payloads in [-levels, levels] instead of [0, levels]
    levels: int = 24  # the largest payload
    fire_level: int = 6  # the smallest payload that is sent; below it lies the dead zone
    theta: float = 0.25  # initial payload step; learned per channel
    window: float = 0.5  # gradient passes from window * fire_level up to levels
    beta: float = 0.0  # share of the membrane kept from step to step; 0 is memoryless
    learn_beta: bool = False
    reset: Literal["soft", "hard"] = "soft"
    v_threshold: float = 1.0  # `lif` and `psn` only
    v_reset: float = 0.0  # hard reset only
    surrogate: str = "atan"  # `lif` and `psn` only; `graded` is straight-through
    taps: int = 4  # `psn` only: how many inputs its membrane sees, this one included
    clip_membrane: float | None = None  # keep v within ±clip
    # `graded` only: a gain per channel from all channels, through so many numbers; 0 is no gain
    gain_rank: int = 0
    # `lif` only, see `spikeloom.neurons.modulation`:
    target_rate: float = 0.1  # that homeostasis aims at
    homeostasis: float = 0.0  # how fast inhibition follows its neuron's rate, per training step
    diversity: float = 0.0  # sigma of the fixed LogNormal gain per neuron
    stress_gain: float = 0.0  # share by which full stress of the environment raises the gain

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
        self._check_modulation()
        allowed = "0 or more" if self.kind == "graded" else "0, or a neuron of kind graded"
        rank = self.gain_rank
        require(rank >= 0 and (rank == 0 or self.kind == "graded"), "gain_rank", rank, allowed)
        require(self.taps >= 2, "taps", self.taps, "at least 2 inputs")
        if self.kind == "psn":
            require(self.beta == 0, "beta", self.beta, "0 with kind psn: its taps are its leak")
            clip = self.clip_membrane
            require(clip is None, "clip_membrane", clip, "null with kind psn")
            require(self.reset == "soft", "reset", self.reset, "left out: a psn has no reset")
        require(
            self.kind != "lif" or self.reset == "soft" or self.v_reset < self.v_threshold,
            "v_reset",
            self.v_reset,
            f"a voltage below v_threshold ({self.v_threshold}), or it fires for ever",
        )

    def _check_modulation(self) -> None:
        require(0 < self.target_rate < 1, "target_rate", self.target_rate, "a rate in (0, 1)")
        require_each(self, "homeostasis diversity", lambda v: v >= 0, "0 or more")
        require(0 <= self.stress_gain < 1, "stress_gain", self.stress_gain, "a share in [0, 1)")
        for name in MODULATIONS:
            value = getattr(self, name)
            require(self.kind == "lif" or value == 0, name, value, "0, or a neuron of kind lif")

    @property
    def modulations(self) -> tuple[str, ...]:
        """What besides weights sets the gain of each neuron."""
        return tuple(name for name in MODULATIONS if getattr(self, name) > 0)

    @property
    def extras(self) -> tuple[str, ...]:
        """Which of `EXTRAS` it uses."""
        gain = ["gain_rank"] * (self.gain_rank > 0)
        return (*self.modulations, *["taps"] * (self.kind == "psn"), *gain)

    @property
    def rate_level(self) -> int:
        """The smallest payload that counts in firing rates."""
        return self.fire_level

    @property
    def memoryless(self) -> bool:
        """Whether a step depends on its own input only."""
        return self.kind != "psn" and self.beta == 0 and not self.learn_beta


@dataclass(frozen=True)
class NeuronsConfig:
    """One neuron per role: each role is a place right before weight products.

    In YAML, `default` may give what all roles share; a role's own keys override it.
    """

    mixer_input: NeuronConfig = field(default_factory=NeuronConfig)  # before q, k, v
    # before o; in a recurrent_lif layer also before the recurrent product
    mixer_output: NeuronConfig = field(default_factory=NeuronConfig)
    mlp_input: NeuronConfig = field(default_factory=NeuronConfig)  # before up (and gate)
    mlp_hidden: NeuronConfig = field(  # before down
        default_factory=lambda: NeuronConfig(signed=False, fire_level=1)
    )
    head: NeuronConfig = field(default_factory=NeuronConfig)  # before the vocabulary
    # between embedding and encoder product, where model.embedding_size is given
    encoder: NeuronConfig = field(
        default_factory=lambda: NeuronConfig(kind="lif", surrogate="sigmoid")
    )

    def without_spikes(self) -> NeuronsConfig:
        """Wires; before o they know leak, threshold and slope, which a dense recurrent unit has."""
        unit = self.mixer_output
        named = {name: getattr(unit, name) for name in ("beta", "v_threshold", "surrogate")}
        return replace(WIRES, mixer_output=NeuronConfig(kind="none", **named))


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
        rank = self.neuron.gain_rank
        require(rank == 0, "neuron.gain_rank", rank, "0: it hears the same in all steps")
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
    # what the mixer adds to the residual stream is multiplied by: nothing; one learned number per
    # channel; a spike-fed product of what the mixer reads
    gate: Literal["none", "channel", "product"] = "none"
    mixer_rate: RateCodeConfig | None = None  # a rate code behind the mixer's output product
    mlp_rate: RateCodeConfig | None = None  # the same behind the MLP's
    # a neuron along the tokens behind the mixer's output product: its spikes go into the stream
    mixer_spikes: NeuronConfig | None = None
    mlp_spikes: NeuronConfig | None = None  # the same behind the MLP
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
        self._check_behind()
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

    def _check_behind(self) -> None:
        for name in ("mlp_rate", "mlp_spikes"):
            value = getattr(self, name)
            require(value is None or self.mlp != "none", name, value, "null: this layer has no MLP")
        for block in ("mixer", "mlp"):
            spikes = getattr(self, f"{block}_spikes")
            if spikes is not None:
                name = f"{block}_spikes"
                require(spikes.kind != "none", f"{name}.kind", "none", "graded, lif or psn")
                coded = getattr(self, f"{block}_rate") is not None
                require(not coded, name, spikes, f"null beside {block}_rate")

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
        """Which of `LAYER_EXTRAS` it uses."""
        return _changed(self, LAYER_EXTRAS)

    def without_spikes(self) -> LayerConfig:
        """The same layer without neurons: a spiking MLP, left linear, gets squared ReLU."""
        mlp = "relu2" if self.mlp == "spiking" else self.mlp
        wires: dict[str, Any] = dict.fromkeys(NEURONS_WITHIN)
        return replace(self, mlp=mlp, **wires)


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
    embedding_size: int | None = None  # null: the embedding is the residual stream; else an encoder
    norm: Literal["rms", "layer", "none"] = "rms"  # before neurons that read the residual stream
    output_norm: bool = True  # the same between the mixer and its output neuron
    qk_norm: bool = True
    bidirectional: bool = False  # mixers look both ways: for tagging, not for language models
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    bos_token_id: int = 0
    eos_token_id: int = 0
    pad_token_id: int | None = 1

    def __post_init__(self) -> None:
        if self.embedding_size is None:  # no encoder, and nothing that its neuron could differ in
            without = replace(self.neurons, encoder=NeuronsConfig().encoder)
            object.__setattr__(self, "neurons", without)
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
        require_each(self, "embedding_size", lambda v: v >= 1, "null or at least 1")
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
            token_clock = set(NEURONS_WITHIN) & set(layer.extras)
            require(
                self.num_steps == 1 or not token_clock,
                "num_steps",
                self.num_steps,
                f"1: layers[{i}].{min(token_clock, default='')} has a clock of its own",
            )
            if layer.mixer == "recurrent_lif":
                self._check_recurrent(f"layers[{i}].mixer=recurrent_lif", layer)
            for block in ("mixer", "mlp"):
                if getattr(layer, block) == "rwkv":
                    self._check_rwkv(f"layers[{i}].{block}=rwkv", block, layer)

    def _check_recurrent(self, mixer: str, layer: LayerConfig) -> None:
        """A recurrent_lif layer has a say in what its neuron and the clock may be."""
        neuron, role = self.neurons_of(layer).mixer_output, "neurons.mixer_output"
        require(
            neuron.kind in ("lif", "none"), f"{role}.kind", neuron.kind, f"lif or none with {mixer}"
        )
        require(neuron.reset == "soft", f"{role}.reset", neuron.reset, f"soft with {mixer}")
        clip = neuron.clip_membrane
        require(clip is None, f"{role}.clip_membrane", clip, f"null with {mixer}")
        steps = self.num_steps
        require(steps == 1, "num_steps", steps, f"1 (the token clock) with {mixer}")
        require(not self.bidirectional, "bidirectional", True, f"false with {mixer}")

    def _check_rwkv(self, what: str, block: str, layer: LayerConfig) -> None:
        """Before its products RWKV mixes two tokens: no spike of a neuron would arrive there."""
        kind = getattr(self.neurons_of(layer), f"{block}_input").kind
        require(kind == "none", f"neurons.{block}_input.kind", kind, f"none with {what}")
        require(not self.bidirectional, "bidirectional", True, f"false with {what}")

    def _take_neurons_out(self) -> None:
        """Here, and not where neurons are made: whoever reads the config sees what is built."""
        layers = tuple(layer.without_spikes() for layer in self.layers)
        neurons = self.neurons.without_spikes()
        for name, value in {"neurons": neurons, "layers": layers, "num_steps": 1}.items():
            object.__setattr__(self, name, value)  # frozen, but not yet made

    def extras(self) -> dict[str, str]:
        """Which of `EXTRAS` the model, its layers and its neurons use, by `field=value`."""
        found: list[tuple[str, Any, str]] = [
            ("", self, name) for name in _changed(self, MODEL_EXTRAS)
        ]
        for i, layer in enumerate(self.layers):
            found += [(f"layers[{i}].", layer, name) for name in layer.extras]
        for role, neuron in vars(self.neurons).items():
            found += [(f"neurons.{role}.", neuron, name) for name in neuron.extras]
        return {f"{at}{name}{brief(getattr(owner, name))}": name for at, owner, name in found}

    @property
    def encoder_size(self) -> int:
        """Width of the embedding."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def key_value_heads(self) -> int:
        given = self.num_key_value_heads
        return self.num_attention_heads if given is None else given

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def neurons_of(self, layer: LayerConfig) -> NeuronsConfig:
        """The neurons of one layer."""
        return self.neurons if layer.spiking else self.neurons.without_spikes()

    @property
    def layer_list(self) -> tuple[LayerConfig, ...]:
        """One `LayerConfig` per layer: the pattern, unrolled."""
        pattern = self.layers
        return tuple(pattern[i % len(pattern)] for i in range(self.num_hidden_layers))


def _changed(config: LayerConfig | ModelConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the fields named are not at their default."""
    plain = {f.name: f.default for f in fields(config)}
    return tuple(name for name in names if getattr(config, name) != plain[name])


def require_causal(model: ModelConfig) -> None:
    """Refuse a language model that would read the token it is to predict.

    Raises:
        ConfigError: `model.bidirectional` is set.
    """
    what = "false: it would read the tokens that it is to predict (true is for --task ner)"
    require(not model.bidirectional, "model.bidirectional", model.bidirectional, what)
