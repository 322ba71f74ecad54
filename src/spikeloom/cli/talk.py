"""Verbs that have a model write: continue texts, or talk."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Backend, Checkpoint, Json, Seed, write_json
from spikeloom.errors import ConfigError

talk_app = typer.Typer()


@talk_app.command()
def generate(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="How the text begins.")] = "",
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Continue every line of it instead, with seeds N, N+1…"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens to add.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    seed: Seed = 0,
    category: Annotated[
        str | None, typer.Option(help="Of the text, for a model trained with metadata.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    backend: Backend = "torch",
    json_file: Json = None,
) -> None:
    """Continue a text, streaming to the terminal; or many (--prompts), each printed when done."""
    from spikeloom import backends
    from spikeloom.inference.conditioned import conditioned_prompt
    from spikeloom.inference.generate import Sampling

    sampling = Sampling(temperature, top_p, seed, max_new_tokens)
    generator = backends.generator(backend, checkpoint)
    given = {"category": category, "source": source}
    if prompts is not None:
        if prompt or backend != "torch" or any(given.values()):
            raise ConfigError("--prompts goes with neither --prompt, --category nor --backend")
        write_json(_generate_all(generator, checkpoint, prompts, sampling), json_file)
        return
    start = conditioned_prompt(generator, checkpoint, prompt, given)
    pieces = []
    sys.stdout.write(prompt)
    for piece in generator.stream(start, sampling):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    write_json({"prompt": prompt, "text": "".join(pieces), **generator.statistics()}, json_file)


@talk_app.command()
def chat(
    checkpoint: Checkpoint,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens per answer; default: 200.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is greedy; default: 0.5 with --roles, 0.8 with --continue."),
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling; default: 0.95.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Above 1: hold answers to the request, at twice the weights per token; 1: as the "
            "model says; default: 1.5 with --roles, 1 with --continue."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the sampling; default: another one every time.")
    ] = None,
    roles: Annotated[
        bool | None,
        typer.Option(
            "--roles/--continue",
            help="Wrap turns in the chat template, or have the model continue them; default: as "
            "it was trained.",
        ),
    ] = None,
    backend: Backend = "torch",
    json_file: Json = None,
) -> None:
    """Talk to a model; the state is kept between turns. /reset forgets, /quit or Ctrl-D leaves.

    Ctrl-C stops the answer only.
    """
    import secrets

    from spikeloom import backends
    from spikeloom.inference.chat import CONTINUED, IN_ROLES, speaks_in_roles
    from spikeloom.inference.chat import chat as run_chat

    roles = speaks_in_roles(checkpoint) if roles is None else roles
    asked: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "guidance": guidance,
        "seed": secrets.randbits(31) if seed is None else seed,
    }
    chosen = {name: value for name, value in asked.items() if value is not None}
    sampling = replace(IN_ROLES if roles else CONTINUED, **chosen)
    generator = backends.generator(backend, checkpoint)
    turns = run_chat(generator, sampling, roles)
    write_json({"turns": turns, "roles": roles, **asdict(sampling)}, json_file)


def _generate_all(generator: Any, checkpoint: Path, prompts: Path, sampling: Any) -> Any:
    from spikeloom.checkpoint import resolve
    from spikeloom.inference.batch import generate_texts

    lines = [line for line in prompts.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"--prompts {prompts}: there is no prompt in it, give one per line")
    given = generate_texts(generator, resolve(checkpoint), lines, sampling)
    texts = [generator.tokenizer.decode(ids, skip_special_tokens=True) for ids in given]
    for line, text in zip(lines, texts, strict=True):
        print(f"{line}{text}\n")
    return [{"prompt": line, "text": text} for line, text in zip(lines, texts, strict=True)]
