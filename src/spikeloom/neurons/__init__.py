"""Neuron modules: they own the parameters, the equations are in `spikeloom.ops.lif`.

All neurons share one interface, so that a layer never asks which kind it has:

    emission, state, rate = neuron(x, state, starts, before)

`x` and `emission` are `[B, L, D]` (`[B * T, L, D]` on the step clock, T fastest), `state` the
membrane after the last token (None where nothing is remembered), `rate` the share of entries that
fired, a scalar with a gradient. A norm or activation right `before` the neuron is handed over, not
called (None: there is none), because one program on a GPU does both. `neuron.step` is the payload
step theta `[D]`: emissions are whole multiples of it, and `neuron.payloads(emission)` are those
integers.
"""

from spikeloom.neurons.gain import ContextGain
from spikeloom.neurons.graded import GradedLIF
from spikeloom.neurons.lif import LIF
from spikeloom.neurons.modulation import Environment, Modulation
from spikeloom.neurons.neuron import Activation, Neuron, Wire, make_neuron
from spikeloom.neurons.psn import SlidingPSN

__all__ = [
    "LIF", "Activation", "ContextGain", "Environment", "GradedLIF", "Modulation", "Neuron",
    "SlidingPSN", "Wire", "make_neuron",
]  # fmt: skip
