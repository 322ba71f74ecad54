"""What asking costs, before and after: an estimate from characters, a sum from tokens used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spikeloom.errors import ConfigError

# Dollars for a million tokens (input, output), as published by Anthropic and known to us in
# December 2025; not checked since. `--price` overrides.
PRICES_AS_OF = "2025-12"
PRICES = {
    "claude-haiku-4-5": (1.0, 5.0),
    "claude-sonnet-4-5": (3.0, 15.0),
    "claude-opus-4-5": (5.0, 25.0),
}
BATCH_DISCOUNT = 0.5
CHARACTERS_PER_TOKEN = 3.5  # English prose, on the careful side
TOKENS_PER_PAIR = 60  # of an answer: question, answer and JSON around them


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens."""

    input: float
    output: float

    def dollars(self, input_tokens: float, output_tokens: float) -> float:
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


def price_of(model: str, given: tuple[float, float] | None, batch: bool) -> Price:
    """The price of a model, halved for batches.

    Raises:
        ConfigError: the model is not in the table, and no price was given.
    """
    known = [price for name, price in PRICES.items() if model.startswith(name)]
    if given is None and not known:
        raise ConfigError(f"--model {model}: its price is not known here: give --price IN OUT")
    into, out = given or known[0]
    share = BATCH_DISCOUNT if batch else 1.0
    return Price(into * share, out * share)


def estimated_tokens(prompts: Iterable[str], pairs: int) -> tuple[int, int]:
    """Input and output tokens of asking for so many pairs with each prompt."""
    lengths = [len(prompt) for prompt in prompts]
    return round(sum(lengths) / CHARACTERS_PER_TOKEN), len(lengths) * pairs * TOKENS_PER_PAIR
