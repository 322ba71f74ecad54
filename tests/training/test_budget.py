"""How long a run lasts, and the learning rate along the way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.config import TrainingConfig
from spikeloom.errors import ConfigError
from spikeloom.training import budget as module
from spikeloom.training.budget import UNBOUNDED, Budget, learning_rate_factor


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_budget_is_needed():
    with pytest.raises(ConfigError, match="--max-steps, --max-tokens or --max-minutes"):
        Budget.of(TrainingConfig(), 100)


@pytest.mark.parametrize(
    ("given_budget", "steps", "seconds"),
    [
        ({"max_steps": 7}, 7, None),
        ({"max_tokens": 1000}, 10, None),
        ({"max_tokens": 1}, 1, None),
        ({"max_minutes": 0.5}, UNBOUNDED, 30.0),
        ({"max_steps": 7, "max_tokens": 600, "max_minutes": 2.0}, 6, 120.0),
        ({"max_steps": 5, "max_tokens": 600}, 5, None),
    ],
)
def test_steps_tokens_and_minutes(given_budget, steps, seconds):
    budget = Budget.of(TrainingConfig(**given_budget), tokens_per_step=100)
    assert (budget.max_steps, budget.max_seconds) == (steps, seconds)


def test_whichever_is_used_up_first_ends_the_run(clock):
    budget = Budget.of(TrainingConfig(max_steps=10, max_minutes=1.0), 100)
    budget.start()
    assert budget.progress(0) == 0.0
    clock.now += 6
    budget.read_clock()
    assert budget.progress(0) == 0.1
    assert budget.progress(5) == 0.5
    assert budget.progress(11) == 1.0
    clock.now += 60
    budget.read_clock()
    assert budget.progress(5) == 1.0


def test_all_that_asks_between_two_readings_sees_the_same_progress(clock):
    budget = Budget.of(TrainingConfig(max_minutes=1.0), 100)
    budget.start()
    clock.now += 30
    assert budget.progress(1) == budget.progress(1) == 1 / UNBOUNDED
    budget.read_clock()
    clock.now += 30
    assert budget.progress(1) == 0.5


def test_earlier_sittings_count(clock):
    budget = Budget.of(TrainingConfig(max_minutes=1.0), 100)
    budget.take_up(45.0)
    assert budget.progress(0) == 0.75  # at once: nothing may be left
    budget.start()
    clock.now += 6
    assert budget.seconds == 51.0
    budget.read_clock()
    assert budget.progress(0) == 51 / 60


SCHEDULES = ["cosine", "cosine_with_restarts", "constant"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_from_nearly_nothing(schedule):
    config = TrainingConfig(schedule=schedule, warmup=0.2)
    assert learning_rate_factor(0.0, config) == 1e-3
    assert learning_rate_factor(0.1, config) == pytest.approx(0.5)
    assert learning_rate_factor(0.2, config) == 1.0


def test_without_warm_up_the_peak_comes_first():
    assert learning_rate_factor(0.0, TrainingConfig(warmup=0.0)) == 1.0


def test_cosine_ends_at_the_floor():
    config = TrainingConfig(warmup=0.2, min_learning_rate=0.1)
    assert learning_rate_factor(0.6, config) == pytest.approx(0.55)
    assert learning_rate_factor(1.0, config) == pytest.approx(0.1)


def test_restarts_start_again_and_end_at_the_floor():
    config = TrainingConfig(schedule="cosine_with_restarts", restarts=4, warmup=0.2)
    at = [0.2, 0.4, 0.6, 0.8]
    assert [learning_rate_factor(p + 1e-9, config) for p in at] == pytest.approx([1.0] * 4)
    before = [learning_rate_factor(p - 1e-9, config) for p in [0.4, 0.6, 0.8, 1.0]]
    assert before == pytest.approx([0.05] * 4)
    assert learning_rate_factor(1.0, config) == pytest.approx(0.05)
    assert learning_rate_factor(0.5, config) == pytest.approx(0.525)


def test_constant_stays():
    config = TrainingConfig(schedule="constant", warmup=0.1)
    assert {learning_rate_factor(p, config) for p in (0.1, 0.5, 1.0)} == {1.0}


@given(
    st.floats(0, 1),
    st.builds(
        TrainingConfig,
        schedule=st.sampled_from(SCHEDULES),
        warmup=st.floats(0, 0.99),
        restarts=st.integers(1, 9),
        min_learning_rate=st.floats(0, 1),
    ),
)
def test_the_factor_is_always_a_share(progress, config):
    factor = learning_rate_factor(progress, config)
    assert math.isfinite(factor)
    assert 0 <= factor <= 1 + 1e-12
