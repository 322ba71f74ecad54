"""The group `spikeloom data …`: getting text, turning it into records, and handing it on.

Its verbs stand in files of their own, by what they do; what one needs is imported when it runs.
"""

from __future__ import annotations

import typer

from spikeloom.cli.prepare import prepare_app
from spikeloom.cli.records import records_app
from spikeloom.cli.requests import requests
from spikeloom.cli.web import web_app

data_app = typer.Typer(
    name="data",
    help="Get text from the web or a dump, clean it, turn it into records, and publish it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app.add_typer(prepare_app)
data_app.add_typer(web_app)
data_app.add_typer(records_app)
data_app.command()(requests)


@data_app.callback()
def about() -> None:
    """Every verb leaves a manifest beside its output, and goes on where it was stopped."""
