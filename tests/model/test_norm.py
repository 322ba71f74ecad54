"""The RMSNorm: torch's own, but that silence passes no gradient."""

import pytest
import torch

from spikeloom.backends.numpy.layers import rms_norm
from spikeloom.model.norm import RMSNorm

EPS = 1e-6


def silent_rows(dtype=torch.float64):
    """`[2, 3, 8]`: the second row of each is silent."""
    x = torch.randn(2, 3, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0
    return x.requires_grad_()


def norm_of(kind, dtype=torch.float64):
    norm = kind(8, eps=EPS, dtype=dtype)
    torch.nn.init.normal_(norm.weight, 1.0, 0.1, generator=torch.Generator().manual_seed(1))
    return norm


def gradients(norm, x):
    upstream = torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape).cos()
    y = norm(x)
    return y, *torch.autograd.grad((y * upstream).sum(), [x, norm.weight])


def test_a_silent_row_passes_no_gradient():
    ours, torchs = (gradients(norm_of(kind), silent_rows()) for kind in (RMSNorm, torch.nn.RMSNorm))
    assert torch.equal(ours[0], torchs[0])
    torch.testing.assert_close(ours[2], torchs[2])
    fires = torch.tensor([True, False, True])
    torch.testing.assert_close(ours[1][:, fires], torchs[1][:, fires])
    assert not ours[1][:, 1].any()
    assert torchs[1][:, 1].abs().max() > 100  # what would blow up


def test_numpy_agrees():
    x, norm = silent_rows(), norm_of(RMSNorm)
    y, by_x, by_gain = gradients(norm, x)
    found, pull = rms_norm(x.detach().numpy(), {"n.weight": norm.weight.detach().numpy()}, "n", EPS)
    grads = {}
    dx = pull(torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape).cos().numpy(), grads)
    assert found == pytest.approx(y.detach().numpy())
    assert dx == pytest.approx(by_x.numpy())
    assert grads["n.weight"] == pytest.approx(by_gain.numpy())


def test_a_silent_row_in_mixed_precision():
    x = silent_rows(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        _, by_x, _ = gradients(norm_of(RMSNorm, torch.float32), x)
    assert by_x.dtype == torch.bfloat16
    assert by_x[:, 0].any()
    assert not by_x[:, 1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-4, 1, 300])
def test_weights_of_half_precision_train_on_what_is_evaluated(dtype, size):
    x, norm = (size * silent_rows(torch.float32)).to(dtype).detach(), norm_of(RMSNorm, dtype)
    trained = norm(x.requires_grad_())
    assert trained.dtype == dtype
    wanted = norm_of(torch.nn.RMSNorm, dtype).float()(x.detach().float())
    torch.testing.assert_close(trained.float(), wanted, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(norm(x.detach()), trained, rtol=1e-2, atol=1e-2)
