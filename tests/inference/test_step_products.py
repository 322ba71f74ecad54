"""A step says the same in every form of its products, and reads no row of a silent channel."""

import pytest
import torch
from small_models import build, tokens

from spikeloom.errors import ConfigError
from spikeloom.inference import step_products
from spikeloom.inference.graph_step import GraphStep
from spikeloom.inference.step_products import EVENT_DRIVEN, JOINED, with_products

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
PROMPT = [3, 14, 15, 9, 26]
# q, k, v and a gate behind one neuron; gate and up; several rows at once; a neuron's own product.
NAMES = (
    "mixed",
    "window",
    "lif steps",
    "recurrent among others",
    "dense",
    "spikes behind",
    "gains",
)


@pytest.fixture
def in_triton(monkeypatch):
    """Interpreted, where there is no GPU."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(step_products.event, "skips_silent_rows", lambda _: True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [JOINED, EVENT_DRIVEN])
def test_every_form_makes_the_same_logits(name, form, in_triton):
    model = build(name).to(DEVICE)
    step, plain = GraphStep(model, 4, products=form), GraphStep(model, 4)
    for token in tokens(1, 4, seed=1)[0].tolist():
        step.advance([token])
        plain.advance([token])
        torch.testing.assert_close(step.logits, plain.logits, atol=1e-4, rtol=1e-4)


def test_the_model_itself_stays_as_it_is(in_triton):
    model = build("mixed")
    names = [name for name, _ in model.named_modules()]
    twin = with_products(model, EVENT_DRIVEN)
    assert [name for name, _ in model.named_modules()] == names
    assert twin.model.decoder.norm.weight is model.model.decoder.norm.weight
    assert with_products(model, "given") is model


def test_products_of_one_emission_are_one(in_triton):
    layer = with_products(build("mixed"), EVENT_DRIVEN).model.decoder.layers[0]
    mixer = layer.blocks[0].mixer
    shared = mixer.q_proj.shared
    assert shared is mixer.k_proj.shared is mixer.v_proj.shared is mixer.decay_proj.shared
    assert shared is not layer.blocks[0].o_proj.shared


def test_nothing_waits_for_the_next_step(in_triton):
    step = GraphStep(build("mixed").to(DEVICE), 12, products=JOINED)
    step.generate(PROMPT, 3)
    shared = [m for m in step._stepped.modules() if isinstance(m, step_products.Shared)]
    assert shared
    assert not any(one.waiting for one in shared)


@pytest.mark.skipif(GPU, reason="a captured step does not fail half-way")
def test_a_step_that_failed_leaves_nothing_to_the_next_document(in_triton, monkeypatch):
    step = GraphStep(build("mixed"), 12, products=JOINED)
    wanted = step.generate(PROMPT, 3)
    mixer = step._stepped.model.decoder.layers[0].blocks[0].mixer
    with monkeypatch.context() as patch:
        patch.setattr(mixer.k_proj, "forward", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            step.advance([5])
    assert mixer.q_proj.shared.waiting
    assert step.generate(PROMPT, 3) == wanted


def _interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's
@pytest.mark.skipif(GPU, reason="a captured step is compiled before")
def test_it_compiles_without_a_graph_break(in_triton):
    step = GraphStep(build("mixed"), 7, products=EVENT_DRIVEN)
    wanted = step.generate(PROMPT, 2)
    step._step = torch.compile(step._run, fullgraph=True, dynamic=False, backend="aot_eager")
    assert step.generate(PROMPT, 2) == wanted


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_without_a_gpu_all_rows_are_read_and_a_line_says_so(capsys):
    model = build("mixed")
    got = GraphStep(model, 12, products=EVENT_DRIVEN).generate(PROMPT, 7)
    assert "read all rows: no GPU with Triton here" in capsys.readouterr().err
    assert got == GraphStep(model, 12).generate(PROMPT, 7)


def test_unknown_forms_are_refused():
    with pytest.raises(ConfigError, match=r"'join' are unknown \(did you mean 'joined'\?\)"):
        with_products(build("mixed"), "join")


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_a_compiled_step_says_the_same():
    model = build("mixed").cuda()
    wanted = GraphStep(model, 12).generate(PROMPT, 7)
    assert GraphStep(model, 12, compiled=True, products=EVENT_DRIVEN).generate(PROMPT, 7) == wanted
