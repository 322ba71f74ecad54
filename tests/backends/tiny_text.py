"""A text so plain that a handful of steps learns something."""

import json


def write_text(path):
    """Twenty short documents as `.jsonl`; returns the path."""
    lines = [json.dumps({"text": "the cat sat on the mat. " * 8 + str(i)}) for i in range(20)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
