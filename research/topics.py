"""Does a story stay with who and what was asked for? `python research/topics.py [CHECKPOINT]`.

Counted by words, in stories of at most 200 tokens: who (kind or name) is in the last third, and the
thing occurs at least twice. Without CHECKPOINT, of the model that comes with the package.
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

import spikeloom
from spikeloom.inference.chat import Conversation
from spikeloom.inference.generate import Generator, Sampling

THINGS = ("ball", "kite", "boat", "cake", "tree", "hat")
ASKED = {  # heroes and things; how the shipped model is asked was chosen by the first two groups
    "named": ((
        "dog named Max", "girl named Lily", "bird named Kiki", "cat named Nora",
        "boy named Tim", "bear named Otto", "rabbit named Rosa", "frog named Fred",
    ), THINGS),
    "not named": (
        ("dragon", "princess", "farmer", "cat", "fairy", "bear", "pirate", "duck"), THINGS
    ),
    "others": (
        ("fox named Rusty", "girl named Anna", "mouse named Pip", "king", "monkey", "robot"),
        ("drum", "bike", "apple", "book", "box", "flower", "balloon", "car"),
    ),
}  # fmt: skip
SAMPLING = (  # temperature, top-p, guidance
    (0.0, 1.0, 1.0), (0.5, 0.95, 1.0), (0.8, 0.95, 1.0), (1.0, 0.95, 1.0),
    (0.0, 1.0, 1.5), (0.5, 0.95, 1.25), (0.5, 0.95, 1.5), (0.5, 0.95, 2.0), (0.8, 0.95, 1.5),
)  # fmt: skip
TOKENS = 200


def stays(story: str, hero: str, thing: str) -> tuple[bool, bool]:
    """Whether the hero is in the last third of the story, and whether the thing comes up again."""
    words = re.findall(r"[a-z]+", story.lower())
    who = {*hero.lower().split()} - {"named"}
    return bool(who & {*words[len(words) * 2 // 3 :]}), words.count(thing) >= 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=spikeloom.pretrained_path())
    generator = Generator.load(parser.parse_args().checkpoint)
    print(
        "| hero | temperature | top-p | guidance | stories | hero to the end | thing again |\n"
        "|---|---|---|---|---|---|---|"
    )
    for (group, pair), how in itertools.product(ASKED.items(), SAMPLING):
        temperature, top_p, guidance = how
        told = []
        for seed, (hero, thing) in enumerate(itertools.product(*pair)):
            sampling = Sampling(temperature, top_p, seed, TOKENS, guidance)
            talk = Conversation(generator, sampling, roles=True)
            request = f"Tell me a story about a {hero} and a {thing}."
            told.append(stays(talk.answer(request, lambda _: None), hero, thing))
        kept = " | ".join(f"{sum(column) / len(told):.0%}" for column in zip(*told, strict=True))
        row = f"| {group} | {temperature} | {top_p} | {guidance} | {len(told)} | {kept} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
