"""Backends beside PyTorch, on the same config and checkpoint directory.

`BACKENDS` says what each can run, and is the only place where one is chosen: by `train`, which
writes a checkpoint directory, and by `generator`, which streams text from one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from spikeloom.config import (
    EXTRAS,
    MIXERS,
    MLPS,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    require_causal,
)
from spikeloom.errors import ConfigError, MissingExtraError, did_you_mean
from spikeloom.strict import brief

# Training settings that are off (or null) by default.
SWITCHES = (
    "compile", "gradient_checkpointing", "report_to", "separate_documents", "metadata", "phases",
    "halves", "chat", "target_firing_rate", "target_active_share_from", "teacher",
)  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """What a backend can run, and where it is.

    Attributes:
        learner: `module:class` that `backends.training` drives; None where PyTorch trains.
        engine: `module:class` that reads a token at a time.
        slow_engine: likewise, for what `engine` lacks; None if there is none.
        mixers, mlps, dtypes: what it has.
        decodes, decodes_mlps: the mixers and MLPs that its engine has.
        extras, decodes_extras: what beyond the plain decoder it has, and what its engine has.
        switches: which of the training settings that are off by default it has.
        resumes: whether an interrupted run can go on.
        reads_quantised: whether it reads weights of 4 or 8 bits (`backends.mlx.quantize`).
        starts: whether a run can start on the weights of a checkpoint.
        extra: of spikeloom, that brings the package of the same name that it needs.
    """

    learner: str | None
    engine: str
    slow_engine: str | None = None
    mixers: tuple[str, ...] = MIXERS
    mlps: tuple[str, ...] = MLPS
    decodes: tuple[str, ...] = MIXERS
    decodes_mlps: tuple[str, ...] = MLPS
    extras: tuple[str, ...] = EXTRAS
    decodes_extras: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("auto", "float32", "bfloat16")
    switches: tuple[str, ...] = SWITCHES
    resumes: bool = True
    reads_quantised: bool = False
    starts: bool = True
    extra: str | None = None


ATTENTIONS = ("attention", "sdsa", "sdsa_hadamard")
PLAIN_MLPS = ("spiking", "relu2", "swiglu", "none")

BACKENDS = {
    "torch": Backend(
        None,
        "spikeloom.inference.engine:Engine",
        slow_engine="spikeloom.backends.stepwise:Engine",
        decodes=("attention", "sdsa"),
        decodes_mlps=PLAIN_MLPS,
        decodes_extras=("gain_rank",),
    ),
    "numpy": Backend(
        "spikeloom.backends.numpy.training:Learner",
        "spikeloom.backends.numpy.recurrent:Engine",
        mixers=ATTENTIONS,
        decodes=ATTENTIONS,
        mlps=PLAIN_MLPS,
        decodes_mlps=PLAIN_MLPS,
        extras=("gain_rank",),
        decodes_extras=("gain_rank",),
        dtypes=("auto", "float32"),
        switches=(),
        resumes=False,
        starts=False,
    ),
    "mlx": Backend(
        "spikeloom.backends.mlx.training:Learner",
        "spikeloom.backends.mlx.engine:Engine",
        mixers=ATTENTIONS,
        decodes=ATTENTIONS,
        mlps=PLAIN_MLPS,
        decodes_mlps=PLAIN_MLPS,
        extras=("gain_rank",),
        decodes_extras=("gain_rank",),
        switches=("compile",),
        resumes=False,
        reads_quantised=True,
        starts=False,
        extra="mlx",
    ),
}


def find(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BACKENDS:
        raise ConfigError(
            f"--backend {name}: unknown{did_you_mean(name, BACKENDS)}: use {', '.join(BACKENDS)}"
        )
    return BACKENDS[name]


def train(
    name: str,
    run: RunConfig,
    data: str | None,
    out: str | Path,
    resume: bool = False,
    start: str | Path | None = None,
    curriculum: str | None = None,
    **options: Any,
) -> Any:
    """Train with a backend: arguments and result of `spikeloom.training.train.train`.

    Raises:
        ConfigError: the backend lacks something that the run needs.
        MissingExtraError: its package is not installed.
    """
    backend = find(name)
    check(name, run.model, run.training, resume, start is not None)
    if backend.learner is None:
        from spikeloom.training.train import train as train_in_torch

        return train_in_torch(
            run, data, out, resume=resume, start=start, curriculum=curriculum, **options
        )
    if curriculum is not None or data is None:
        raise ConfigError(f"--curriculum: the {name} backend has none, use --backend torch")
    from spikeloom.backends.training import train as train_elsewhere

    return train_elsewhere(_named(backend.learner, backend.extra), run, data, out, **options)


def generator(name: str, directory: str | Path) -> Any:
    """A `spikeloom.inference.generate.Generator` on a checkpoint directory.

    Raises:
        CheckpointError: it is not one, is damaged, or its tokenizer does not fit.
        ConfigError: the backend lacks what the model needs.
        MissingExtraError: its package is not installed.
    """
    from spikeloom import tokenizers
    from spikeloom.checkpoint import read_config, read_json, require_head, resolve
    from spikeloom.inference.generate import Generator

    backend, path = find(name), resolve(directory)
    config = read_config(path)
    require_head(path, "SpikeloomForCausalLM")
    if (how := read_json(path).get("quantization")) and not backend.reads_quantised:
        able = " or ".join(n for n, b in BACKENDS.items() if b.reads_quantised)
        raise ConfigError(
            f"{path}: quantization={how}: the {name} backend cannot run it, use --backend {able}"
        )
    check(name, config)
    engine = backend.engine
    if backend.slow_engine is not None and (missing := _lacks(backend, config)) is not None:
        form = f"the {name} backend has no event-driven form of {missing}"
        print(f"{form}: decoding with the model", file=sys.stderr)
        engine = backend.slow_engine
    return Generator(
        _named(engine, backend.extra).load(path), tokenizers.load(path, config.vocab_size)
    )


def check(
    name: str,
    model: ModelConfig,
    training: TrainingConfig | None = None,
    resume: bool = False,
    start: bool = False,
) -> None:
    """Refuse, by field and value, what a backend lacks, and name the backends that can.

    Raises:
        ConfigError: in one line.
    """
    require_causal(model)
    wanted = (model, training, resume, start)
    if (missing := _lacks(find(name), *wanted)) is None or _decodes_slowly(find(name), training):
        return
    able = [
        n for n, b in BACKENDS.items() if _lacks(b, *wanted) is None or _decodes_slowly(b, training)
    ]
    can = f"use --backend {' or '.join(able)}" if able else "no backend has all that it needs"
    raise ConfigError(f"{missing}: the {name} backend cannot run it, {can}")


def _decodes_slowly(backend: Backend, training: TrainingConfig | None) -> bool:
    return training is None and backend.slow_engine is not None


def _lacks(
    backend: Backend,
    model: ModelConfig,
    training: TrainingConfig | None = None,
    resume: bool = False,
    start: bool = False,
) -> str | None:
    """The first `field=value` that is missing: to train, or, without `training`, to decode."""
    mixers = backend.decodes if training is None else backend.mixers
    mlps = backend.decodes_mlps if training is None else backend.mlps
    for i, layer in enumerate(model.layers):
        if layer.mixer not in mixers:
            return f"model.layers[{i}].mixer={layer.mixer}"
        if layer.mlp not in mlps:
            return f"model.layers[{i}].mlp={layer.mlp}"
    has = backend.decodes_extras if training is None else backend.extras
    for place, extra in model.extras().items():
        if extra not in has:
            return f"model.{place}"
    if training is not None:
        if training.dtype not in backend.dtypes:
            return f"training.dtype={training.dtype}"
        for switch in SWITCHES:
            if (value := getattr(training, switch)) and switch not in backend.switches:
                return f"training.{switch}{brief(value)}"
    if start and not backend.starts:
        return "--from"
    return "--resume" if resume and not backend.resumes else None


def _named(path: str, extra: str | None) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").partition(".")[0] != extra:
            raise
        raise MissingExtraError(extra, extra) from None
