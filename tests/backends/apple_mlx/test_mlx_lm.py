"""mlx-lm's own commands on our checkpoint directory: generate, LoRA, fuse."""

import json
import sys

import pytest
import torch
from safetensors.numpy import load_file

from spikeloom.checkpoint import read_tensors
from spikeloom.errors import ConfigError

pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")
pytest.importorskip("mlx_lm", reason="needs `pip install mlx-lm`")

from spikeloom.backends.mlx import lm
from spikeloom.backends.mlx.engine import Engine
from spikeloom.backends.mlx.quantize import quantize_checkpoint

pytestmark = [
    pytest.mark.mlx,
    pytest.mark.filterwarnings("ignore"),  # what mlx-lm warns of is not ours
]


def mlx_lm(monkeypatch, capsys, *words):
    """What the command printed."""
    monkeypatch.setattr(sys, "argv", ["mlx_lm", *map(str, words)])
    lm.main()
    return capsys.readouterr().out


@pytest.mark.parametrize(("mixer", "rank"), [("attention", 0), ("sdsa", 0), ("sdsa", 5)])
def test_it_generates_what_we_generate(mixer, rank, make_run, monkeypatch, capsys):
    from mlx_lm import load
    from mlx_lm.generate import generate_step

    run = make_run(mixer, gain_rank=rank)
    lm.register()
    model, _ = load(str(run))
    import mlx.core as mx

    prompt = [0, 40, 41, 42, 43]
    found = [t for t, _ in generate_step(mx.array(prompt), model, max_tokens=8)]
    engine = Engine.load(run)
    assert [int(t) for t in found] == list(engine.generate(prompt, 8))
    asked = ["--prompt", "the cat", "--max-tokens", 4, "--ignore-chat-template"]
    said = mlx_lm(monkeypatch, capsys, "generate", "--model", run, *asked)
    assert "Generation: 4 tokens" in said


def test_it_reads_quantised_checkpoints(make_run, tmp_path):
    from mlx_lm import load

    quantize_checkpoint(make_run("sdsa", gain_rank=3), tmp_path / "small", bits=8, group_size=32)
    lm.register()
    model, _ = load(str(tmp_path / "small"))
    import mlx.core as mx

    ours, tokens = Engine.load(tmp_path / "small").model, mx.array([[3, 50, 60, 70]])
    assert mx.allclose(model(tokens), ours(tokens), atol=1e-5)


@pytest.mark.parametrize(("mixer", "rank"), [("attention", 0), ("sdsa", 0), ("sdsa", 5)])
def test_lora_is_trained_and_fused_into_a_checkpoint_that_pytorch_reads(
    mixer, rank, make_run, tmp_path, monkeypatch, capsys
):
    from transformers import AutoModelForCausalLM

    run, data = make_run(mixer, gain_rank=rank), tmp_path / "data"
    data.mkdir()
    for part in ("train", "valid"):
        lines = [json.dumps({"text": f"the dog sat on the log {i}"}) for i in range(8)]
        (data / f"{part}.jsonl").write_text("\n".join(lines))
    adapter, fused = tmp_path / "adapter", tmp_path / "fused"
    given = ["--train", "--data", data, "--adapter-path", adapter, "--iters", 4]
    given += ["--batch-size", 2, "--num-layers", 2, "--val-batches", 1]
    mlx_lm(monkeypatch, capsys, "lora", "--model", run, *given)
    learned = load_file(adapter / "adapters.safetensors")
    products = {name.rpartition(".")[0] for name in learned}
    assert {name.split(".", 4)[-1] for name in products} >= {
        "blocks.0.mixer.q_proj",
        "blocks.0.o_proj",
        "blocks.1.mlp.up_proj",
        "blocks.1.mlp.down_proj",
    }
    assert all(abs(w).max() > 0 for name, w in learned.items() if name.endswith("lora_b"))
    mlx_lm(
        monkeypatch, capsys, "fuse", "--model", run, "--adapter-path", adapter, "--save-path", fused
    )
    before, after = read_tensors(run), read_tensors(fused)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in products}
    tokens = torch.tensor([[3, 50, 60, 70]])
    model = AutoModelForCausalLM.from_pretrained(fused).eval()
    import mlx.core as mx
    import numpy as np

    ours = Engine.load(fused).model(mx.array(tokens.numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(np.array(ours), model(tokens).logits.numpy(), atol=1e-4)


def test_an_architecture_that_mlx_lacks_is_refused_and_not_run_without_it(make_run):
    """Keys that no weight belongs to would pass mlx-lm's own check."""
    from mlx_lm import load

    run = make_run("attention")
    tree = json.loads((run / "config.json").read_text())
    tree["layers"][0]["key_stride"] = 4
    (run / "config.json").write_text(json.dumps(tree))
    lm.register()
    for loads in (load, quantize_checkpoint):
        given = [str(run)] if loads is load else [run, run.parent / "small"]
        with pytest.raises(ConfigError, match=r"layers\[0\].key_stride=4: the mlx backend"):
            loads(*given)
    assert not (run.parent / "small").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a verb of mlx-lm"),
        (["generate", "--model", "/nowhere"], "/nowhere is not a directory"),
        (["generate", "--model", "RUN"], "is truncated or not a safetensors file"),
    ],
)
def test_mistakes_of_a_user_are_one_line(words, says, make_run, monkeypatch, capsys):
    run = make_run("attention")
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        mlx_lm(monkeypatch, capsys, *[run if word == "RUN" else word for word in words])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1


def test_without_mlx_lm_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlx_lm.models", None)
    with pytest.raises(SystemExit) as left:
        lm.main()
    assert left.value.code == 2
    assert "mlx-lm is not installed" in capsys.readouterr().err
