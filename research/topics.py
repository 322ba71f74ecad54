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
from spikeloom import tokenizers
from spikeloom.inference.engine import Engine

HEROES = {
    "named": (
        "dog named Max", "girl named Lily", "bird named Kiki", "cat named Nora",
        "boy named Tim", "bear named Otto", "rabbit named Rosa", "frog named Fred",
    ),
    "not named": ("dragon", "princess", "farmer", "cat", "fairy", "bear", "pirate", "duck"),
}  # fmt: skip
THINGS = ("ball", "kite", "boat", "cake", "tree", "hat")
SAMPLING = ((0.0, 1.0), (0.3, 0.95), (0.5, 0.95), (0.8, 0.95), (1.0, 0.95))  # temperature, top-p
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
    directory = parser.parse_args().checkpoint
    engine, tokenizer = Engine.load(directory), tokenizers.load(directory)
    stops = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}
    print(
        "| hero | temperature | top-p | stories | hero to the end | thing again |\n"
        "|---|---|---|---|---|---|"
    )
    for (group, heroes), (temperature, top_p) in itertools.product(HEROES.items(), SAMPLING):
        told = []
        for seed, (hero, thing) in enumerate(itertools.product(heroes, THINGS)):
            asked = [{"role": "user", "content": f"Tell me a story about a {hero} and a {thing}."}]
            ids = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_dict=False
            )
            story = engine.generate(ids, TOKENS, temperature, top_p, seed, stops)
            told.append(stays(tokenizer.decode([*story], skip_special_tokens=True), hero, thing))
        kept = " | ".join(f"{sum(column) / len(told):.0%}" for column in zip(*told, strict=True))
        print(f"| {group} | {temperature} | {top_p} | {len(told)} | {kept} |", flush=True)


if __name__ == "__main__":
    main()
