"""A target share that falls while a run goes on."""

import pytest
from tiny_runs import run_of

from spikeloom.errors import ConfigError
from spikeloom.training.pressure import target_share
from spikeloom.training.train import train
from spikeloom.training.trainer import SpikeTrainer
from spikeloom.training.twin import twin_of


@pytest.mark.parametrize(
    ("progress", "target"),
    [(0.0, 0.4), (0.25, 0.4), (0.5, 0.3), (0.625, 0.25), (0.75, 0.2), (1.0, 0.2)],
)
def test_it_falls_in_a_line_from_the_whole_dead_zone_to_three_quarters(progress, target):
    run = run_of(target_active_share=0.2, target_active_share_from=0.4, dead_zone_warmup=0.25)
    assert target_share(run.training, progress) == pytest.approx(target)


def test_a_warm_up_that_ends_later_still_leaves_the_last_target():
    run = run_of(target_active_share=0.2, target_active_share_from=0.4, dead_zone_warmup=0.9)
    assert [target_share(run.training, p) for p in (0.5, 0.74, 0.75, 0.95)] == [0.4, 0.4, 0.2, 0.2]


def test_without_a_start_the_target_stays():
    assert target_share(run_of(target_active_share=0.2).training, 0.1) == 0.2
    assert target_share(run_of().training, 0.1) is None


def test_training_presses_with_the_target_of_the_moment(text, tmp_path, monkeypatch):
    seen, pressure = [], SpikeTrainer._pressure

    def watch(trainer, share, rates):
        seen.append(trainer.target_active_share)
        return pressure(trainer, share, rates)

    monkeypatch.setattr(SpikeTrainer, "_pressure", watch)
    run = run_of(target_active_share=0.1, target_active_share_from=0.4, max_steps=6)
    train(run, text, tmp_path / "run")
    assert seen == [target_share(run.training, step / 6) for step in range(6)]
    assert (seen[0], seen[-1]) == (0.4, 0.1)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(("target", "why"), [(None, "to fall to"), (0.5, r"\(0\.5\) to 1")])
def test_it_has_to_fall(target, why):
    with pytest.raises(ConfigError, match=rf"target_active_share_from: 0\.4 .*{why}"):
        run_of(target_active_share=target, target_active_share_from=0.4)


def test_a_twin_feels_no_pressure():
    run = run_of(target_active_share=0.2, target_active_share_from=0.4)
    for kind in ("dense", "quantised"):
        training = twin_of(run, kind).training
        assert (training.target_active_share, training.target_active_share_from) == (None, None)
