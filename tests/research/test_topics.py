"""What counts as staying with who and what was asked for."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "research"))

import topics


@pytest.mark.parametrize(
    ("story", "kept"),
    [
        ("Max had a ball. The ball was red. Max was happy.", (True, True)),
        ("The dog had a ball. It ran and ran. In the end the dog slept.", (True, False)),
        (
            "Max had a ball and a ball. Then Lily came and played all day in her room.",
            (False, True),
        ),
        ("Max had balls. Maxine came and saw them and was very happy.", (False, False)),
        ("", (False, False)),
    ],
)
def test_heroes_are_looked_for_at_the_end_and_things_twice(story, kept):
    assert topics.stays(story, "dog named Max", "ball") == kept
