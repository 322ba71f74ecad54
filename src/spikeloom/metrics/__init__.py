"""What a model does, counted: spikes (`recorder`), operations (`synops`), energy (`energy`)."""

from spikeloom.metrics.energy import energy
from spikeloom.metrics.recorder import NeuronRecord, Recorder
from spikeloom.metrics.synops import Operations, ProductOperations, operations

__all__ = [
    "NeuronRecord",
    "Operations",
    "ProductOperations",
    "Recorder",
    "energy",
    "operations",
]
