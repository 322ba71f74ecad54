"""The command line: verbs by what they work on, in a file each.

    models.py     train, eval, compare, verify, profile, presets, info, demo, bench
    talk.py       generate, chat
    heads.py      tag, embed, demo-colour; what `train` and `eval` do with --task
    ship.py       slim, card: a checkpoint made to be handed on
    data.py       the group `data`: web.py collects, records.py asks and shows, prepare.py packs,
                  requests.py turns stories into conversations
    tokenizer.py  the group `tokenizer`
    trace.py      trace
    positions.py  positions: bits per byte over the position in a text
    options.py    options that several verbs share, and how a result is written

What a verb needs is imported when it runs. User errors (`SpikeloomError`) end with one line and
exit code 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys

import typer

from spikeloom.cli.data import data_app
from spikeloom.cli.heads import heads_app
from spikeloom.cli.models import models_app
from spikeloom.cli.positions import positions
from spikeloom.cli.ship import ship_app
from spikeloom.cli.talk import talk_app
from spikeloom.cli.tokenizer import tokenizer_app
from spikeloom.cli.trace import trace
from spikeloom.errors import SpikeloomError

app = typer.Typer(
    name="spikeloom",
    help="Spiking language models: raw text in, a checkpoint directory out, measured honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app.command()(trace)
models_app.command()(positions)
app.add_typer(models_app)
app.add_typer(talk_app)
app.add_typer(heads_app)
app.add_typer(ship_app)
app.add_typer(data_app)
app.add_typer(tokenizer_app)

_DISK_ERRORS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def main() -> None:
    """Entry point of the `spikeloom` command."""
    try:
        app()
    except SpikeloomError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in _DISK_ERRORS or error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _refuse("out of memory: use less text or context at a time, or a smaller --batch-size")


def _is_out_of_memory(error: Exception) -> bool:
    """On any device; torch's own class is known by name, to keep `--help` free of torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _refuse(why: str) -> None:
    print(f"error: {why}", file=sys.stderr)
    sys.exit(2)
