"""What a model and a training run are, as strict data. No torch here: reading a config is instant.

A YAML file (a preset, or the user's own) has three parts, each a frozen dataclass below:

    model:      ModelConfig      the architecture: sizes, layers, one neuron per role
    tokenizer:  TokenizerConfig  which tokenizer is trained on the data
    training:   TrainingConfig   budget, batch, optimizer, target active share

An unknown key, a wrong type or an impossible value is a `ConfigError` that names the field, the
value and what would do.

`model` and `training` hold the dataclasses, `reading` turns a file and overrides into them.
"""

from spikeloom.config.model import (
    EXTRAS,
    MAX_LEVELS,
    MIXERS,
    MLPS,
    NEURONS_WITHIN,
    SURROGATES,
    WIRES,
    LayerConfig,
    ModelConfig,
    NeuronConfig,
    NeuronsConfig,
    RateCodeConfig,
    require_causal,
)
from spikeloom.config.reading import expand_neurons, load_config, parse_run
from spikeloom.config.training import (
    METADATA_FIELDS,
    TRACKERS,
    PhaseConfig,
    RunConfig,
    TokenizerConfig,
    TrainingConfig,
)

__all__ = [
    "EXTRAS",
    "MAX_LEVELS",
    "METADATA_FIELDS",
    "MIXERS",
    "MLPS",
    "NEURONS_WITHIN",
    "SURROGATES",
    "TRACKERS",
    "WIRES",
    "LayerConfig",
    "ModelConfig",
    "NeuronConfig",
    "NeuronsConfig",
    "PhaseConfig",
    "RateCodeConfig",
    "RunConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "expand_neurons",
    "load_config",
    "parse_run",
    "require_causal",
]
