"""Table and picture of `gpu_long.sh`: `python research/long_picture.py FOLDER FILE.png`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spikeloom.evaluation.pictures import by_position
from spikeloom.evaluation.text_report import print_positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where results.tar.gz was unpacked")
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    files = sorted(given.folder.glob("*.positions.json"))
    models = [model for file in files for model in json.loads(file.read_text())["models"]]
    if not models:
        parser.error(f"no *.positions.json in {given.folder}: unpack results.tar.gz there first")
    print_positions(models)
    by_position(models, given.picture)


if __name__ == "__main__":
    main()
