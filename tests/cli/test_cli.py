"""The command line: every verb on one tiny checkpoint, and one line for whatever is wrong."""

import json
import random
import shutil
import subprocess
import sys
import time
import typing

import pytest
import torch
import typer
from safetensors.torch import save_file

from spikeloom import cli, tokenizers
from spikeloom.errors import DataError
from spikeloom.training.trainer import SpikeTrainer

CONFIG = """\
model:
  vocab_size: 300
  hidden_size: 32
  num_hidden_layers: 2
  num_attention_heads: 4
  intermediate_size: 48
  max_position_embeddings: 16
  layers: [{mixer: sdsa, mlp: spiking}, {mixer: attention, mlp: relu2}]
tokenizer: {kind: char, vocab_size: 300}
training: {batch_size: 4, checkpoint_every: 5, log_every: 1, eval_tokens: 64, dtype: float32}
"""


def verbs_of(app, path=()):
    """What can be typed, and the function behind it: `("data", "clean"), clean`."""
    for command in app.registered_commands:
        yield (*path, command.name or command.callback.__name__), command.callback
    for group in app.registered_groups:
        name = group.typer_instance.info.name
        yield from verbs_of(group.typer_instance, (*path, name) if isinstance(name, str) else path)


VERBS = dict(verbs_of(cli.app))


@pytest.fixture(autouse=True, scope="module")
def quiet_machine(tmp_path_factory):
    """One thread, and a cache of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKELOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """`tiny.yaml`, `text.txt`, and `run`: a checkpoint that the command line trained."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(CONFIG)
    chance = random.Random(0)
    words = ["the cat", "sat on", "a red mat", "and saw", "one bird", "über alles"]
    lines = [" ".join(chance.choices(words, k=5)) + ".\n" for _ in range(40)]
    (home / "text.txt").write_text("".join(lines), "utf-8")
    arguments = ["train", home / "tiny.yaml", "--data", home / "text.txt", "--out", home / "run"]
    arguments += ["--max-steps", "10", "--json", home / "train.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spikeloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return home


def read(file):
    return json.loads(file.read_text("utf-8"), parse_constant=pytest.fail)


# Help


def test_help_is_quick_and_light():
    code = "import sys; sys.argv = ['spikeloom', '--help']; from spikeloom.cli import main\n"
    code += "try: main()\nfinally: print([m for m in ('torch', 'numpy') if m in sys.modules])"
    seconds = []
    for _ in range(3):  # other work may share the machine
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(time.monotonic() - began)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("[]")
    assert all(verb[0] in done.stdout for verb in VERBS)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself_and_writes_json(verb, spikeloom):
    done = spikeloom(*verb, "--help")
    assert done.code == 0
    assert "--json" in done.out
    function = VERBS[verb]
    assert (function.__doc__ or "").splitlines()[0] in done.out
    hints = typing.get_type_hints(function, include_extras=True)
    for name, hint in hints.items():
        if name != "return":
            (option,) = [m for m in typing.get_args(hint)[1:] if hasattr(m, "help")]
            assert option.help or option.metavar, f"{verb} {name} has no help"


def test_no_verb_shows_the_help(spikeloom):
    assert "Usage" in "".join(spikeloom()[1:])


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["train"], ["train", "spikeloom-1m"], ["info", "x", "--nonsense"]],
    ids=str,
)
def test_usage_errors(arguments, spikeloom):
    done = spikeloom(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


# Verbs


def test_train(home):
    report = read(home / "train.json")
    assert report["steps"] == 10
    assert report["tokens"] == 10 * 4 * 16
    assert {"directory", "seconds", "eval_loss", "eval_bits_per_byte", "eval_active_share"} <= set(
        report
    )


def test_a_budget_on_the_command_line_replaces_that_of_the_file(home, spikeloom, tmp_path):
    settings = ["--set", "training.max_steps=1000", "--set", "training.max_minutes=60"]
    settings += ["--max-tokens", "128", "--twin", "dense", "--json", tmp_path / "x.json"]
    done = spikeloom("train", home / "tiny.yaml", "--data", home / "text.txt", "--out",
                     tmp_path / "run", *settings)  # fmt: skip
    assert done.code == 0, done.err
    assert read(tmp_path / "x.json")["steps"] == 2
    assert read(tmp_path / "x.json")["eval_active_share"] == 1.0


def test_resume(home, spikeloom, tmp_path):
    out = shutil.copytree(home / "run", tmp_path / "run")
    done = spikeloom("train", home / "tiny.yaml", "--data", home / "text.txt", "--out", out,
                     "--max-steps", 12, "--resume", "--json", tmp_path / "x.json")  # fmt: skip
    assert done.code == 0, done.err
    assert "from checkpoint-10" in done.err
    assert read(tmp_path / "x.json")["steps"] == 12


def test_eval(home, spikeloom, tmp_path):
    done = spikeloom("eval", home / "run", "--data", home / "text.txt", "--part", "eval",
                     "--json", tmp_path / "new" / "x.json")  # fmt: skip
    assert done.code == 0, done.err
    report = read(tmp_path / "new" / "x.json")
    for key in ("tokens", "bytes", "loss", "perplexity", "bits_per_byte", "active_share"):
        assert report[key] > 0, key
    assert 0 < report["channel_rate"] < 1
    assert report["mean_count"] > 0
    assert len(report["per_layer"]) == 9
    assert set(report["synops"]) >= {"dense_macs", "acs", "macs"}
    assert set(report["energy_pj"]) >= {"dense", "spiking", "ratio"}
    assert report["protocol"]["context"] == 16
    assert report["protocol"]["part"] == "eval"
    assert f"{report['bits_per_byte']:.4f}" in done.out


def test_compare(home, spikeloom, tmp_path):
    done = spikeloom("compare", home / "run", home / "run", "--data", home / "text.txt",
                     "--no-speed", "--out", tmp_path, "--json", tmp_path / "x.json")  # fmt: skip
    assert done.code == 0, done.err
    assert len(read(tmp_path / "x.json")["rows"]) == 2
    assert (tmp_path / "comparison.md").read_text().strip() == done.out.strip()
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_generate(home, spikeloom, tmp_path):
    def generate(*options):
        file = tmp_path / "x.json"
        done = spikeloom("generate", home / "run", "--prompt", "the cat", "--max-new-tokens", 20,
                         *options, "--json", file)  # fmt: skip
        assert done.code == 0, done.err
        report = read(file)
        assert done.out == f"the cat{report['text']}\n"
        assert report["prompt"] == "the cat"
        assert 1 <= report["tokens"] <= 20
        assert 0 < report["active_share"] < 1
        return report["text"]

    assert generate("--seed", 3) == generate("--seed", 3)
    assert generate("--seed", 3) != generate("--seed", 4)
    assert generate("--temperature", 0) == generate("--temperature", 0, "--seed", 5)


def test_generate_continues_every_line(home, spikeloom, tmp_path):
    file, result = tmp_path / "prompts.txt", tmp_path / "x.json"
    file.write_text("the cat\n\nthe dog\n", encoding="utf-8")
    done = spikeloom("generate", home / "run", "--prompts", file, "--max-new-tokens", 5,
                     "--seed", 3, "--json", result)  # fmt: skip
    assert done.code == 0, done.err
    texts = read(result)
    assert [text["prompt"] for text in texts] == ["the cat", "the dog"]
    assert done.out == "".join(f"{t['prompt']}{t['text']}\n\n" for t in texts)


def test_generate_refuses_prompts_twice_or_none(home, spikeloom, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n", encoding="utf-8")
    done = spikeloom("generate", home / "run", "--prompts", file)
    assert (done.code, "no prompt" in done.err) == (2, True)
    done = spikeloom("generate", home / "run", "--prompts", file, "--prompt", "the")
    assert (done.code, "--prompts goes with" in done.err) == (2, True)


def test_generate_without_a_prompt_starts_a_document(home, spikeloom):
    assert spikeloom("generate", home / "run", "--max-new-tokens", 2).code == 0


def test_chat(home, spikeloom, tmp_path, monkeypatch):
    turns = iter(["the cat", "", "and", "/reset", "the cat", "/quit", "never"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(turns))
    options = ["--max-new-tokens", 5, "--temperature", 0, "--json", tmp_path / "x.json"]
    done = spikeloom("chat", home / "run", *options)
    assert done.code == 0, done.err
    report = read(tmp_path / "x.json")["turns"]
    assert [turn["user"] for turn in report] == ["the cat", "and", "the cat"]
    assert report[0]["answer"] == report[2]["answer"]
    assert done.out == "".join(turn["answer"] + "\n" for turn in report)
    assert "(forgotten)" in done.err


def test_chat_ends_with_the_input(home):
    verb = [sys.executable, "-m", "spikeloom.cli", "chat", str(home / "run"), "--max-new-tokens=3"]
    done = subprocess.run(verb, input="the cat\nand\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2


def test_verify(home, spikeloom, tmp_path):
    file = tmp_path / "x.json"
    done = spikeloom("verify", home / "run", "--text", "the cat sat", "--json", file)
    assert done.code == 0, done.out
    report = read(file)
    assert report["passed"]
    assert report["tokens"] == 1 + len("the cat sat")
    assert "all forms agree" in done.out


def test_verify_exits_with_1_when_forms_disagree(home, spikeloom, monkeypatch):
    from spikeloom.evaluation import verify

    real = verify.verify
    monkeypatch.setattr(verify, "verify", lambda *args: real(*args) | {"passed": False})
    done = spikeloom("verify", home / "run", "--text", "the cat sat")
    assert done.code == 1
    assert "THE FORMS DISAGREE" in done.out


def test_profile(home, spikeloom, tmp_path):
    done = spikeloom("profile", home / "run", "--text", "the cat sat", "--out", tmp_path / "p",
                     "--json", tmp_path / "x.json")  # fmt: skip
    assert done.code == 0, done.err
    report = read(tmp_path / "x.json")
    assert len(report["per_layer"]) == 9
    pictures = {"raster.png", "rates.png", "operations.png", "profile.json"}
    assert {p.name for p in (tmp_path / "p").iterdir()} == pictures


def test_presets(spikeloom, tmp_path):
    assert spikeloom("presets", "--json", tmp_path / "x.json").code == 0
    rows = {row["name"]: row for row in read(tmp_path / "x.json")["presets"]}
    assert {"spikeloom-1m", "spikeloom-125m", "flow-15m", "spike-transformer"} <= set(rows)
    assert 1.0e6 < rows["spikeloom-1m"]["parameters"] < 2.5e6
    assert all(row["description"] for row in rows.values())


def test_info(home, spikeloom, tmp_path):
    assert spikeloom("info", home / "run", "--json", tmp_path / "x.json").code == 0
    report = read(tmp_path / "x.json")
    assert report["mixers"] == ["sdsa", "attention"]
    assert report["tokenizer_size"] == report["vocab_size"]
    assert report["parameters"] > 0


@pytest.mark.parametrize("verb", ["info", "generate", "eval", "verify"])
def test_an_unfinished_run_does_as_well(verb, home, spikeloom, tmp_path):
    out = shutil.copytree(home / "run", tmp_path / "run")
    (out / "model.safetensors").unlink()
    options = ["--data", home / "text.txt"] if verb == "eval" else []
    done = spikeloom(verb, out, *options)
    assert done.code == 0, done.err
    assert done.err == f"{out} holds an unfinished run: using checkpoint-10\n"


# What goes wrong


def one_line(done, *advice):
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for words in advice:
        assert words in done.err


@pytest.fixture
def train_on(home, spikeloom, tmp_path):
    """`train` with the tiny config on a source."""

    def train(source, *options, config="tiny.yaml"):
        config = home / config if config.endswith("yaml") else config
        return spikeloom(
            "train", config, "--data", source, "--out", tmp_path / "out", "--max-steps", 2, *options
        )

    return train


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"", "holds no text"),
        ("blank.txt", b" \n\n", "holds no text"),
        ("binary.txt", b"\x00\x01\x02\x03" * 100, "binary"),
        ("latin.txt", "fünf".encode("latin-1") * 100, "UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"te', "broken.jsonl"),
        ("picture.png", b"\x89PNG", "picture.png"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_bad_files(verb, name, content, advice, home, spikeloom, train_on, tmp_path):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    if verb == "train":
        one_line(train_on(file), advice)
    else:
        one_line(spikeloom("eval", home / "run", "--data", file), advice)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--set", "model.hiden_size=3"], "did you mean 'hidden_size'"),
        (["--set", "model.hidden_size=wide"], "model.hidden_size: expected int"),
        (["--set", "model.num_attention_heads=5"], "divides hidden_size (32)"),
        (["--set", "training.optimizer=sgd"], "not one of adamw, muon"),
        (["--set", "nonsense"], "expected key=value"),
        (["--set", "training.context=99999"], "longer than the data"),
        (["--set", "training.batch_size=500"], "a batch needs 500"),
        (["--set", "tokenizer.vocab_size=100"], "vocab_size 100 is too small"),
        (["--twin", "dens"], "expected dense or quantised"),
        (["--max-minutes", "0"], "max_minutes"),
        (["--max-minutes", "nan"], "max_minutes"),
        (["--tokenizer", "nowhere"], "nowhere is not a directory"),
        (["--eval-data", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_bad_settings(options, advice, home, train_on):
    one_line(train_on(home / "text.txt", *options), advice)


def test_no_budget(home, spikeloom, tmp_path):
    done = spikeloom(
        "train", home / "tiny.yaml", "--data", home / "text.txt", "--out", tmp_path / "out"
    )
    one_line(done, "no budget: give --max-steps, --max-tokens or --max-minutes")


@pytest.mark.parametrize("verb", ["train", "verify"])
def test_unknown_presets(verb, home, spikeloom, train_on):
    if verb == "train":
        one_line(train_on(home / "text.txt", config="spikelom-1m"), "did you mean 'spikeloom-1m'")
    else:
        one_line(spikeloom("verify", "spikelom-1m"), "spikelom-1m")


def test_a_directory_in_use(home, spikeloom):
    done = spikeloom("train", home / "tiny.yaml", "--data", home / "text.txt",
                     "--out", home / "run", "--max-steps", 2)  # fmt: skip
    one_line(done, "already holds a run")


def test_the_hub_without_network(train_on, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr(hub.HfApi, "dataset_info", offline)
    one_line(train_on("hub:roneneldan/TinyStories"), "hub")


READERS = {
    "eval": ["--data", "{home}/text.txt"],
    "compare": ["--data", "{home}/text.txt", "--no-speed", "--out", "{out}"],
    "generate": [],
    "chat": [],
    "verify": [],
    "profile": ["--text", "the cat", "--out", "{out}"],
    "info": [],
}


def damage_weights(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def foreign_weights(directory):
    save_file({"transformer.h.0": torch.ones(3)}, directory / "model.safetensors")


def another_model(directory):
    (directory / "config.json").write_text('{"model_type": "gpt2"}')


def larger_tokenizer(directory):
    tokenizers.train("char", ["ÄÖÜäöüßéèàçñ" + "".join(map(chr, range(0x400, 0x500)))],
                     600).save_pretrained(directory)  # fmt: skip


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (shutil.rmtree, "is not a directory"),
        (damage_weights, "truncated"),
        (foreign_weights, "norm.weight"),
        (another_model, "type 'gpt2'"),
        (larger_tokenizer, "not from the same run"),
    ],
)
def test_bad_checkpoints(verb, damage, advice, home, spikeloom, tmp_path):
    directory = shutil.copytree(home / "run", tmp_path / "run")
    damage(directory)
    options = [o.format(home=home, out=tmp_path / "out") for o in READERS[verb]]
    if damage is foreign_weights:
        advice = "model.decoder"
    one_line(spikeloom(verb, directory, *options), advice)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["eval", "{run}", "--data", "{text}", "--part", "half"], "part 'half' is unknown"),
        (["eval", "{run}", "--data", "{text}", "--context", "0"], "at least 1 token"),
        (["eval", "{run}", "--data", "{text}", "--stride", "99"], "stride"),
        (["eval", "{run}", "--data", "{text}", "--batch-size", "0"], "batch"),
        (["eval", "{run}", "--data", "{text}", "--max-tokens", "0"], "0"),
        (["eval", "{run}", "--data", "{text}", "--device", "abacus"], "--device abacus"),
        (["eval", "{run}", "--data", "{text}", "--json", "{text}/x.json"], "text.txt"),
        (["compare", "{run}", "--data", "{text}", "--part", "half"], "part 'half' is unknown"),
        (["compare", "{run}", "--data", "{text}", "--no-speed", "--out", "{text}"], "text.txt"),
        (["generate", "{run}", "--temperature", "-1"], "temperature -1.0"),
        (["generate", "{run}", "--temperature", "nan"], "temperature nan"),
        (["generate", "{run}", "--top-p", "0"], "top_p 0.0"),
        (["generate", "{run}", "--max-new-tokens", "0"], "max_new_tokens 0"),
        (["chat", "{run}", "--temperature", "-1"], "temperature -1.0"),
        (["chat", "{run}", "--guidance", "0"], "guidance 0.0: expected above 0 and at most 100"),
        (["chat", "{run}", "--guidance", "2"], "it takes --roles"),
        (["verify", "{run}", "--text", ""], "at least 4 tokens"),
        (["verify", "spikeloom-1m", "--text", "x"], "has no tokenizer"),
        (["profile", "{run}", "--text", "", "--out", "{out}"], "too short"),
        (["profile", "{run}", "--text", "the cat", "--out", "{text}"], "text.txt"),
    ],
    ids=lambda value: " ".join(value[:1] + value[2:]) if isinstance(value, list) else "",
)
def test_bad_options(arguments, advice, home, spikeloom, tmp_path):
    known = {"run": home / "run", "text": home / "text.txt", "out": tmp_path}
    one_line(spikeloom(*(a.format(**known) for a in arguments)), advice)


def test_roles_reach_the_conversation(home, spikeloom, monkeypatch):
    from spikeloom.inference import chat

    given = []
    monkeypatch.setattr(chat, "chat", lambda generator, sampling, roles: given.append(roles))
    assert spikeloom("chat", home / "run", "--roles").code == 0
    assert given == [True]


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("Tried to allocate 2 TiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory(error, home, spikeloom, train_on, monkeypatch):
    from spikeloom.evaluation import perplexity

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(perplexity, "evaluate", fail)
    monkeypatch.setattr(SpikeTrainer, "training_step", fail)
    done = spikeloom("eval", home / "run", "--data", home / "text.txt")
    one_line(done, "out of memory", "--batch-size")
    one_line(train_on(home / "text.txt"), "out of memory", "training.batch_size (now 4)")


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), OSError("a bug")])
def test_bugs_keep_their_traceback(error, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(type(error), match="a bug"):
        cli.main()


def test_user_errors_are_one_line(monkeypatch, capsys):
    def fail():
        raise DataError("no text")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: no text\n"


def test_the_app_is_typers():
    assert isinstance(cli.app, typer.Typer)
