"""How Triton programs are launched: one after another, or where torch.compile sees into them."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton

_compiled: set[Hashable] = set()


def wrap_triton(program: Any) -> Any:
    """`torch.library.wrap_triton`; programs in Triton's interpreter, which it refuses, as they are.

    Inside a `torch.library.triton_op` call it by this name, on a global name: from the source text
    torch learns which programs an operator has, and compiles anew when one of them changed.
    """
    if not isinstance(program, triton.JITFunction):
        return program
    return torch.library.wrap_triton(program)


class Launches:
    """What an operator is about to launch.

    Compilers wait for each other only inside Python: six programs take about as long as two.
    """

    def __init__(self) -> None:
        self._given: list[tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = []

    def add(self, program: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        """One more, behind those that were added before."""
        self._given.append((program, grid, arguments, options))

    def run(self, kind: Hashable) -> None:
        """Launch all.

        Args:
            kind: what the same programs have in common; the first of a kind compiles them. Where
                this is too coarse, Triton compiles at the launch.
        """
        if all(isinstance(program, triton.JITFunction) for program, *_ in self._given):
            self._compile_once(torch.cuda.current_device(), kind)  # else they are interpreted
        for program, grid, arguments, options in self._given:
            program[grid](*arguments, **options)

    def _compile_once(self, device: int, kind: Hashable) -> None:
        """Ask for every program, and for what launches it, in a thread of its own."""
        if (device, kind) in _compiled:
            return
        jobs = [self._job(device, *given) for given in self._given]
        with ThreadPoolExecutor(len(jobs)) as threads:
            for done in [threads.submit(job) for job in jobs]:
                done.result()
        _compiled.add((device, kind))

    @staticmethod
    def _job(device, program, grid, arguments, options):  # type: ignore[no-untyped-def]
        program.device_caches[device]  # made here: threads that both make it lose one's programs

        def job() -> None:
            torch.cuda.set_device(device)
            program.warmup(*arguments, grid=grid, **options).run  # noqa: B018 (makes the launcher)

        return job
