"""Milliseconds per token at batch 1 on a GPU: a spiking model beside its dense twin.

Both run as `inference.graph_step`: one step in a CUDA graph, as it is and compiled, the likeliest
token fed back on the device, nothing that waits for the CPU. Weights are random and bfloat16;
contenders take turns, each behind the same prompt.

With `event-driven` products the spiking model reads only the rows of channels that fire: at the
active share of its initial weights and, by one factor on all payload steps, near `SHARES`; a row
says what share its tokens had. The peer there is the fastest form of the twin: products as they
are, joined where they read the same, or our own programs, which skip what its ReLU leaves at 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch

from spikeloom.bench.contenders import factor_for
from spikeloom.bench.decode_check import check_in_bfloat16, check_in_float32
from spikeloom.bench.neuron_peers import say
from spikeloom.bench.options import Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.config import load_config
from spikeloom.inference.graph_step import GraphStep
from spikeloom.inference.step_products import EVENT_DRIVEN, FORMS, GIVEN
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    active_share,
    dense_twin,
    fed_weights,
    neurons,
)
from spikeloom.neurons.graded import GradedLIF

PRESETS = ("spikeloom-15m", "spikeloom-125m")
ROOM, PROMPT, TURN, TURNS = 512, 64, 32, 9
SHARES = (0.29, 0.2)  # what presets are trained to, and where the targets on a CPU stand
TARGET = 1.0
DEVICE = "cuda"


class Contender:
    """A captured step, and the factor on the payload steps of its model.

    Contenders of several factors share a step: its graph reads the payload steps from the model.
    """

    def __init__(self, step: GraphStep, prompt: list[int]) -> None:
        self.step, self.prompt, self.factor = step, prompt, 1.0
        graded = [n for n in neurons(step.model).values() if isinstance(n, GradedLIF)]
        self._given = [(n.log_theta, n.log_theta.detach().clone()) for n in graded]

    def near(self, share: float) -> Contender:
        """The same step at another active share."""
        other = Contender(self.step, self.prompt)
        other.factor = factor_for(share, lambda factor: self._share_at(factor, self.prompt))
        self._scale(self.factor)
        return other

    def ready(self) -> None:
        """Read the prompt, not timed."""
        self._scale(self.factor)
        self.step.reset()
        self.step.advance(self.prompt)

    def share(self) -> float:
        """Active share over the prompt and a turn of tokens behind it; 1 without neurons."""
        self.ready()
        self.step.advance(count=TURN)
        written = self.step.written[len(self.prompt) - 1 :][:TURN].tolist()
        found = self._share_at(self.factor, self.prompt + written)
        self._scale(1.0)
        return found

    @torch.no_grad()
    def _share_at(self, factor: float, tokens: list[int]) -> float:
        self._scale(factor)
        model = self.step.model
        output = model(torch.tensor([tokens], device=model.device))
        return float(active_share(output.firing_rates, fed_weights(model)))

    @torch.no_grad()
    def _scale(self, factor: float) -> None:
        for log_theta, given in self._given:
            log_theta.copy_(given + torch.tensor(factor).log())


def against_dense_twin(options: Options) -> Iterator[Row]:
    """Spiking against dense, preset by preset.

    Raises:
        RuntimeError: a captured step computes something else than its model.
    """
    for preset in options.select(PRESETS, quick=1):
        for compiled in (False, True)[: 1 if options.quick else None]:
            yield from compare(preset, compiled)


def compare(preset: str, compiled: bool) -> Iterator[Row]:
    """The plain form of both models, then event-driven products against the twin's best form."""
    torch.manual_seed(0)
    config = SpikeloomConfig.from_architecture(load_config(preset).model)
    prompt = torch.randint(config.vocab_size, (PROMPT,)).tolist()
    twin, spiking = dense_twin(config), f"{preset}, spiking"
    dense = {f: contender(f"{preset}, dense twin", twin, prompt, compiled, f) for f in FORMS}
    plain = contender(spiking, config, prompt, compiled, GIVEN)
    sparse = contender(spiking, config, prompt, compiled, EVENT_DRIVEN)
    ours = {GIVEN: plain, "initial": sparse, **{str(s): sparse.near(s) for s in SHARES}}
    times = in_turns({**ours, **{f"dense, {form}": c for form, c in dense.items()}})
    twins = {form: times[f"dense, {form}"] for form in FORMS}
    for form, (ms, spread) in twins.items():
        say(f"{preset}, dense twin, {form} products: {ms:.4f} ms, spread {spread:.0%}")
    best = min(twins, key=lambda form: twins[form].ms)
    for name, one in ours.items():
        form = GIVEN if name == GIVEN else EVENT_DRIVEN
        peer = GIVEN if name == GIVEN else best
        target = TARGET if compiled and form == EVENT_DRIVEN else None
        what = f"{preset}, {form} products, active share {one.share():.2f}"
        yield row(what, compiled, times[name], twins[peer], f"dense twin, {peer} products", target)


def row(
    what: str, compiled: bool, ours: Timing, peer: Timing, peer_name: str, target: float | None
) -> Row:
    form = "compiled, in a CUDA graph" if compiled else "in a CUDA graph"
    case = f"{what}, bfloat16, batch 1, a token behind {PROMPT}, {form}"
    return Row(case, device_name(DEVICE), ours.ms, peer.ms, peer_name, "ms", target, ours.spread)


def contender(
    name: str, config: SpikeloomConfig, prompt: list[int], compiled: bool, products: str
) -> Contender:
    """A captured step that says what its model says; only spikes need the check in float32."""
    began, what = time.perf_counter(), f"{name}, {products} products"
    if config.architecture.spiking and (compiled or products != GIVEN):
        say(f"{what}: {check_in_float32(config, prompt, compiled, DEVICE, products)}")
    with torch.device(DEVICE):
        model = SpikeloomForCausalLM(config).bfloat16().eval()
    step = GraphStep(model, ROOM, compiled, products)
    say(f"{what}: {check_in_bfloat16(step, prompt)}, {time.perf_counter() - began:.0f} s")
    return Contender(step, prompt)


def in_turns(contenders: Mapping[str, Contender]) -> dict[str, Timing]:
    """Milliseconds per token, `TURN` tokens at a time, behind the prompt."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, one in contenders.items():
            one.ready()
            torch.cuda.synchronize()
            before = time.perf_counter()
            one.step.advance(count=TURN)
            torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - before) / TURN)
    return {name: summarise(ms) for name, ms in times.items()}
