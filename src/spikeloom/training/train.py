"""`spikeloom train`: text and a config in, a checkpoint directory out.

Reads top to bottom: tokenizer, packed tokens, model, trainer, final checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from spikeloom import tokenizers
from spikeloom.checkpoint import step_of
from spikeloom.config import RunConfig, TrainingConfig
from spikeloom.data.conversations import spoken
from spikeloom.data.packing import Part, is_prepared
from spikeloom.data.sources import documents
from spikeloom.errors import ConfigError, TrainingError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.strict import to_dict
from spikeloom.training.budget import Budget
from spikeloom.training.compiling import compile_mode
from spikeloom.training.curriculum import all_data, make_curriculum
from spikeloom.training.display import Display, Sampler
from spikeloom.training.memory import keep_freed_memory
from spikeloom.training.rows import HeldOut, Rows, make_rows, metadata_of, tokens_per_byte
from spikeloom.training.run_directory import RUN_FILE, claim, is_main, processes, record, staged
from spikeloom.training.start import recorded_start, require_language_model, take_weights
from spikeloom.training.trainer import STATE_FILES, SpikeTrainer


@dataclass(frozen=True)
class Result:
    """What a finished run reports.

    Attributes:
        directory: the checkpoint directory.
        metrics: steps, tokens, seconds and the last held-out figures.
    """

    directory: Path
    metrics: dict[str, Any]


def train(
    run: RunConfig,
    data: str | None,
    out: str | Path,
    *,
    curriculum: str | None = None,
    eval_data: str | None = None,
    tokenizer: str | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    title: str = "training",
) -> Result:
    """Train a model from scratch, from the weights of a checkpoint, or continue.

    Args:
        run: model, tokenizer and training config.
        data: SOURCE of the training text, or a directory that `spikeloom data prepare` made.
        out: checkpoint directory to write.
        curriculum: directory of `spikeloom data curriculum`, in place of data.
        eval_data: SOURCE of held-out text; None sets 5% of the documents aside.
        tokenizer: directory of a tokenizer to use instead of the prepared data's, or a new one.
        start: checkpoint whose weights and tokenizer are taken over (`spikeloom.training.start`).
        resume: continue the run that `out` holds.
        title: what the progress bar says.

    Raises:
        SpikeloomError: a bad config, source or directory; NaN loss; memory or disk used up.
    """
    if (data is None) == (curriculum is None):
        raise ConfigError("give --data or --curriculum, one of them")
    texts = all_data(curriculum) if data is None else data  # type: ignore[arg-type]
    out = Path(out)
    run = run.with_context()
    tokens_per_step = count_tokens_per_step(run.training)
    budget = Budget.of(run.training, tokens_per_step)
    require_trackers(run.training)
    arguments = training_arguments(run.training, out, budget)  # joins the other processes, if any
    with arguments.main_process_first(local=False):
        checkpoint = claim(out, run, resume)
        start = recorded_start(out) if resume and start is None else start
        whence = None
        if start is not None and checkpoint is None:
            whence = require_language_model(start, run, tokenizer)
        words = make_tokenizer(run, texts, out, tokenizer or whence)
        run = fit_to_tokenizer(run, words)
        train_rows, eval_rows = make_rows(run.training, texts, eval_data, words)
        if is_main():
            named = metadata_of(train_rows, run.training)
            told = {"data": data, "eval_data": eval_data, "metadata": named}
            told |= {} if start is None else {"from": str(start)}
            told |= {} if curriculum is None else {"curriculum": curriculum}
            record(out, words, {**to_dict(run), **told})
    with _memory_advice(run.training):
        model = make_model(run)
        if whence is not None:
            take_weights(model, whence)
        display = Display(budget, tokens_per_step, title)
        trainer = make_trainer(
            run.training, arguments, budget, display, model, words, train_rows, eval_rows
        )
        if curriculum is not None:
            part: Part = "all" if eval_data else "train"
            phases = make_curriculum(curriculum, run.training, budget, words, part)
            phases.take_over(trainer, checkpoint)
    return carry_out(trainer, checkpoint, out, tokens_per_step)


def carry_out(
    trainer: SpikeTrainer, checkpoint: Path | None, out: Path, tokens_per_step: int
) -> Result:
    """Train from a checkpoint, or the start, to the end of the budget; leave the best in `out`.

    Raises:
        TrainingError: NaN loss; memory or disk used up.
    """
    with _memory_advice(trainer.config):
        _restore_clock(trainer.budget, checkpoint)
        _run(trainer, checkpoint)
    return _finish(trainer, out, tokens_per_step)


def make_model(run: RunConfig) -> SpikeloomForCausalLM:
    """A model at its initial weights, which the seed decides."""
    keep_freed_memory()
    set_seed(run.training.seed)
    model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model))
    if run.training.gradient_checkpointing:  # later transformers call it by another name
        name = "activation_checkpointing_enable"
        enable = getattr(model, name, None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def count_tokens_per_step(config: TrainingConfig) -> int:
    """Tokens that one optimizer step reads, over all processes."""
    assert config.context is not None
    return config.context * config.batch_size * config.gradient_accumulation * processes()


def fit_to_tokenizer(run: RunConfig, words: Any) -> RunConfig:
    """The run with the vocabulary that the tokenizer really has.

    Raises:
        ConfigError: the tokenizer lacks the document separator.
    """
    if words.bos_token_id is None or words.eos_token_id is None:
        raise ConfigError("the tokenizer has no <|endoftext|> token: train one with spikeloom")
    model = replace(
        run.model,
        vocab_size=tokenizers.size(words),
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return replace(run, model=model)


def make_trainer(
    config: TrainingConfig,
    arguments: TrainingArguments,
    budget: Budget,
    display: Display,
    model: SpikeloomForCausalLM,
    words: Any,
    train_rows: Rows,
    eval_rows: HeldOut,
) -> SpikeTrainer:
    """The Trainer of a run, with our display in place of its own."""
    callbacks: list[TrainerCallback] = [BudgetCallback(budget), display]
    if config.sample_every:
        callbacks.append(Sampler(words, display.console, config.sample_every))
    trainer = SpikeTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=words,
        # rows are whole: the Trainer's own would pad them, and mask what it did not pad
        data_collator=default_collate,
        callbacks=callbacks,
        config=config,
        budget=budget,
        tokens_per_byte=tokens_per_byte(train_rows.packed),
        eval_tokens_per_byte=tokens_per_byte(eval_rows.packed),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(
    config: TrainingConfig, out: Path, budget: Budget, *, one_shape: bool = True
) -> TrainingArguments:
    """Our config in the Trainer's words; `one_shape` if all batches have one."""
    cuda = torch.cuda.is_available()
    mode = compile_mode(config, processes(), one_shape=one_shape) if config.compile else None
    return TrainingArguments(
        output_dir=str(out),
        max_steps=budget.max_steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        max_grad_norm=config.clip,
        bf16=mixed_precision(config.dtype),
        torch_compile=config.compile,
        torch_compile_mode=mode,
        use_cpu=not cuda,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ and not cuda else None,
        ddp_find_unused_parameters=False,
        dataloader_num_workers=config.num_workers,
        dataloader_persistent_workers=config.num_workers > 0,  # else they start anew at every pass
        dataloader_pin_memory=cuda,
        # else every batch waits until the GPU has done all that it was given
        accelerator_config={"non_blocking": cuda},
        dataloader_drop_last=True,
        eval_strategy="steps",
        eval_steps=config.checkpoint_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        seed=config.seed,
        data_seed=config.seed,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
    )


def mixed_precision(dtype: str) -> bool:
    """Whether products run in bfloat16; `auto` asks the hardware."""
    if dtype != "auto":
        return dtype == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class BudgetCallback(TrainerCallback):
    """Starts the clock, and ends the run, saved and evaluated, when the budget is used up."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.budget.start()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.budget.read_clock()  # right before the scheduler asks for the next learning rate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.budget.progress(state.global_step) >= 1.0:
            control.should_evaluate = control.should_save = control.should_training_stop = True
            control.should_log = True
        return control


def make_tokenizer(run: RunConfig, data: str, out: Path, given: str | Path | None) -> Any:
    """Of the run in `out`; else the given one, else the prepared data's, or one trained on it."""
    if (out / RUN_FILE).exists():
        return tokenizers.load(out)
    if given is not None:
        return tokenizers.load(given)
    if is_prepared(data):
        return tokenizers.load(Path(data) / "tokenizer")
    texts = spoken(data) if run.training.chat else documents(data)
    return tokenizers.train(run.tokenizer.kind, texts, run.tokenizer.vocab_size)


def _restore_clock(budget: Budget, checkpoint: Path | None) -> None:
    """Take up the seconds that earlier sittings used."""
    if checkpoint is not None:
        history = json.loads((checkpoint / STATE_FILES[0]).read_text())["log_history"]
        budget.take_up(max((entry.get("seconds", 0.0) for entry in history), default=0.0))


def _run(trainer: SpikeTrainer, checkpoint: Path | None) -> None:
    """Train on from a checkpoint, or from the start, as long as the budget lasts."""
    disable_progress_bar()  # of the weight files; ours shows the run
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    if checkpoint is not None and trainer.budget.progress(step_of(checkpoint)) >= 1.0:
        trainer.take_up(checkpoint)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


@contextmanager
def _memory_advice(config: TrainingConfig) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(config) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise _out_of_memory(config) from error
        raise


def _out_of_memory(config: TrainingConfig) -> TrainingError:
    return TrainingError(
        f"out of memory: lower training.batch_size (now {config.batch_size}) and raise "
        f"training.gradient_accumulation (now {config.gradient_accumulation}) to match, shorten "
        "training.context, or set training.gradient_checkpointing=true"
    )


def _finish(trainer: SpikeTrainer, out: Path, tokens_per_step: int) -> Result:
    """Write the best weights and the log to `out` itself, file by file, each in one move."""
    state = trainer.state
    held_out = {entry["step"]: entry for entry in state.log_history if "eval_loss" in entry}
    best = held_out[max(held_out)]
    if state.best_model_checkpoint is not None:
        best = held_out[step_of(Path(state.best_model_checkpoint))]
    metrics = {
        "steps": state.global_step,
        "tokens": state.global_step * tokens_per_step,
        "seconds": round(trainer.budget.seconds, 1),
        **{k: v for k, v in best.items() if k.startswith("eval_")},
    }
    if is_main():
        with staged(out) as staging:
            trainer.save_model(str(staging))
            state.save_to_json(str(staging / STATE_FILES[0]))
            (staging / "training.json").write_text(json.dumps(metrics, indent=2))
    return Result(out, metrics)


def require_trackers(config: TrainingConfig) -> None:
    for tracker in config.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(f"training.report_to: {tracker} is missing: pip install {tracker}")
