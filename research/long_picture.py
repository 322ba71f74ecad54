"""Table and picture of `gpu_long.sh`: `python research/long_picture.py FOLDER FILE.png`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from spikeloom.evaluation.pictures import by_position
from spikeloom.evaluation.text_report import print_positions


def main() -> None:
    folder, picture = Path(sys.argv[1]), Path(sys.argv[2])
    files = sorted(folder.glob("*.positions.json"))
    models = [model for file in files for model in json.loads(file.read_text())["models"]]
    if not models:
        sys.exit(f"error: no *.positions.json in {folder}: unpack results.tar.gz there first")
    print_positions(models)
    by_position(models, picture)


if __name__ == "__main__":
    main()
