"""`spikeloom data …`: getting text, turning it into records, and handing it on.

Like cli.py: one function per verb, and what a verb needs is imported when it runs.
"""

from __future__ import annotations

import typer

data_app = typer.Typer(
    name="data",
    help="Get text from the web or a dump, clean it, turn it into records, and publish it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data_app.callback()
def about() -> None:
    """Every verb leaves a manifest beside its output, and goes on where it was stopped."""
