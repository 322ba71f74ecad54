"""Small models of every kind that the model tests go through."""

import torch

from spikeloom.config import parse_run
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    dense_twin,
    quantised_twin,
)

VOCAB = 64
GRADED = {"levels": 8, "fire_level": 3}
HIDDEN = {"signed": False, "fire_level": 1, "theta": 0.1}
RATE = {"steps": 4, "neuron": {"kind": "lif", "beta": 0.95, "learn_beta": True}}
SIGNED_RATE = {"steps": 3, "neuron": {"levels": 1, "fire_level": 1, "theta": 1.0, "beta": 0.5}}
SALIENCE = {"kind": "lif", "beta": 0.5, "v_threshold": 0.3}
LIF = {"kind": "lif", "beta": 0.5, "v_threshold": 0.5}
SLOW = {"kind": "lif", "beta": 0.9, "learn_beta": True, "surrogate": "sigmoid"}
BEHIND = {"kind": "lif", "beta": 0.5, "v_threshold": 0.4, "reset": "hard"}
PSN = {"kind": "psn", "taps": 3, "v_threshold": 0.5}
MODULATED = {"homeostasis": 0.1, "diversity": 0.5, "stress_gain": 0.5}


def neurons(default, **roles):
    return {"default": default, "mlp_hidden": HIDDEN if "kind" not in default else {}, **roles}


CONFIGS = {
    "attention": {"layers": [{"mixer": "attention", "mlp": "spiking"}]},
    "attention gqa": {
        "layers": [{"mixer": "attention", "mlp": "relu2"}],
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "qk_norm": False,
        "output_norm": False,
    },
    "window": {"layers": [{"mixer": "attention", "sliding_window": 3, "mlp": "swiglu"}]},
    "window 1": {"layers": [{"mixer": "attention", "sliding_window": 1, "mlp": "relu2"}]},
    "sdsa": {"layers": [{"mixer": "sdsa", "mlp": "spiking"}]},
    "sdsa gated gqa": {
        "layers": [{"mixer": "sdsa", "decay": "gated", "mlp": "relu2"}],
        "num_key_value_heads": 1,
    },
    "hadamard": {"layers": [{"mixer": "sdsa_hadamard", "mlp": "spiking"}]},
    "hadamard gqa, gated and without decay": {
        "layers": [
            {"mixer": "sdsa_hadamard", "decay": "gated", "mlp": "relu2"},
            {"mixer": "sdsa_hadamard", "decay": "none", "mlp": "spiking"},
        ],
        "num_key_value_heads": 2,
    },
    "no mlp": {"layers": [{"mixer": "sdsa", "mlp": "none"}]},
    "mixed": {
        "num_hidden_layers": 3,
        "layers": [
            {"mixer": "sdsa", "decay": "gated", "mlp": "spiking"},
            {"mixer": "attention", "sliding_window": 4, "mlp": "none"},
            {"mixer": "attention", "rope_theta": 100.0, "mlp": "relu2"},
        ],
    },
    "constant size": {
        "layers": [
            {"mixer": "sdsa", "mlp": "relu2"},
            {"mixer": "attention", "sliding_window": 4, "mlp": "relu2"},
        ],
        "neurons": neurons({**GRADED, "beta": 0.5}),
    },
    "soft reset": {"neurons": neurons({**GRADED, "beta": 0.5})},
    "hard reset": {
        "layers": [{"mixer": "sdsa", "mlp": "swiglu"}],
        "neurons": neurons({**GRADED, "beta": 0.5, "learn_beta": True, "reset": "hard"}),
    },
    "gains": {
        "layers": [{"mixer": "attention", "mlp": "relu2"}, {"mixer": "sdsa", "mlp": "swiglu"}],
        "neurons": neurons({**GRADED, "gain_rank": 3}, mixer_output={"beta": 0.5}),
    },
    "lif": {"neurons": neurons(LIF)},
    "lif steps": {
        "layers": [{"mixer": "attention", "mlp": "spiking"}, {"mixer": "sdsa", "mlp": "relu2"}],
        "neurons": neurons({**LIF, "reset": "hard"}),
        "num_steps": 4,
    },
    "rate code": {
        "layers": [{"mixer": "attention", "mlp": "swiglu", "mixer_rate": RATE, "mlp_rate": RATE}],
        "neurons": {"default": {"kind": "none"}},
    },
    "rate code, signed": {
        "layers": [
            {"mixer": "sdsa", "mlp": "none", "mixer_rate": SIGNED_RATE},
            {"mixer": "attention", "sliding_window": 3, "mlp": "relu2", "mlp_rate": SIGNED_RATE},
        ],
    },
    "key stride": {
        "layers": [
            {"mixer": "attention", "key_stride": 3, "mlp": "relu2"},
            {"mixer": "attention", "key_stride": 2, "sliding_window": 5, "mlp": "none"},
        ],
    },
    "salience": {
        "layers": [
            {"mixer": "attention", "mlp": "relu2", "salience": SALIENCE},
            {
                "mixer": "attention",
                "mlp": "swiglu",
                "spiking": False,
                "sliding_window": 4,
                "salience": {**SALIENCE, "beta": 0.0},
            },
        ],
        "num_key_value_heads": 2,
    },
    "predictive": {
        "layers": [
            {"mixer": "attention", "mlp": "relu2", "predictive": True},
            {"mixer": "sdsa", "mlp": "swiglu", "spiking": False, "predictive": True},
        ],
    },
    "spikes behind": {
        "layers": [{"mixer": "rwkv", "mlp": "rwkv", "mixer_spikes": BEHIND, "mlp_spikes": BEHIND}],
        "neurons": {"default": {"kind": "none"}},
        "norm": "layer",
    },
    "spikes behind and before": {
        "layers": [
            {"mixer": "rwkv", "mlp": "relu2", "mlp_spikes": PSN},
            {"mixer": "sdsa", "mlp": "rwkv", "mixer_spikes": {**GRADED, "signed": True}},
        ],
        "neurons": neurons(GRADED, mixer_input={"kind": "none"}, mlp_input={"kind": "none"}),
    },
    "psn": {"layers": [{"mixer": "sdsa", "mlp": "spiking"}], "neurons": neurons(PSN)},
    "psn steps": {"neurons": neurons(PSN), "num_steps": 4},
    "graded steps": {"neurons": neurons({**GRADED, "beta": 0.5}), "num_steps": 4},
    "recurrent": {
        "layers": [{"mixer": "recurrent_lif", "mlp": "none", "gate": "channel"}],
        "neurons": neurons(LIF, mixer_output=SLOW, head={"kind": "none"}),
        "embedding_size": 16,
        "norm": "layer",
    },
    "recurrent among others": {
        "num_hidden_layers": 3,
        "layers": [
            {"mixer": "recurrent_lif", "mlp": "relu2", "gate": "product"},
            {"mixer": "recurrent_lif", "mlp": "none"},
            {"mixer": "sdsa", "mlp": "spiking", "gate": "channel"},
        ],
        "neurons": neurons(GRADED, mixer_output={**SLOW, **MODULATED}),
        "embedding_size": 48,
        "norm": "none",
    },
}
TWINS = {
    "dense": lambda: dense_twin(config("sdsa gated gqa")),
    "not spiking": lambda: config("rate code", spiking=False),
    "dense, own mixers": lambda: dense_twin(config("mixed"), mixer=None),
    "quantised": lambda: quantised_twin(config("mixed")),
    "dense recurrent": lambda: dense_twin(config("recurrent")),
    "quantised recurrent": lambda: quantised_twin(config("recurrent among others")),
}
NAMES = [*CONFIGS, *TWINS]


def config(name, **changes):
    """The `SpikeloomConfig` of one of `NAMES`."""
    if name in TWINS:
        return TWINS[name]()
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "neurons": neurons(GRADED),
    }
    tree = {"model": {**sizes, **CONFIGS[name], **changes}}
    return SpikeloomConfig.from_architecture(parse_run(tree).model)


def build(name, dtype=torch.float64, **changes):
    """A model in eval mode whose gains, biases, steps and leaks have left their start values, and
    whatever starts at 0."""
    torch.manual_seed(0)
    model = SpikeloomForCausalLM(config(name, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def tokens(*shape, seed=0):
    return torch.randint(2, VOCAB, shape, generator=torch.Generator().manual_seed(seed))
