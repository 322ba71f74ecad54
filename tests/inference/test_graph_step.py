"""One step of static shape says what the model and `generate` say, for every kind of layer."""

import pytest
import torch
from small_models import NAMES, build, tokens

from spikeloom.errors import ConfigError
from spikeloom.inference.graph_step import GraphStep

PROMPT = [3, 14, 15, 9, 26]


REFUSED = {"key stride": "key_stride", "salience": "salience", "predictive": "predictive"}


@pytest.mark.parametrize(("name", "key"), REFUSED.items())
def test_what_it_lacks_is_refused_by_name(name, key):
    with pytest.raises(ConfigError, match=rf"layers\[0\].{key}"):
        GraphStep(build(name), max_length=12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_it_continues_as_generate_does(name):
    model = build(name)
    ours = GraphStep(model, max_length=12).generate(PROMPT, 7)
    assert ours[: len(generated(model))] == generated(model)


def generated(model):
    """What `generate` adds to the prompt; it ends with the document, our step goes on."""
    row = torch.tensor([PROMPT], device=model.device)
    return model.generate(row, max_new_tokens=7, do_sample=False)[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("name", ["mixed", "sdsa", "soft reset", "lif steps"])
def test_logits_at_every_place_and_a_second_document(name):
    model = build(name)
    step = GraphStep(model, max_length=9)
    for seed in (1, 2):
        row = tokens(1, 9, seed=seed)
        with torch.no_grad():
            wanted = model(row).logits[0]
        step.reset()
        for token, logits in zip(row[0].tolist(), wanted, strict=True):
            step.advance([token])
            torch.testing.assert_close(step.logits, logits)


def test_it_is_refused_where_there_is_no_room():
    step = GraphStep(build("sdsa"), max_length=8)
    assert len(step.generate(PROMPT, 3)) == 3
    for prompt, count in ((PROMPT, 4), ([], 3), (PROMPT, 0)):
        with pytest.raises(ConfigError, match="8 together"):
            step.generate(prompt, count)


def test_nothing_moves_in_memory():
    step = GraphStep(build("mixed"), max_length=20)
    before = [t.data_ptr() for state in step.states for t in state.values()]
    step.generate(PROMPT, 10)
    assert before == [t.data_ptr() for state in step.states for t in state.values()]
    assert len(before) > 3


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's
def test_it_compiles_without_a_graph_break():
    model = build("mixed")
    step = GraphStep(model, max_length=12)
    wanted = step.generate(PROMPT, 7)
    step._step = torch.compile(step._run, fullgraph=True, dynamic=False, backend="eager")
    assert step.generate(PROMPT, 7) == wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["mixed", "soft reset"])
def test_a_captured_step_says_the_same(name):
    model = build(name).cuda()
    ours = GraphStep(model, 12).generate(PROMPT, 7)
    assert ours[: len(generated(model))] == generated(model)
