"""What a model and a training run are, as strict data. No torch here: reading a config is instant.

A YAML file (a preset, or the user's own) has three parts, each a frozen dataclass below:

    model:      ModelConfig      the architecture: sizes, layers, one neuron per role
    tokenizer:  TokenizerConfig  which tokenizer is trained on the data
    training:   TrainingConfig   budget, batch, optimizer, target active share

An unknown key, a wrong type or an impossible value is a `ConfigError` that names the field, the
value and what would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from spikeloom.errors import ConfigError
from spikeloom.strict import build, one_of, parse_yaml, require, require_each

MIXERS = ("attention", "sdsa", "sdsa_hadamard")
MLPS = ("spiking", "relu2", "swiglu", "none")
SURROGATES = ("straight_through", "atan", "sigmoid", "fast_sigmoid", "piecewise_quadratic")
EXTRAS = ("spiking", "mixer_rate", "mlp_rate", "key_stride", "salience", "predictive")
"""Keys of a layer beyond mixer and MLP; not every backend has what they ask for."""
METADATA_FIELDS = ("category", "source", "id")
TRACKERS = ("tensorboard", "trackio", "wandb")
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


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer is trained on the data when none is given."""

    kind: Literal["bpe", "char", "syllable"] = "bpe"
    vocab_size: int = 4096

    def __post_init__(self) -> None:
        require(self.vocab_size >= 2, "vocab_size", self.vocab_size, "at least 2")


@dataclass(frozen=True)
class PhaseConfig:
    """A stretch of a run with rows of its own length."""

    context: int  # tokens per row; the longest phase's is a multiple of it
    share: float  # of the budget

    def __post_init__(self) -> None:
        require(self.context >= 1, "context", self.context, "at least 1 token")
        require(0 < self.share <= 1, "share", self.share, "a share of the budget in (0, 1]")


@dataclass(frozen=True)
class TrainingConfig:
    """Budget, batch, optimizer and sparsity target of one run."""

    max_steps: int | None = None
    max_tokens: int | None = None
    max_minutes: float | None = None
    context: int | None = None  # tokens per row; null takes model.max_position_embeddings
    # rows cut to growing lengths, as many more of them: tokens per step stay (training.phases)
    phases: tuple[PhaseConfig, ...] = ()
    # spiking and dense layers of a hybrid in turns (training.halves); null trains them jointly
    halves: Literal["separate", "alternating"] | None = None
    halves_every: int = 100  # alternating: optimizer steps per turn
    separate_documents: bool = False  # positions and state start anew at every document of a row
    metadata: tuple[str, ...] = ()  # fields that stand before every text, without a loss
    metadata_cooldown: float = 0.1  # share of the budget, at its end, that goes without them
    batch_size: int = 32  # rows per optimizer step and process, before accumulation
    gradient_accumulation: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: matrices only, AdamW for the rest
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["cosine", "cosine_with_restarts", "constant"] = "cosine"
    restarts: int = 1  # cycles of cosine_with_restarts
    min_learning_rate: float = 0.05  # share of the peak that the schedule ends at
    warmup: float = 0.05  # share of the budget
    clip: float = 1.0
    target_active_share: float | None = None  # null: no firing-rate loss
    rate_weight: float = 2.0
    dead_zone_warmup: float = 0.0  # share of the budget over which fire levels rise from 1
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where it is fast
    compile: bool = False
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every: int = 250  # optimizer steps; each checkpoint is also evaluated
    keep: int = 2  # newest checkpoints kept besides the best one
    eval_tokens: int = 65536
    log_every: int = 10
    sample_every: int = 250  # steps between printed samples; 0 for none
    num_workers: int = 0
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = "batch_size gradient_accumulation checkpoint_every keep log_every restarts "
        counts += "halves_every"
        budget = "max_steps max_tokens max_minutes"
        require_each(self, f"{counts} eval_tokens", lambda v: v >= 1, "at least 1")
        require_each(
            self, f"{budget} context learning_rate clip", lambda v: v > 0, "a positive number"
        )
        require_each(
            self,
            "weight_decay rate_weight num_workers sample_every",
            lambda v: v >= 0,
            "0 or more",
        )
        require_each(self, "seed", lambda v: 0 <= v < 2**32, "a number in [0, 2**32)")
        require_each(
            self,
            "warmup dead_zone_warmup metadata_cooldown",
            lambda v: 0 <= v < 1,
            "a share of the budget in [0, 1)",
        )
        require_each(
            self, "min_learning_rate", lambda v: 0 <= v <= 1, "a share of the peak in [0, 1]"
        )
        require_each(
            self, "betas", lambda v: all(0 <= beta < 1 for beta in v), "two decays in [0, 1)"
        )
        require_each(self, "target_active_share", lambda v: 0 < v <= 1, "null or within (0, 1]")
        for i, name in enumerate(self.metadata):
            one_of(f"metadata[{i}]", name, METADATA_FIELDS)
        for i, tracker in enumerate(self.report_to):
            one_of(f"report_to[{i}]", tracker, TRACKERS)
        self._check_phases()

    def _check_phases(self) -> None:
        if not self.phases:
            return
        longest, shares = max(p.context for p in self.phases), [p.share for p in self.phases]
        for i, phase in enumerate(self.phases):
            require(
                longest % phase.context == 0,
                f"phases[{i}].context",
                phase.context,
                f"a divisor of the longest phase's context ({longest})",
            )
        require(abs(sum(shares) - 1) < 1e-6, "phases", shares, "shares that sum to 1")
        require(
            self.context in (None, longest),
            "context",
            self.context,
            f"null or that of the longest phase ({longest})",
        )
        require(not self.metadata, "metadata", self.metadata, "none: with phases rows are cut up")

    @property
    def longest_context(self) -> int | None:
        """Tokens per row as they are read from the data; None takes the model's context."""
        return max((p.context for p in self.phases), default=self.context)


@dataclass(frozen=True)
class RunConfig:
    """A whole YAML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    description: str = ""

    def __post_init__(self) -> None:
        kinds = {layer.spiking for layer in self.model.layer_list}
        require(
            self.training.halves is None or len(kinds) == 2,
            "training.halves",
            self.training.halves,
            "null: the model has no two halves, layers with and without spiking: false",
        )


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset by name, or a YAML file, and apply `a.b=c` overrides.

    Raises:
        ConfigError: unknown preset, unreadable YAML, or any bad key, type or value.
    """
    from spikeloom import presets

    tree = presets.read(name_or_path)
    for override in overrides:
        _override(tree, override)
    return parse_run(tree)


def parse_run(tree: dict[str, Any]) -> RunConfig:
    """Build a `RunConfig` from the nested dict that a YAML file holds."""
    tree = dict(tree)
    if isinstance(tree.get("model"), dict):
        tree["model"] = expand_neurons(tree["model"])
    return build(RunConfig, tree, "")


def expand_neurons(model: dict[str, Any]) -> dict[str, Any]:
    """Give every role what `neurons.default` says, under the role's own keys."""
    neurons = model.get("neurons")
    if not isinstance(neurons, dict) or "default" not in neurons:
        return model
    shared = neurons["default"] or {}
    roles = [f.name for f in fields(NeuronsConfig)]
    for key, value in neurons.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"model.neurons.{key}: expected a table of neuron keys, got {value!r}"
            )
    expanded = {role: {**shared, **neurons.get(role, {})} for role in roles}
    unknown = {k: v for k, v in neurons.items() if k not in roles and k != "default"}
    return {**model, "neurons": {**expanded, **unknown}}


def _override(tree: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; list entries are addressed by number (`model.layers.0.mixer=sdsa`)."""
    import yaml

    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {override}: expected key=value, as in training.batch_size=16")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = path.split(".")
    node: Any = tree
    for name in parents:
        node = _child(node, name, path)
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value


def _child(node: Any, name: str, path: str) -> Any:
    child = node[_index(node, name, path)] if isinstance(node, list) else node.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {path}: {name} is a value, not a table")
    return child


def _index(node: list[Any], name: str, path: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {path}: {name} is not an entry of a list of {len(node)}")
    return int(name)
