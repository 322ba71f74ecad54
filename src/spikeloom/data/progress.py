"""The progress bar of everything that reads documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import FileSizeColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def byte_bar(progress: bool, label: str) -> Iterator[Callable[[int], None]]:
    """A bar that counts bytes of text as it is told; the total is not known beforehand."""
    columns = (TextColumn(label), FileSizeColumn(), TimeElapsedColumn())
    quiet = not (progress and sys.stderr.isatty())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(label, total=None)
        yield lambda size: bar.advance(task, size)
