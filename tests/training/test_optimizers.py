"""Parameter groups, and Muon beside AdamW."""

import copy

import pytest
import torch
from tiny_runs import run_of

from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    SpikeloomForTokenClassification,
)
from spikeloom.training.optimizers import JointOptimizer, make_optimizer, parameter_groups


def model_of(**changes):
    torch.manual_seed(0)
    config = run_of(model=changes).model
    return SpikeloomForCausalLM(SpikeloomConfig.from_architecture(config))


def backward(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 300, (2, 16), generator=generator)
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()


def names_of(model, parameters):
    wanted = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group(tied):
    model = model_of(tie_word_embeddings=tied)
    matrices, embeddings, vectors = parameter_groups(model)
    assert len(matrices) + len(embeddings) + len(vectors) == len(list(model.parameters()))
    assert all(p.ndim == 2 for p in matrices)
    assert all(p.ndim < 2 for p in vectors)
    words = {"model.decoder.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert names_of(model, embeddings) == words


def test_a_classifier_is_a_head():
    config = SpikeloomConfig.from_architecture(run_of().model)
    model = SpikeloomForTokenClassification(config)
    _, embeddings, _ = parameter_groups(model)
    assert "classifier.weight" in names_of(model, embeddings)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_muon_does_without_what_is_frozen(dimensions):
    model = model_of()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == dimensions)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, run_of(optimizer="muon").training)
    backward(model)
    optimizer.step()
    for name, p in model.named_parameters():
        moved = p.grad is not None and bool(p.grad.any())
        assert torch.equal(p, before[name]) != moved, name


def test_frozen_parameters_are_left_out():
    model = model_of()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    matrices, embeddings, vectors = parameter_groups(model)
    assert not matrices + embeddings
    (group,) = make_optimizer(model, run_of().training).param_groups
    assert group["weight_decay"] == 0.0
    assert group["params"] == vectors


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_decay_is_for_matrices_only(kind):
    model = model_of()
    optimizer = make_optimizer(model, run_of(optimizer=kind, weight_decay=0.3).training)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim == 2 else 0.0)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def apart(model, config):
    """What `muon` should be: torch's two optimizers, each on its own parameters."""
    matrices, embeddings, vectors = parameter_groups(model)
    muon = torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        [{"params": embeddings, "weight_decay": config.weight_decay}, {"params": vectors}],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=0.0,
    )
    return muon, adamw


def test_two_optimizers_step_as_one():
    config = run_of(optimizer="muon").training
    joint_model, model = model_of(), model_of()
    joint, both = make_optimizer(joint_model, config), apart(model, config)
    assert isinstance(joint, JointOptimizer)
    for seed in range(3):
        backward(joint_model, seed)
        backward(model, seed)
        joint.step()
        for optimizer in both:
            optimizer.step()
    for ours, theirs in zip(joint_model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(
            ours, theirs, atol=1e-4, rtol=1e-3
        )  # training.muon: bfloat16 within


def test_a_schedule_reaches_both():
    config = run_of(optimizer="muon").training
    joint = make_optimizer(model_of(), config)
    schedule = torch.optim.lr_scheduler.LambdaLR(joint, lambda step: 1.0 / (1 + step))
    joint.step()
    schedule.step()
    rates = [g["lr"] for optimizer in joint.optimizers for g in optimizer.param_groups]
    assert rates == [config.learning_rate / 2] * 3


def test_state_round_trip(tmp_path):
    config = run_of(optimizer="muon").training
    model = model_of()
    joint = make_optimizer(model, config)
    backward(model)
    joint.step()
    twin = copy.deepcopy(model)
    torch.save(joint.state_dict(), tmp_path / "optimizer.pt")
    restored = make_optimizer(twin, config)
    restored.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    schedule = torch.optim.lr_scheduler.LambdaLR(restored, lambda step: 0.5)  # sees new groups
    for group in joint.param_groups:
        group["lr"] *= 0.5
    assert schedule.get_last_lr() == [config.learning_rate / 2] * 3
    for m, optimizer in ((model, joint), (twin, restored)):
        backward(m, seed=1)
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in m.parameters())
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
