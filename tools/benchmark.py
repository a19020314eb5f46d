"""`segkd bench` as a script: how fast a recipe distils, from any folder, without installing segkd."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.cli.bench import bench
from segkd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(command=bench, name=Path(__file__).name))
