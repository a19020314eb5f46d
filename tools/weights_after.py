"""Hashes of the weights after a few steps of each kind of run, to see that a change of the code's plan changes none of them.

    python tools/weights_after.py FILE [--steps 12] [--only NAME]...

FILE is written where it is not there; else what is found now is compared with it, and the script fails where they differ.
Equal bytes are promised on one machine with one torch alone, so such a file is of no use elsewhere.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd.foundation import terminal
from segkd.training import checkpoint

KINDS = {
    "quickstart": ["quickstart"],
    "dfad": ["quickstart", "method=dfad"],
    "paper": ["quickstart", "variant=paper"],
    "noise": ["quickstart", "method=noise"],
    "kd": ["quickstart", "method=kd"],
    "refined": ["camvid_deeplab", "data=null", "run.batch=4", "run.budget=null"],
}
PROCESSES = 1, 2


def weights_after(arguments: list[str], steps: int, processes: int) -> dict[str, str]:
    """The sha256 of the weights and averages of each player after so many steps."""
    launch = [sys.executable, "-m"]
    if processes > 1:
        launch += ["torch.distributed.run", f"--nproc-per-node={processes}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"run.steps={steps}", "run.precision=fp32", "run.threads=1", "run.device=cpu", f"run.dir={folder}/run"]
        command = [*launch, "segkd", "distill", *arguments, *fixed, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise click.ClickException(f"{' '.join(command)}\n{done.stderr}")
        state = checkpoint.load(checkpoint.listed(Path(folder) / "run" / "checkpoints")[0])["game"]
    return {
        f"{player}.{part}": digest(state[player][part])
        for player in ("student", "source", "synth")  # as it was called before
        for part in ("network", "average")
        if state.get(player, {}).get(part)
    }


def digest(tensors: dict) -> str:
    """The sha256 of named tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()[:16]


@click.command(help=__doc__)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", default=12, show_default=True)
@click.option("--only", multiple=True, type=click.Choice([*KINDS]))
def main(file: Path, steps: int, only: tuple[str, ...]) -> None:
    before = json.loads(file.read_text()) if file.exists() else None
    found = {}
    for name in only or KINDS:
        for processes in PROCESSES:
            key = f"{name}, {processes} process{'es' if processes > 1 else ''}, {steps} steps"
            found[key] = weights_after(KINDS[name], steps, processes)
            same = "" if before is None else f" {'equal' if before.get(key) == found[key] else 'DIFFERENT'}"
            terminal.say(f"{key}: {found[key]}{same}")
    if before is None:
        file.write_text(json.dumps(found, indent=1) + "\n")
    elif different := [key for key in found if before.get(key) != found[key]]:
        raise click.ClickException(f"other weights than before: {'; '.join(different)}")


if __name__ == "__main__":
    main()
