"""The PyTorch model that other backends must equal, and what it says: plain NumPy out.

model = small_model("spikeloom-1m")
config, weights = model.config.architecture, weights_of(model)
expected = reference(model, tokens_of(model, 2, 12))
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from spikeloom import backends, presets
from spikeloom.config import TrainingConfig, load_config
from spikeloom.errors import ConfigError
from spikeloom.metrics import Recorder
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, active_share, fed_weights

SIZES = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 120,
    "max_position_embeddings": 32,
}


def runs_in_numpy(model):
    try:
        backends.check("numpy", model, TrainingConfig())
    except ConfigError:
        return False
    return True


STEPS = "{kind: graded, levels: 4, fire_level: 2, beta: 0.7, clip_membrane: 2.0}"
# What no preset uses, as overrides of one that is near.
VARIANTS = {
    "sdsa": ("spikeloom-1m", ["model.layers.0.mixer=sdsa", "model.num_key_value_heads=2"]),
    "gated sdsa": (
        "spikeloom-1m",
        ["model.layers.0={mixer: sdsa, decay: gated, mlp: swiglu}", "model.num_key_value_heads=1"],
    ),
    "hadamard": (
        "spike-transformer",
        [
            "model.num_hidden_layers=3",
            "model.layers=[{mixer: sdsa_hadamard}, {mixer: sdsa_hadamard, decay: none},"
            " {mixer: sdsa_hadamard, decay: gated, mlp: none}]",
        ],
    ),
    "hadamard, soft reset": (
        "spike-transformer",
        ["model.layers=[{mixer: sdsa_hadamard}]", "model.neurons.default.reset=soft"],
    ),
    "membrane, soft reset": (
        "spikeloom-1m",
        [
            "model.neurons.default.beta=0.5",
            "model.neurons.default.learn_beta=true",
            "model.layers=[{mixer: attention, sliding_window: 3}, {mixer: sdsa}]",
        ],
    ),
    "membrane, hard reset": (
        "spikeloom-1m",
        [
            "model.neurons.default.beta=0.5",
            "model.neurons.default.reset=hard",
            "model.neurons.default.v_reset=0.1",
            "model.tie_word_embeddings=false",
            "model.qk_norm=false",
            "model.output_norm=false",
        ],
    ),
    "gains": (
        "spikeloom-1m",
        [
            "model.neurons.default.gain_rank=5",
            "model.neurons.mixer_output.beta=0.5",
            "model.layers=[{mixer: attention, mlp: swiglu}, {mixer: sdsa, decay: gated}]",
        ],
    ),
    "gains, steps": (
        "spike-transformer",
        [f"model.neurons.default={STEPS}", "model.neurons.default.gain_rank=3"],
    ),
    "graded steps": ("spike-transformer", [f"model.neurons.default={STEPS}"]),
    "lif, soft reset": (
        "spike-transformer",
        ["model.neurons.default.reset=soft", "model.neurons.default.learn_beta=true"],
    ),
    "lif tokens": ("spike-transformer", ["model.num_steps=1"]),
}
# The 1b presets are their smaller sisters at another size.
RUNS = [n for n in presets.names() if not n.endswith("1b") and runs_in_numpy(load_config(n).model)]
NAMES = [*RUNS, *VARIANTS]
# what learners are held to, update by update
TRAINED = [
    "spikeloom-1m",
    "gated sdsa",
    "gains",
    "spike-transformer",
    "flow-15m",
    "membrane, hard reset",
]


def small_model(name, dtype=torch.float64):
    """A preset's small cut, or a variant: its vectors, and what starts at 0, moved away."""
    preset, changes = VARIANTS.get(name, (name, []))
    kept = load_config(preset).model
    heads = 4 * kept.key_value_heads // kept.num_attention_heads
    layers = max(2, len(kept.layers))  # a whole pattern of local and global layers
    sizes = SIZES | {"num_key_value_heads": heads, "num_hidden_layers": layers}
    run = load_config(preset, [*(f"model.{k}={v}" for k, v in sizes.items()), *changes])
    torch.manual_seed(0)
    model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype)


def weights_of(model):
    """Copies of all weights by name, the tied head once."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def tokens_of(model, *shape, seed=0):
    """Random token ids, int64."""
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, shape)


@dataclass
class Reference:
    """What PyTorch says about a batch of tokens `[B, L]`.

    Attributes:
        logits: `[B, L, V]`.
        loss: mean cross-entropy of the next tokens, without the firing-rate loss.
        share: active share.
        grads: gradient of cross-entropy plus firing-rate loss, by name.
        payloads: of every neuron that spikes, in order of computation, integers `[B, T, L, D]`.
    """

    logits: np.ndarray
    loss: float
    share: float
    grads: dict
    payloads: dict


def reference(model, tokens, target_active_share=None, rate_weight=2.0):
    """Forward and backward in PyTorch, in training mode, as `FiringRateMixin` sums the losses."""
    ids, T = torch.from_numpy(tokens), model.config.num_steps
    model.train().zero_grad()
    with Recorder(model, keep=True) as recorder:
        out = model(input_ids=ids)
    loss = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    share = active_share(out.firing_rates, fed_weights(model))
    total = loss
    if target_active_share is not None:
        total = loss + rate_weight * (share - target_active_share).clamp(min=0)
    total.backward()
    payloads = {
        name: record.payloads.unflatten(0, (-1, T)).numpy()
        for name, record in recorder.records.items()
    }
    grads = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    return Reference(out.logits.detach().numpy(), loss.item(), share.item(), grads, payloads)


def assert_grads_close(found, expected, tolerance):
    """Every gradient, relative to its own size."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].shape == gradient.shape, name
        error = np.linalg.norm(found[name] - gradient)
        size = np.linalg.norm(gradient)
        assert size > 0, name
        assert error <= tolerance * size, f"{name}: relative error {error / size:.1e}"


def torch_step(model, optimizer, tokens, factor, training):
    """One update in PyTorch as the Trainer makes it; what the losses said before it."""
    said = reference(model, tokens, training.target_active_share, training.rate_weight)
    torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate * factor
    optimizer.step()
    return said


def greedy_tokens(model, prompt, count=12):
    """What `generate` adds to a prompt `[1, L]`, `[count]`."""
    return model.generate(
        torch.from_numpy(prompt),
        attention_mask=torch.ones(prompt.shape, dtype=torch.long),
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
    )[0, prompt.shape[1] :].tolist()
