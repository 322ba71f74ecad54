"""GPU benchmarks refuse other devices, and refuse to time what is wrong."""

from types import SimpleNamespace

import pytest
import torch

from spikeloom.bench import attention, event, fla_peers, load, neuron_peers
from spikeloom.bench.agreement import DisagreementError
from spikeloom.bench.kernel_profile import Kernel, table
from spikeloom.bench.options import Options
from spikeloom.errors import ConfigError


@pytest.mark.parametrize("name", ["attention", "event", "lif", "scan"])
def test_they_want_a_gpu(name):
    with pytest.raises(ConfigError, match="--device cuda"):
        next(iter(load(name)("cpu", Options())))


def test_cases_are_chosen_by_name():
    cases = ("15m", "125m", "1m")
    assert Options().select(cases, quick=1) == cases
    assert Options(quick=True).select(cases, quick=1) == ("15m",)
    assert Options(quick=True, case="125m").select(cases, quick=1) == ("125m",)
    with pytest.raises(ConfigError, match=r"case '126m' is unknown \(did you mean '125m'\?\)"):
        Options(case="126m").select(cases)
    with pytest.raises(ConfigError, match="this benchmark has none"):
        Options(case="15m").select(())


def test_targets_stand_where_the_issue_sets_them():
    both = "forward + backward"
    assert attention.target_of("flash SDPA, torch 2", "forward", 8, 64, 1024) == 1.0
    assert attention.target_of("chunk_linear_attn, no decay", both, 8, 64, 4096) == 1.0
    assert attention.target_of("chunk_linear_attn, no decay", "forward", 8, 64, 4096) is None
    assert attention.target_of("chunk_simple_gla", both, 8, 64, 4096) is None
    assert attention.target_of("flash SDPA, torch 2", both, 1, 64, 8192) is None


def test_a_wrong_product_is_not_timed(monkeypatch):
    weights = event.InputMajor(torch.ones(8, 4), torch.ones(8))
    payload = torch.ones(8)
    right = torch.full((4,), 8.0)
    monkeypatch.setattr(event, "product", lambda *_: lambda: [right])
    event.check(payload, weights)
    monkeypatch.setattr(event, "product", lambda *_: lambda: [right * 1.01])
    with pytest.raises(RuntimeError, match="wrong at 8 in, 4 out"):
        event.check(payload, weights)


def test_wrong_attention_is_not_timed(monkeypatch):
    fused = pytest.importorskip("spikeloom.ops.attention.fused", reason="triton is not installed")
    monkeypatch.setattr(attention, "CHECKED", 65)
    attention.check("cpu", torch.float32, K=16)
    monkeypatch.setattr(
        fused, "sdsa", lambda *given: attention.naive.sdsa(given[0] * 1.01, *given[1:])
    )
    with pytest.raises(RuntimeError, match=r"out is off by 0\.01"):
        attention.check("cpu", torch.float32, K=16)


def test_a_tuner_finds_all_its_configurations_compiled(monkeypatch, capsys):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    autotuner = pytest.importorskip("triton.runtime.autotuner")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    compiled = []

    def run(x, *, warmup, SIZE, **options):
        if SIZE == 64:
            raise RuntimeError("out of shared memory")
        compiled.append((x, warmup, SIZE))

    tuner = SimpleNamespace(
        configs=[triton.Config({"SIZE": size}) for size in (16, 32, 64)],
        early_config_prune=None,
        perf_model=None,
        nargs={"x": 7},
        fn=SimpleNamespace(run=run),
        base_fn=test_targets_stand_where_the_issue_sets_them,
    )
    with fla_peers.compiled_side_by_side():
        chosen = autotuner.Autotuner.prune_configs(tuner, {"grid": (1,), "warmup": False})
    assert chosen == tuner.configs
    assert sorted(compiled) == [(7, True, 16), (7, True, 32)]
    assert "3 configurations to tune" in (said := capsys.readouterr().err)
    assert "2 compiled in" in said
    autotuner.Autotuner.prune_configs(tuner, {})
    assert len(compiled) == 2


@pytest.mark.parametrize("kind", neuron_peers.KINDS)
def test_a_wrong_neuron_is_not_timed(kind, capsys):
    programs = pytest.importorskip("spikeloom.ops.lif.scan", reason="triton is not installed")
    case = neuron_peers.case(kind, "5 steps", torch.randn(5, 3, 16))
    assert case.check(programs).flipped == 0
    assert "lanes flipped" in capsys.readouterr().err

    class Leaky:
        """Keeps too much."""

        lif = staticmethod(lambda *x, beta, **n: programs.lif(*x, beta=1.1 * beta, **n))
        graded_lif = staticmethod(
            lambda *x, beta, **n: programs.graded_lif(*x, beta=1.1 * beta, **n)
        )

    with pytest.raises(DisagreementError, match="of the lanes differ"):
        case.check(Leaky)


def test_kernels_are_listed_longest_first_and_per_step():
    kernels = [Kernel("matmul", 40, 6.0), Kernel("norm", 20, 2.0)]
    head, first, second = table("twin", kernels, steps=2).splitlines()
    assert head == "twin: 4.000 ms of kernels a step, 30 launches"
    assert first.split() == ["3.000", "ms", "75.0%", "20.0", "x", "matmul"]
    assert second.endswith("norm")
