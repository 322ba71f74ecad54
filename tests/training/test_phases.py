"""A run whose rows grow: every token is read once, in the same steps, and it can be resumed."""

import pytest
import torch
from tiny_runs import TEXT, interrupted, losses_of, run_of, state_of, weights_of

from spikeloom.config import PhaseConfig
from spikeloom.data.packing import TokenRows, pack
from spikeloom.errors import ConfigError
from spikeloom.tokenizers import train as train_tokenizer
from spikeloom.training.phases import cut_rows, phase_at
from spikeloom.training.train import train
from spikeloom.training.trainer import SpikeTrainer

PHASES = [
    {"context": 4, "share": 0.3},
    {"context": 8, "share": 0.4},
    {"context": 16, "share": 0.3},
]
STEPS = 10


def seen_shapes(patch):
    """Shapes of the rows that the model is trained on, in order."""
    shapes, compute = [], SpikeTrainer.compute_loss

    def watch(self, model, inputs, *args, **kwargs):
        if model.training:
            shapes.append(tuple(inputs["input_ids"].shape))
        return compute(self, model, inputs, *args, **kwargs)

    patch.setattr(SpikeTrainer, "compute_loss", watch)
    return shapes


def test_phases_follow_the_budget():
    phases = [PhaseConfig(**phase) for phase in PHASES]
    contexts = [phase_at(step / STEPS, phases).context for step in range(STEPS + 1)]
    assert contexts == [4] * 3 + [8] * 4 + [16] * 4


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("context", [4, 8])
def test_cut_rows_are_the_rows_of_that_context(context, separate, text):
    packed = pack(text, train_tokenizer("char", iter([TEXT]), 300))
    whole = TokenRows(packed, 16, position_ids=separate)
    short = TokenRows(packed, context, position_ids=separate)
    batch = {k: torch.stack([row[k] for row in whole]) for k in whole[0]}
    cut = cut_rows(batch, context)
    for key, rows in cut.items():
        wanted = torch.stack([short[i][key] for i in range(len(rows))])
        assert torch.equal(rows, wanted), key
    assert cut_rows(batch, 16) is batch


def test_tokens_per_step_stay(text, tmp_path, monkeypatch):
    shapes = seen_shapes(monkeypatch)
    result = train(run_of(max_steps=STEPS, phases=PHASES, batch_size=2), text, tmp_path / "run")
    assert shapes == [(8, 4)] * 3 + [(4, 8)] * 4 + [(2, 16)] * 3
    assert result.metrics["tokens"] == STEPS * 32
    logged = [e["context"] for e in state_of(result.directory)["log_history"] if "context" in e]
    assert logged == [4] * 3 + [8] * 4 + [16] * 3


@pytest.mark.parametrize("batches", [3, 5])  # after the last step of a phase, and inside one
def test_resumed_in_the_middle(batches, text, tmp_path, monkeypatch):
    run = run_of(max_steps=STEPS, phases=PHASES, separate_documents=True, keep=9)
    whole = train(run, text, tmp_path / "whole").directory
    interrupted(monkeypatch, run, text, tmp_path / "resumed", batches)
    again = train(run, text, tmp_path / "resumed", resume=True).directory
    assert losses_of(whole) == losses_of(again)
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"phases": [{"context": 0, "share": 1}]},
            r"training.phases\[0\].context: 0 is impossible",
        ),
        ({"phases": [{"context": 8, "share": 1.5}]}, r"training.phases\[0\].share: 1.5 is imposs"),
        (
            {"phases": [{"context": 6, "share": 0.5}, {"context": 16, "share": 0.5}]},
            r"training.phases\[0\].context: 6 is impossible, expected a divisor .* \(16\)",
        ),
        ({"phases": PHASES[:2]}, r"training.phases: \[0.3, 0.4\] is impossible, .* sum to 1"),
        ({"phases": [{"contxt": 8, "share": 1}]}, r"phases\[0\].contxt: unknown key .*'context'"),
        ({"phases": [{"context": 8}]}, "'share' is missing"),
        ({"phases": PHASES, "context": 8}, "training.context: 8 is impossible, .*longest phase"),
        ({"phases": PHASES, "metadata": ["category"]}, "training.metadata: .* with phases"),
    ],
)
def test_impossible_phases_are_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        run_of(**training)
