"""One decoder; importing this package registers it with transformers' Auto classes."""

from spikeloom.model.heads import (
    SpikeloomForSequenceClassification,
    SpikeloomForTokenClassification,
)
from spikeloom.model.huggingface import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    SpikeloomModel,
    SpikeloomOutput,
)
from spikeloom.model.products import (
    Product,
    SpikeLinear,
    active_share,
    fed_weights,
    neurons,
    products,
)
from spikeloom.model.state import DecoderState
from spikeloom.model.twins import dense_twin, quantised_twin

__all__ = [
    "DecoderState",
    "Product",
    "SpikeLinear",
    "SpikeloomConfig",
    "SpikeloomForCausalLM",
    "SpikeloomForSequenceClassification",
    "SpikeloomForTokenClassification",
    "SpikeloomModel",
    "SpikeloomOutput",
    "active_share",
    "dense_twin",
    "fed_weights",
    "neurons",
    "products",
    "quantised_twin",
]
