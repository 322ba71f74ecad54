"""Rotary positions: the rotation itself, packed rows, and one computation for all layers."""

import pytest
import torch
from small_models import build, tokens

from spikeloom.model.rotary import rotate, rotation

THETA, HALF = 100.0, 4


def test_pairs_turn_by_their_angle():
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 7, 8, 9, 1000]])
    x = torch.randn(2, 3, 5, 2 * HALF, dtype=torch.float64)
    turned = rotate(x, rotation(positions, THETA, HALF))
    angle = positions[:, None, :, None] * THETA ** (-torch.arange(HALF, dtype=torch.float64) / HALF)
    pairs = torch.complex(x[..., :HALF], x[..., HALF:])
    wanted = pairs * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(turned, torch.cat([wanted.real, wanted.imag], -1), atol=1e-4, rtol=0)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])  # a document starts unturned


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's
@pytest.mark.parametrize("training", [True, False])
def test_compiled_for_training_angles_are_computed_once_a_base(training):
    model = build("mixed").train(training)  # two attention layers, a base each
    ids = tokens(2, 9)
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]).expand(2, -1)
    seen = []

    def backend(graph, _):
        seen.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.set_grad_enabled(training):
        found = compiled(input_ids=ids, position_ids=packed).logits
        torch.testing.assert_close(found, model(input_ids=ids, position_ids=packed).logits)
    once = [target for target in seen if target is torch.ops.spikeloom.rotation.default]
    assert len(once) == (2 if training else 0)
