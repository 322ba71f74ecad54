"""A run: its tokenizer, its budget and recipe, and all three parts of a file together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from spikeloom.config.model import ModelConfig
from spikeloom.strict import one_of, require, require_each

METADATA_FIELDS = ("category", "source", "id")
TRACKERS = ("tensorboard", "trackio", "wandb")


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
    chat: bool = False  # records are conversations, the loss is on the answers (data.conversations)
    metadata: tuple[str, ...] = ()  # fields that stand before every text, without a loss
    metadata_cooldown: float = 0.1  # share of the budget, at its end, that goes without them
    batch_size: int = 32  # rows per optimizer step and process, before accumulation
    gradient_accumulation: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: matrices only, AdamW for the rest
    learning_rate: float = 2e-3
    # factor of the learning rate per layer, from the head down (training.layer_rates)
    layer_decay: float = 1.0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["cosine", "cosine_with_restarts", "constant"] = "cosine"
    restarts: int = 1  # cycles of cosine_with_restarts
    min_learning_rate: float = 0.05  # share of the peak that the schedule ends at
    warmup: float = 0.05  # share of the budget
    clip: float = 1.0
    target_active_share: float | None = None  # null: no loss on weights touched
    # the target until dead zones are whole; then it falls to the other (training.pressure)
    target_active_share_from: float | None = None
    target_firing_rate: float | None = None  # null: no loss on the channel rate of every neuron
    rate_weight: float = 2.0  # nats per unit above the share, and per unit off the rate
    dead_zone_warmup: float = 0.0  # share of the budget over which fire levels rise from 1
    teacher: str | None = None  # checkpoint whose predictions are learned, too (distillation)
    teacher_weight: float = 1.0  # nats of divergence from the teacher against nats of loss
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where it is fast
    compile: bool = False  # torch.compile; on one GPU with CUDA graphs (training.compiling)
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every: int = 250  # optimizer steps; each checkpoint is also evaluated
    keep: int = 2  # newest checkpoints kept besides the best one
    eval_tokens: int = 65536
    log_every: int = 10
    sample_every: int = 250  # steps between printed samples; 0 for none
    num_workers: int = 0
    # a phase of a curriculum ends early when, over so many steps, the smoothed loss has fallen by
    # less than this share of itself
    converged_over: int = 100
    converged: float = 0.01
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = "batch_size gradient_accumulation checkpoint_every keep log_every restarts "
        counts += "halves_every converged_over"
        budget = "max_steps max_tokens max_minutes"
        require_each(self, f"{counts} eval_tokens", lambda v: v >= 1, "at least 1")
        require_each(
            self, f"{budget} context learning_rate clip", lambda v: v > 0, "a positive number"
        )
        require_each(
            self,
            "weight_decay rate_weight teacher_weight num_workers sample_every",
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
        require_each(self, "layer_decay", lambda v: 0 < v <= 1, "a factor in (0, 1]")
        require_each(
            self, "betas", lambda v: all(0 <= beta < 1 for beta in v), "two decays in [0, 1)"
        )
        require_each(self, "target_active_share", lambda v: 0 < v <= 1, "null or within (0, 1]")
        self._check_falling_target()
        require_each(self, "target_firing_rate", lambda v: 0 < v < 1, "null or within (0, 1)")
        require_each(self, "converged", lambda v: 0 <= v < 1, "a share of the loss in [0, 1)")
        for i, name in enumerate(self.metadata):
            one_of(f"metadata[{i}]", name, METADATA_FIELDS)
        for i, tracker in enumerate(self.report_to):
            one_of(f"report_to[{i}]", tracker, TRACKERS)
        self._check_phases()
        plain = not (self.metadata or self.phases)
        require(plain or not self.chat, "chat", self.chat, "false: metadata and phases need text")

    def _check_falling_target(self) -> None:
        first, last = self.target_active_share_from, self.target_active_share
        if first is None:
            return
        wanted = f"a share from target_active_share ({last}) to 1"
        if last is None:
            wanted = "null without target_active_share to fall to"
        falls = last is not None and last <= first <= 1
        require(falls, "target_active_share_from", first, wanted)

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

    def with_context(self) -> RunConfig:
        """The length of rows decided, and a model that knows at least as many positions."""
        known = self.model.max_position_embeddings
        context = self.training.longest_context or known
        model = replace(self.model, max_position_embeddings=max(known, context))
        return replace(self, model=model, training=replace(self.training, context=context))
