"""Training by a curriculum: phases, their ends, and going on in the middle of one."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from test_resume import same_weights
from tiny_runs import MODEL, TEXT, interrupted, losses_of, run_of, state_of

from spikeloom.errors import ConfigError, DataError
from spikeloom.training.curriculum import read_phases
from spikeloom.training.train import train

SAM = {
    "embedding_size": 16,
    "layers": [{"mixer": "recurrent_lif", "mlp": "none", "gate": "channel"}],
    "neurons": {
        "default": {"kind": "lif", "surrogate": "sigmoid"},
        "mixer_output": {
            "beta": 0.9,
            "learn_beta": True,
            "homeostasis": 0.1,
            "diversity": 0.5,
            "stress_gain": 0.5,
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two phases: words in rows of 4, sentences in rows of 16."""
    out = tmp_path_factory.mktemp("curriculum")
    sentences = TEXT.splitlines()
    words = sorted(set(TEXT.replace(".", "").split()))
    for name, texts in {"words": words * 4, "sentences": sentences * 2}.items():
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (out / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    write_phases(out, words=(4, 0.5), sentences=(64, 0.5))
    return out


def write_phases(out, **phases):
    entries = [
        {"name": name, "data": f"{name}.jsonl", "context": context, "share": share}
        for name, (context, share) in phases.items()
    ]
    (out / "phases.yaml").write_text(yaml.safe_dump({"phases": entries}), "utf-8")


def by_curriculum(folder, run, out, **options):
    return train(run, None, out, curriculum=str(folder), **options).directory


def kept(directory):
    return state_of(directory)["stateful_callbacks"]["Curriculum"]["attributes"]


def test_a_phase_ends_with_its_share_of_the_budget(folder, tmp_path):
    out = by_curriculum(folder, run_of(max_steps=8, converged_over=100), tmp_path / "run")
    assert kept(out)["history"] == [["words", 4, "its share of the budget is used"]]
    assert kept(out)["phase"] == 1
    assert kept(out)["taken"] == kept(out)["steps"] == 4


def test_a_phase_ends_when_its_loss_has_converged(folder, tmp_path):
    # nothing is learned at this rate: the second look sees a loss that did not fall
    run = run_of(max_steps=8, learning_rate=1e-12, converged_over=1)
    out = by_curriculum(folder, run, tmp_path / "run")
    assert kept(out)["history"] == [["words", 2, "its loss has converged"]]


def test_the_last_phase_lasts(folder, tmp_path):
    run = run_of(max_steps=8, learning_rate=1e-12, converged_over=1)
    out = by_curriculum(folder, run, tmp_path / "run")
    assert state_of(out)["global_step"] == 8
    assert kept(out)["steps"] == 6


@pytest.mark.parametrize("batches", [3, 7], ids=["in the first phase", "in the second"])
def test_resume_in_the_middle_of_a_phase_is_bit_exact(folder, batches, tmp_path, monkeypatch):
    run = run_of(max_steps=8, model=SAM, target_firing_rate=0.1, keep=9)
    whole = by_curriculum(folder, run, tmp_path / "whole")
    out = tmp_path / "resumed"
    interrupted(monkeypatch, run, None, out, batches, curriculum=str(folder))
    assert kept(out / f"checkpoint-{batches - 1}")["taken"] == 2  # of four in the phase
    by_curriculum(folder, run, out, resume=True)
    for name in (".", "checkpoint-4", "checkpoint-6", "checkpoint-8"):
        assert same_weights(whole / name, out / name), name
    assert losses_of(whole) == losses_of(out)
    assert kept(whole) == kept(out)


def test_every_step_reads_as_many_tokens(folder, tmp_path, monkeypatch):
    from spikeloom.training.trainer import SpikeTrainer

    shapes, step = [], SpikeTrainer.training_step

    def watch(self, model, inputs, *args):
        shapes.append(tuple(inputs["input_ids"].shape))
        return step(self, model, inputs, *args)

    monkeypatch.setattr(SpikeTrainer, "training_step", watch)
    by_curriculum(folder, run_of(max_steps=4), tmp_path / "run")
    assert shapes == [(16, 4), (16, 4), (4, 16), (4, 16)]  # 64 is cut to the run's context


def test_batches_go_through_all_rows_before_any_comes_again(folder, tmp_path):
    from spikeloom.data.packing import TokenRows
    from spikeloom.training.budget import Budget
    from spikeloom.training.curriculum import Curriculum

    class Stream:
        tokens = torch.arange(60).numpy()
        documents = torch.zeros(1).numpy()

        def __len__(self):
            return 60

    config = replace(run_of().training, context=16, batch_size=1)
    curriculum = Curriculum(read_phases(folder), [TokenRows(Stream(), 4)] * 2, config, Budget(100))
    seen = torch.cat([curriculum.next_batch()["input_ids"][:, 0] for _ in range(15)])
    assert sorted(seen[:15].tolist()) == list(range(0, 60, 4))
    assert sorted(seen[15:30].tolist()) == list(range(0, 60, 4))
    assert seen[:15].tolist() != seen[15:30].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phases: []", "at least one phase"),
        ("phases: [{name: a, data: words.jsonl, context: 0, share: 0.5}]", "phases[0].context: 0"),
        ("phases: [{name: a, data: words.jsonl, context: 8, share: 2}]", "phases[0].share: 2"),
        ("phases: [{name: a, data: no.jsonl, context: 8, share: 0.5}]", "phases[0].data"),
        ("phases: [{name: a, dta: words.jsonl, context: 8}]", "did you mean 'data'"),
        ("phases: [", "not readable as YAML"),
    ],
)
def test_bad_phases_are_refused(text, message, folder, tmp_path):
    (tmp_path / "phases.yaml").write_text(text, "utf-8")
    (tmp_path / "words.jsonl").write_text('{"text": "a"}\n', "utf-8")
    with pytest.raises((ConfigError, DataError)) as refusal:
        read_phases(tmp_path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_curriculum_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no curriculum"):
        train(run_of(), None, tmp_path / "run", curriculum=str(tmp_path))
    with pytest.raises(ConfigError, match="one of them"):
        train(run_of(), "a.txt", tmp_path / "run", curriculum=str(tmp_path))


def test_from_the_command_line_with_what_the_data_verb_made(text, tmp_path, monkeypatch, capsys):
    from spikeloom.cli import main
    from spikeloom.data.curriculum import build_curriculum

    made = tmp_path / "phases"
    made.mkdir()
    story = "".join(f"The {line}\n" for line in TEXT.splitlines() * 3)
    (tmp_path / "text.txt").write_text(story, "utf-8")
    build_curriculum(str(tmp_path / "text.txt"), made, progress=False)
    names = [phase.name for phase in read_phases(made)]
    assert names[0] == "words"
    assert len(names) > 1
    config = tmp_path / "tiny.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "model": {**MODEL, **SAM},
                "tokenizer": {"kind": "char", "vocab_size": 300},
                "training": {"batch_size": 1, "eval_tokens": 64, "dtype": "float32"},
            }
        ),
        "utf-8",
    )
    words = ["train", config, "--curriculum", made, "--eval-data", text, "--max-steps", 4]

    def spikeloom(*arguments):
        monkeypatch.setattr("sys.argv", ["spikeloom", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    code, said = spikeloom(*words, "--out", tmp_path / "run")
    assert code == 0, said.err
    assert kept(tmp_path / "run")["phase"] >= 1
    code, said = spikeloom(*words, "--out", tmp_path / "other", "--backend", "numpy")
    assert code == 2
    assert said.err.count("\n") == 1
    code, said = spikeloom("train", config, "--out", tmp_path / "other", "--max-steps", 1)
    assert code == 2
    assert said.err == "error: give --data or --curriculum, one of them\n"
