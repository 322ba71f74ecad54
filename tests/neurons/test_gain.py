"""A gain per channel from all channels: nothing at first, then what the context makes of it."""

import pytest
import torch

from spikeloom.config import NeuronConfig, parse_run
from spikeloom.errors import ConfigError
from spikeloom.metrics import Recorder, operations
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    dense_twin,
    quantised_twin,
)
from spikeloom.model.products import active_share, fed_weights, products
from spikeloom.model.sizes import describe
from spikeloom.neurons import ContextGain, make_neuron

SIZE, RANK = 16, 3
PLAIN = {"levels": 8, "fire_level": 3, "theta": 0.3}


def neuron(**changes):
    made = make_neuron(NeuronConfig(**PLAIN, **changes), SIZE)
    for module in made.modules():
        module.reset_parameters()
    return made


def currents(*shape, seed=0):
    return torch.randn(*shape, SIZE, generator=torch.Generator().manual_seed(seed))


def opened(made, seed=0):
    """The gain has learned something."""
    generator = torch.Generator().manual_seed(seed)
    made.gain.widen.data = torch.randn(SIZE, RANK, generator=generator)
    return made


def model(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": SIZE, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
    neurons = {"default": {**PLAIN, "gain_rank": RANK}, "mlp_hidden": {"gain_rank": 0}}
    run = parse_run({"model": {**sizes, "neurons": neurons, **changes}})
    return SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model)).eval()


def test_at_first_it_changes_nothing():
    x = currents(2, 9)
    for ours, plain in zip(neuron(gain_rank=RANK)(x), neuron()(x), strict=True):
        assert ours is plain is None or torch.equal(ours, plain)


def test_the_equation():
    made = opened(neuron(gain_rank=RANK, beta=0.5))
    made.gain.bias.data = currents(seed=1)
    x, norm = currents(2, 9), torch.nn.RMSNorm(SIZE)
    heard = norm(x)
    scores = heard @ made.gain.narrow.T @ made.gain.widen.T + made.gain.bias
    plain = neuron(beta=0.5)
    assert torch.equal(made(x, before=norm)[0], plain(2 * torch.sigmoid(scores) * heard)[0])
    assert not torch.equal(made(x, before=norm)[0], plain(heard)[0])


def test_it_learns():
    made, x = neuron(gain_rank=RANK), currents(4, 9)
    emission, _, rate = made(x)
    (emission.square().sum() + rate).backward()
    assert made.gain.widen.grad.any()
    assert made.gain.bias.grad.any()
    assert not made.gain.narrow.grad.any()  # nothing hears it yet
    emission, _, rate = opened(made)(x)
    rate.backward()
    assert made.gain.narrow.grad.any()


def test_its_weights_count_as_read():
    ours = model()
    own = 7 * 2 * RANK * SIZE  # mixer in and out, MLP in, twice, and the head
    assert sum(m.weights for m in ours.modules() if isinstance(m, ContextGain)) == own
    assert describe(ours)["weights_in_gains"] == own
    fed, stored = fed_weights(ours), sum(p.weights for p in products(ours))
    assert (fed[-1].item(), fed.sum().item()) == (own, stored + own)
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    with Recorder(ours) as recorder, torch.no_grad():
        rates = ours(ids).firing_rates
    counted = operations(ours, recorder, lambda window: 3.0)
    touched = torch.dot(rates, fed[:-1]).item() + own
    assert active_share(rates, fed).item() == pytest.approx(touched / (stored + own))
    assert counted.active_share == pytest.approx(touched / (stored + own), rel=1e-5)
    assert counted.weights == stored + own
    gains = [p for p in counted.products if p.name.endswith(".gain")]
    assert sum(p.macs for p in gains) == own
    assert not any(p.spikes or p.graded_macs for p in gains)


def test_a_dense_twin_has_none_and_a_quantised_one_keeps_it():
    architecture = model().config.architecture
    kept = [dense_twin(architecture), quantised_twin(architecture)]
    assert [twin.neurons.mlp_input.gain_rank for twin in kept] == [0, RANK]


@pytest.mark.parametrize(("kind", "rank"), [("lif", 2), ("psn", 2), ("graded", -1)])
def test_impossible_ranks_are_refused(kind, rank):
    with pytest.raises(ConfigError, match=rf"gain_rank: {rank} "):
        NeuronConfig(kind=kind, gain_rank=rank)
