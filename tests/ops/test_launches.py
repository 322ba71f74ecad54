"""Programs are compiled side by side, once, and launched in the order that they were added."""

import threading

import pytest
import torch

launches = pytest.importorskip("spikeloom.ops.launches", reason="triton is not installed")


class Program:
    """Stands in for a compiled program; compiling waits until another one compiles, too."""

    def __init__(self, name, together, said):
        self.name, self.together, self.said = name, together, said
        self.device_caches = [None]

    def warmup(self, *arguments, grid, **options):
        self.together.wait(timeout=10)
        self.said.append(f"compiled for {grid}")
        return self

    @property
    def run(self):
        self.said.append("made a launcher")

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.said.append((self.name, grid, arguments, options))


@pytest.fixture
def programs(monkeypatch):
    monkeypatch.setattr(launches.triton, "JITFunction", Program)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(launches, "_compiled", set())
    together, said = threading.Barrier(2), []
    return [Program(name, together, said) for name in "ab"], said


def ask(programs):
    asked = launches.Launches()
    asked.add(programs[0], (3, 1), 5, warps=4)
    asked.add(programs[1], (2,))
    asked.run("both")


def test_both_compile_at_once_and_run_in_order(programs):
    programs, said = programs
    ask(programs)
    assert sorted(said[:4]) == [
        "compiled for (2,)",
        "compiled for (3, 1)",
        *["made a launcher"] * 2,
    ]
    assert said[4:] == [("a", (3, 1), (5,), {"warps": 4}), ("b", (2,), (), {})]


def test_the_second_time_nothing_is_compiled(programs):
    programs, said = programs
    ask(programs)
    said.clear()
    ask(programs)
    assert [entry[0] for entry in said] == ["a", "b"]


def test_what_cannot_be_compiled_is_not_launched(programs):
    programs, said = programs
    programs[0].warmup = lambda *arguments, **options: 1 / 0
    programs[0].together.abort()
    with pytest.raises((ZeroDivisionError, threading.BrokenBarrierError)):
        ask(programs)
    assert said == []
