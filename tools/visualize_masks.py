"""`segkd visualize` as a script: draw a network's masks from any folder, without installing segkd."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.cli.main import main, visualize

if __name__ == "__main__":
    sys.exit(main(command=visualize, name=Path(__file__).name))
