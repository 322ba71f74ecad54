"""One model, several forms: parallel, token by token, padded, packed, checkpointed, compiled."""

import pytest
import torch
from small_models import NAMES, VOCAB, build, tokens

from spikeloom.model import DecoderState

B, L = 2, 13
EXACT = {"atol": 1e-9, "rtol": 1e-9}  # a flipped spike would show as 1e-3 or more


@pytest.fixture(params=NAMES)
def model(request):
    return build(request.param)


def loss_of(model, ids):
    """Cross-entropy plus something that pulls on every firing rate."""
    output = model(ids, labels=ids)
    return output.loss + (output.firing_rates * torch.arange(1, len(output.firing_rates) + 1)).sum()


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 7, 12])
def test_later_tokens_change_no_earlier_logit(model, cut):
    ids, other = tokens(B, L), tokens(B, L, seed=1)
    other[:, :cut] = ids[:, :cut]
    a, b = model(ids).logits, model(other).logits
    torch.testing.assert_close(a[:, :cut], b[:, :cut], **EXACT)
    assert not torch.allclose(a[:, cut:], b[:, cut:])


def test_every_parameter_gets_a_finite_gradient(model):
    model.train()
    loss_of(model, tokens(4, 24)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_loss_alone_reaches_every_parameter(model):
    ids = tokens(4, 24)
    model(ids, labels=ids).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.no_grad()
@pytest.mark.parametrize(
    "pieces",
    [(1,) * L, (5, 1, 1, 4, 2), (L - 1, 1), (1, L - 1)],
    ids=["one by one", "chunks", "one left", "one first"],
)
def test_state_form_equals_parallel_form(model, pieces):
    ids = tokens(B, L)
    state, logits, at = DecoderState(model.config.architecture), [], 0
    for n in pieces:
        output = model(ids[:, at : at + n], past_key_values=state)
        assert output.past_key_values is state
        logits.append(output.logits)
        at += n
        assert state.get_seq_length() == at
    torch.testing.assert_close(torch.cat(logits, 1), model(ids).logits, **EXACT)


@torch.no_grad()
def test_use_cache_starts_a_state(model):
    ids = tokens(B, L)
    first = model(ids[:, :-1], use_cache=True)
    assert isinstance(first.past_key_values, DecoderState)
    last = model(ids[:, -1:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(last, model(ids).logits[:, -1:], **EXACT)
    assert model(ids).past_key_values is None


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["sdsa", "sdsa gated gqa", "window", "window 1", "constant size", "recurrent"]
)
def test_state_size_is_constant_in_tokens(name):
    model = build(name)
    state = DecoderState(model.config.architecture)
    sizes = []
    for _ in range(4):
        model(tokens(B, 8), past_key_values=state)
        sizes.append(state.nbytes)
    assert len(set(sizes)) == 1
    assert sizes[0] > 0


@torch.no_grad()
def test_reading_in_place_leaves_a_deepcopy_alone(model):
    import copy

    ids = tokens(B, L)
    state = model(ids[:, :6], use_cache=True).past_key_values
    kept = copy.deepcopy(state)
    a = model(ids[:, 6:], past_key_values=state).logits
    b = model(ids[:, 6:], past_key_values=kept).logits
    assert torch.equal(a, b)


def padded(side):
    """Three rows of 9, 4 and 1 tokens in a batch, `[3, 9]`, and their attention mask."""
    ids, mask = tokens(3, 9), torch.ones(3, 9, dtype=torch.long)
    for row, length in enumerate((9, 4, 1)):
        gap = slice(9 - length) if side == "left" else slice(length, None)
        ids[row, gap], mask[row, gap] = 1, 0
    return ids, mask


def filled_positions(mask):
    """The position ids that some of transformers' callers make: 1 on padding."""
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)


@torch.no_grad()
@pytest.mark.parametrize("given", ["mask", "position ids", "both"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_rows_alone(model, side, given):
    ids, mask = padded(side)
    inputs = {"attention_mask": mask, "position_ids": filled_positions(mask)}
    if given != "both":
        inputs.pop("position_ids" if given == "mask" else "attention_mask")
    logits = model(ids, **inputs).logits
    for row in range(3):
        real = mask[row].bool()
        alone = model(ids[row][real][None]).logits[0]
        torch.testing.assert_close(logits[row][real], alone, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("mask_given", [True, False])
def test_a_left_padded_prompt_goes_on_token_by_token(model, mask_given):
    ids, mask = padded("left")
    more = tokens(3, 4, seed=5)
    state = model(ids, attention_mask=mask, use_cache=True).past_key_values
    logits = []
    for i in range(4):
        mask = torch.cat([mask, mask.new_ones(3, 1)], 1)
        inputs = {"attention_mask": mask} if mask_given else {}
        logits.append(model(more[:, i : i + 1], past_key_values=state, **inputs).logits)
    for row, length in enumerate((9, 4, 1)):
        alone = torch.cat([ids[row, 9 - length :], more[row]])[None]
        expected = model(alone).logits[0, length:]
        torch.testing.assert_close(torch.cat(logits, 1)[row], expected, **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(5, 4, 4), (1, 1, 11), (12, 1)])
def test_packed_rows_equal_separate_documents(model, lengths):
    ids = tokens(1, L)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    logits = model(ids, position_ids=positions).logits
    alone = torch.cat([model(document).logits for document in ids.split(lengths, dim=1)], 1)
    torch.testing.assert_close(logits, alone, **EXACT)


@torch.no_grad()
def test_one_row_of_position_ids_serves_a_batch(model):
    ids = tokens(B, L)
    positions = torch.cat([torch.arange(6), torch.arange(7)])[None]
    both = model(ids, position_ids=positions).logits
    each = model(ids, position_ids=positions.expand(B, -1)).logits
    assert torch.equal(both, each)


@torch.no_grad()
@pytest.mark.parametrize("positions_given", [True, False])
def test_packed_documents_over_a_carried_state(model, positions_given):
    ids = tokens(1, L)
    positions = torch.cat([torch.arange(5), torch.arange(8)])[None]
    whole = model(ids, position_ids=positions).logits
    state = model(ids[:, :9], position_ids=positions[:, :9], use_cache=True).past_key_values
    # without position ids, the document that is open goes on
    inputs = {"position_ids": positions[:, 9:]} if positions_given else {}
    rest = model(ids[:, 9:], past_key_values=state, **inputs).logits
    torch.testing.assert_close(rest, whole[:, 9:], **EXACT)


@torch.no_grad()
def test_a_mask_that_does_not_cover_the_state_is_refused(model):
    ids = tokens(B, L)
    state = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="attention_mask"):
        model(ids, past_key_values=state, attention_mask=torch.ones(B, L, dtype=torch.long))


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_gradient_checkpointing_changes_nothing(model, reentrant):
    model.train()
    ids = tokens(B, L)
    expected = loss_of(model, ids)
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    options = None if reentrant is None else {"use_reentrant": reentrant}
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    loss = loss_of(model, ids)
    loss.backward()
    assert torch.equal(loss, expected)
    for wanted, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-12, rtol=1e-12)


@torch.no_grad()
def test_logits_are_the_head_times_the_last_hidden_state(model):
    ids = tokens(B, L)
    hidden = model.model(ids).last_hidden_state
    output = model(ids)
    assert output.logits.shape == (B, L, VOCAB)
    assert torch.equal(output.logits, model.lm_head(hidden))
    assert torch.equal(output.last_hidden_state, hidden)
    assert torch.equal(model(ids, logits_to_keep=2).logits, model.lm_head(hidden[:, -2:]))
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, output.logits)


@torch.no_grad()
def test_loss_is_the_shifted_mean_cross_entropy(model):
    ids, labels = tokens(B, L), tokens(B, L)
    labels[:, :4] = -100
    output = model(ids, labels=labels)
    logp = output.logits.float().log_softmax(-1)[:, :-1]
    wanted = -logp.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    assert output.loss.item() == pytest.approx(wanted[labels[:, 1:] >= 0].mean().item(), abs=1e-6)


# Dynamo itself instantiates autograd functions to trace them, and torch warns itself about it.
pardon = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pardon
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("sdsa gated gqa", "aot_eager"),
        ("lif", "aot_eager"),
        ("hard reset", "eager"),
        ("lif steps", "eager"),
        ("window", "eager"),
        ("dense", "eager"),
    ],
)
def test_a_training_step_compiles_without_graph_breaks(name, backend):
    changes = {} if name == "dense" else {"num_hidden_layers": 1}
    model = build(name, **changes).train()
    ids = tokens(B, 5)
    expected = loss_of(model, ids)
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch._dynamo.reset()
    loss = torch.compile(loss_of, backend=backend, fullgraph=True)(model, ids)
    loss.backward()
    torch.testing.assert_close(loss, expected, **EXACT)
    for wanted, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-9, rtol=1e-7)


@pardon
def test_a_packed_training_step_compiles_too():
    model = build("mixed", num_hidden_layers=2).train()
    ids = tokens(1, 8)
    positions = torch.cat([torch.arange(3), torch.arange(5)])[None]

    def step(ids, positions):
        return model(ids, position_ids=positions, labels=ids).loss

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids, positions), step(ids, positions), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_finite_in_both_forms(model, autocast):
    model = model.float() if autocast else model.bfloat16()
    ids = tokens(B, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        state = DecoderState(model.config.architecture)
        for output in (model(ids), *(model(t, past_key_values=state) for t in ids.split(1, 1))):
            assert output.logits.isfinite().all()
            assert ((output.firing_rates >= 0) & (output.firing_rates <= 1)).all()
