"""`segkd eval` as a script: measure a network's mIoU from any folder, without installing segkd."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.cli.main import main
from segkd.cli.measure import evaluate

if __name__ == "__main__":
    sys.exit(main(command=evaluate, name=Path(__file__).name))
