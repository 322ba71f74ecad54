"""Turns on a terminal. The engine's state is kept between them, so no turn is read twice."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.checkpoint import read_run, resolve
from spikeloom.errors import ConfigError
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.inference.guidance import Guided, GuidedState

_COMMAND = re.compile(r"/\w+")
TEMPLATE = ("<|user|>", "<|end|>", "<|assistant|>")
IN_ROLES = Sampling(temperature=0.5, max_new_tokens=200, guidance=1.5)
"""How a model that was tuned on requests is asked, unless the user says otherwise: measured by
research/topics.py (docs/story-model.md)."""
CONTINUED = Sampling(max_new_tokens=200)
"""The same of a model that continues text."""


class Conversation:
    """A state, and what it has still to read.

    Args:
        generator: of the model.
        sampling: how answers are chosen.
        roles: wrap turns in the chat template's role tokens (for a model tuned on them); else a
            turn is plain text that the model continues.

    Raises:
        ConfigError: the tokenizer has no role tokens; or guidance without roles.
    """

    def __init__(self, generator: Generator, sampling: Sampling, roles: bool = False) -> None:
        self.generator, self.sampling, self.roles = generator, sampling, roles
        vocabulary = generator.tokenizer.get_vocab()
        if roles and not all(token in vocabulary for token in TEMPLATE):
            raise ConfigError("this tokenizer has no role tokens: chat without --roles")
        if sampling.guidance != 1:
            if not roles:
                raise ConfigError("guidance holds an answer to a request: it takes --roles")
            guided = Guided(generator.engine, sampling.guidance)
            self.generator = Generator(guided, generator.tokenizer)
        self._role = {token: vocabulary.get(token) for token in TEMPLATE}
        self._turn = 0  # goes on through resets, so that what is asked again is answered anew
        self.reset()

    def reset(self) -> None:
        """Forget all turns."""
        self.state = self.generator.engine.new_state()
        self._unread = [self.generator.tokenizer.bos_token_id]

    @property
    def context(self) -> int:
        """Positions that the model was trained on."""
        return int(self.generator.engine.config.max_position_embeddings)

    def make_room(self, text: str) -> bool:
        """Forget earlier turns, if they leave too little of the context for the answer.

        Returns:
            whether they were forgotten.

        Raises:
            ConfigError: the turn alone leaves no room for an answer.
        """
        turn = len(self._wrapped(text))
        if 1 + turn >= self.context:
            raise ConfigError(
                f"{turn} tokens are too many for a context of {self.context}: ask for less at once"
            )
        asked = self.state.position + len(self._unread) + turn
        wanted = min(self.sampling.max_new_tokens, self.context // 2)
        full = self.state.position > 0 and asked + wanted > self.context
        if full:
            self.reset()
        return full

    def answer(self, text: str, show: Callable[[str], None]) -> str:
        """Read a turn and answer it; Ctrl-C stops the answer, not the conversation.

        Args:
            text: what the user says.
            show: called with each piece of the answer.
        """
        ids, stops = self._unread + self._wrapped(text), self._stops()
        sampling = replace(self.sampling, seed=self.sampling.seed + self._turn)
        if self.roles:  # beyond its context a model talks nonsense
            room = self.context - self.state.position - len(ids)
            sampling = replace(sampling, max_new_tokens=max(1, min(room, sampling.max_new_tokens)))
        pieces: list[str] = []
        position, prompt = self.state.position, ids
        with _interrupts_noted() as interrupts:
            try:
                if isinstance(self.state, GuidedState):
                    without = self._unread + self._wrapped("")
                    self.generator.engine.read_apart(ids[:-1], without[:-1], self.state)
                    prompt = ids[-1:]
                for piece in self.generator.stream(prompt, sampling, self.state, stops):
                    pieces.append(piece)
                    show(piece)
                    if interrupts:
                        break
            except KeyboardInterrupt:  # from `show`
                interrupts.append(True)
        if interrupts:
            show(" …")
        read = self.state.position - position
        self._unread = [*ids, *self.generator.given][read:]
        self._turn += 1
        return "".join(pieces)

    def _wrapped(self, text: str) -> list[int]:
        ids = self.generator.encode(text)
        if not self.roles:
            return ids
        user, end, assistant = (self._role[token] for token in TEMPLATE)
        return [user, *ids, end, assistant]

    def _stops(self) -> Sequence[int]:
        end = [self._role["<|end|>"]] if self.roles else []
        return [self.generator.tokenizer.eos_token_id, *end]


def speaks_in_roles(directory: str | Path) -> bool:
    """Whether a checkpoint was trained on conversations, and so wants its turns wrapped.

    Raises:
        CheckpointError: it is not a checkpoint, or its `run.json` is damaged.
    """
    return bool(read_run(resolve(directory)).get("training", {}).get("chat", False))


@contextmanager
def _interrupts_noted() -> Iterator[list[bool]]:
    """Ctrl-C adds to the list instead of raising: a token half read would spoil the state."""
    noted: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # signals go to the main thread
        return
    before: Any = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def chat(generator: Generator, sampling: Sampling, roles: bool = False) -> list[dict[str, Any]]:
    """Talk on the terminal until /quit or the end of input; returns the turns, each with the
    statistics of its answer."""
    conversation = Conversation(generator, sampling, roles)
    turns: list[dict[str, Any]] = []
    if sys.stdin.isatty():
        how = "" if roles else " This model continues your text."
        print(f"/reset forgets, /quit leaves, Ctrl-C stops an answer.{how}", file=sys.stderr)
    while (text := _read()) is not None:
        if text == "/quit":
            break
        if text == "/reset":
            conversation.reset()
            print("(forgotten)", file=sys.stderr)
        elif _COMMAND.fullmatch(text):
            print(f"({text} is unknown: /reset forgets, /quit leaves)", file=sys.stderr)
        elif text and _has_room(conversation, text):
            answer = conversation.answer(text, _show)
            print()
            turns.append({"user": text, "answer": answer, **conversation.generator.statistics()})
    return turns


def _has_room(conversation: Conversation, text: str) -> bool:
    """Whether a turn can be answered, for which earlier ones may have to be forgotten."""
    if not conversation.roles:
        return True  # a text goes on as far as it is wanted
    try:
        if conversation.make_room(text):
            print("(the context is full: earlier turns are forgotten)", file=sys.stderr)
    except ConfigError as error:
        print(f"({error})", file=sys.stderr)
        return False
    return True


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        print(file=sys.stderr)  # as in a shell: the line is dropped, the prompt comes back
        return ""


def _show(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
