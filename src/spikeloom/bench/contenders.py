"""Who takes part in `spikeloom bench decode`: a step per token, and what comes before a turn."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spikeloom.inference.engine import Engine
from spikeloom.model import SpikeloomForCausalLM

Step = Callable[[int], object]
WARM = range(100, 112)  # tokens over which a share is measured


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """`step` reads a token and makes logits; `ready` comes before each turn and is not timed."""

    step: Step
    ready: Callable[[], None] = _nothing


class Spiking:
    """The event-driven engine at any active share: one factor on all payload steps sets it.

    The shares take turns with one set of weights, as steps are folded into the scales of rows.
    """

    def __init__(self, model: SpikeloomForCausalLM, dtype: str) -> None:
        self.engine = Engine.from_model(model, dtype)
        plan = self.engine.plan
        steps = [n.theta for n in plan.neurons if n.theta is not None]
        scales = [w.scale for n, w in plan.products if n.theta is not None]
        self._given = [(t, t.clone()) for t in (*steps, *scales)]

    def at(self, factor: float) -> Contender:
        """A sequence of its own, with all steps times `factor`."""
        state = self.engine.new_state()
        return Contender(lambda token: self.engine.step(token, state), lambda: self._scale(factor))

    def factors(self, shares: Sequence[float]) -> dict[float, float]:
        """The factor for each active share."""
        return {share: factor_for(share, self._share_at) for share in shares}

    def _share_at(self, factor: float) -> float:
        self._scale(factor)
        return self._share()

    def _share(self) -> float:
        state = self.engine.new_state()
        for token in WARM:
            self.engine.step(token, state)
        return state.active_share

    def _scale(self, factor: float) -> None:
        for tensor, given in self._given:
            torch.mul(given, factor, out=tensor)


def factor_for(share: float, share_at: Callable[[float], float]) -> float:
    """The factor on all payload steps at which `share_at` gives that active share."""
    low, high = -6.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if share_at(2**middle) > share else (low, middle)
    return float(2**middle)


def dense_engine(twin: SpikeloomForCausalLM, dtype: str) -> Contender:
    """The dense twin in our own engine, all rows read."""
    return Contender(Engine.from_model(twin, dtype).step)


def peer(step: Step) -> Contender:
    """Another engine."""
    return Contender(step)


def torch_model(model: SpikeloomForCausalLM, dtype: str) -> Contender:
    """The model token by token with its `DecoderState`; int8 is torch's dynamic quantisation."""
    if dtype == "bfloat16":
        model = copy.deepcopy(model).bfloat16()
    if dtype == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is deprecated in favour of torchao
            model = torch.ao.quantization.quantize_dynamic(untied(model), dtype=torch.qint8)
    state = None

    @torch.inference_mode()
    def step(token: int) -> torch.Tensor:
        nonlocal state
        output = model(torch.tensor([[token]]), past_key_values=state, use_cache=True)
        state = output.past_key_values
        return output.logits

    return Contender(step)


def untied(model: SpikeloomForCausalLM) -> SpikeloomForCausalLM:
    """A copy whose linear layers are plain, as the quantiser knows them."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                plain = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                plain.weight.data.copy_(child.weight.data)
                setattr(parent, name, plain)
    return model
