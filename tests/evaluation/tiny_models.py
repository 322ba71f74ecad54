"""Small random models, built from a `ModelConfig`, and the documents they read."""

from dataclasses import replace

import torch

from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig, NeuronsConfig
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM

DOCUMENTS = ["The cat sat on the mat.\n", "Où est le café ? Là-bas.\n" * 3, "A third one, short."]
SMALL = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=80,
    neurons=NeuronsConfig(
        *(NeuronConfig(theta=0.25, levels=8, fire_level=3) for _ in range(3)),
        mlp_hidden=NeuronConfig(signed=False, levels=8, fire_level=1),
        head=NeuronConfig(theta=0.25, levels=8, fire_level=3),
    ),
)


def every_neuron(neuron: NeuronConfig) -> NeuronsConfig:
    return NeuronsConfig(*(neuron for _ in range(5)))


def build_model(config: ModelConfig = SMALL, seed: int = 0, **changes) -> SpikeloomForCausalLM:
    torch.manual_seed(seed)
    config = replace(config, **changes)
    model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(config)).eval()
    with torch.no_grad():  # a bias that is not zero, so that forgetting it shows
        for name, parameter in model.named_parameters():
            if name.endswith("neuron.bias"):
                parameter.normal_(0.0, 0.1)
    return model


CONFIGS = {
    "graded": {},
    "sdsa": {"layers": (LayerConfig(mixer="sdsa"),)},
    "gated sdsa, grouped": {
        "layers": (LayerConfig(mixer="sdsa", decay="gated", mlp="swiglu"),),
        "num_key_value_heads": 2,
    },
    "hadamard": {
        "layers": (
            LayerConfig(mixer="sdsa_hadamard"),
            LayerConfig(mixer="sdsa_hadamard", decay="none"),
        )
    },
    "window and relu2": {"layers": (LayerConfig(sliding_window=5, mlp="relu2"), LayerConfig())},
    "windows only": {"layers": (LayerConfig(sliding_window=3),), "output_norm": False},
    "leaky, soft reset": {
        "neurons": every_neuron(NeuronConfig(levels=6, fire_level=2, beta=0.7, learn_beta=True))
    },
    "leaky, hard reset": {
        "neurons": every_neuron(
            NeuronConfig(levels=6, fire_level=2, beta=0.5, reset="hard", v_reset=0.1)
        ),
        "layers": (LayerConfig(mixer="sdsa"), LayerConfig()),
    },
    "binary lif": {
        "neurons": every_neuron(NeuronConfig(kind="lif", beta=0.8, v_threshold=0.6)),
    },
    "clipped, hard lif": {
        "neurons": every_neuron(
            NeuronConfig(kind="lif", beta=0.9, v_threshold=0.5, reset="hard", clip_membrane=1.5)
        ),
        "layers": (LayerConfig(mixer="sdsa"),),
    },
    "step clock, lif": {
        "num_steps": 4,
        "neurons": every_neuron(NeuronConfig(kind="lif", beta=0.9, v_threshold=0.5)),
    },
    "step clock, graded": {
        "num_steps": 3,
        "neurons": every_neuron(NeuronConfig(levels=4, fire_level=2, beta=0.5)),
        "layers": (LayerConfig(mixer="sdsa"), LayerConfig(sliding_window=4)),
    },
    "ternary": {"neurons": every_neuron(NeuronConfig(levels=1, fire_level=1, theta=1.0))},
    "half dense": {
        "neurons": NeuronsConfig(
            mlp_input=NeuronConfig(kind="none"), head=NeuronConfig(kind="none")
        )
    },
    "dense": {"neurons": every_neuron(NeuronConfig(kind="none"))},
}
