"""Twins: the models that a spiking model is measured against, made from the same config."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig, NeuronsConfig

AnyConfig = TypeVar("AnyConfig")


def dense_twin(config: AnyConfig, mixer: str | None = "attention") -> AnyConfig:
    """The same sizes without neurons: dense softmax attention and squared ReLU.

    A recurrent_lif layer stays the recurrence it is, with a smooth unit in place of the spike
    (`spikeloom.ops.lif.recurrent.recurrent_unit`): attention has other weights and other memory.

    Args:
        config: a `ModelConfig` or `SpikeloomConfig`.
        mixer: what replaces every mixer; full softmax attention is the strictest comparison, None
            keeps the mixers (and windows) as they are.
    """
    model = replace(_architecture(config), spiking=False)
    layers = tuple(_dense_layer(layer, mixer) for layer in model.layers)
    return _like(config, replace(model, layers=layers))


def quantised_twin(config: AnyConfig) -> AnyConfig:
    """The same payload bits without spiking: every level is sent, nothing is remembered.

    A graded neuron without dead zone and leak is a uniform quantiser with learned step (LSQ, Esser
    et al. 2020); its gradient passes wherever the quantiser does not clip. The neuron of a
    recurrent_lif layer keeps its spikes and loses its membrane: a binary recurrent unit. Rate codes
    and salience stay: their step clock, or their choice of tokens, is what they are.
    """
    model = _architecture(config)
    quantisers = {f.name: _quantiser(getattr(model.neurons, f.name)) for f in fields(NeuronsConfig)}
    if any(layer.mixer == "recurrent_lif" for layer in model.layers):
        ours = model.neurons.mixer_output
        quantisers["mixer_output"] = NeuronConfig(
            kind="lif", v_threshold=ours.v_threshold, surrogate=ours.surrogate
        )
    layers = tuple(map(_quantised_layer, model.layers))
    neurons = NeuronsConfig(**quantisers)
    return _like(config, replace(model, neurons=neurons, layers=layers, num_steps=1))


def _quantiser(neuron: NeuronConfig) -> NeuronConfig:
    if neuron.kind == "none":
        return neuron
    if neuron.kind in ("lif", "psn"):  # spikes of 0 and 1
        return NeuronConfig(signed=False, levels=1, fire_level=1, theta=1.0, window=0.0)
    kept = {name: getattr(neuron, name) for name in ("signed", "levels", "theta", "gain_rank")}
    return NeuronConfig(fire_level=1, window=0.0, **kept)


def _quantised_layer(layer: LayerConfig) -> LayerConfig:
    behind = {name: getattr(layer, name) for name in ("mixer_spikes", "mlp_spikes")}
    made: dict[str, Any] = {k: n if n is None else _quantiser(n) for k, n in behind.items()}
    return replace(layer, mlp="relu2" if layer.mlp == "spiking" else layer.mlp, **made)


def _dense_layer(layer: LayerConfig, mixer: str | None) -> LayerConfig:
    if mixer is None or layer.mixer == "recurrent_lif":
        return layer
    return LayerConfig(mixer=mixer, mlp=layer.mlp, rope_theta=layer.rope_theta, gate=layer.gate)


def _architecture(config: AnyConfig) -> ModelConfig:
    return config if isinstance(config, ModelConfig) else config.architecture  # type: ignore[attr-defined]


def _like(config: AnyConfig, model: ModelConfig) -> AnyConfig:
    if isinstance(config, ModelConfig):
        return model  # type: ignore[return-value]
    return type(config).from_architecture(model)  # type: ignore[attr-defined]
