"""What safety costs: a safe save against a plain one, and the share of a normal run that is spent guarding it.

    python tools/price.py [RECIPE] [--json FILE] [key=value ...]

Everything is measured in one process on the game of the recipe (by default the quickstart): whole steps as they are, and
apart each thing that a run does only so that it cannot be lost, as often as the recipe's rhythm asks for it.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkd import builders
from segkd.cli.main import main
from segkd.cli.options import OVERRIDES
from segkd.foundation import terminal
from segkd.foundation.files import RunLock, append, atomic_write, check_target
from segkd.machine.device import machine
from segkd.machine.snapshot import Snapshot
from segkd.players.player import Player
from segkd.recipe import DistillRecipe, load
from segkd.runs.place import place_of
from segkd.runs.run import rhythm_of
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.networks import finite
from segkd.training.resume import environment


def seconds(action: Callable[[], object], times: int = 7) -> float:
    """The median time of one call, after one that warms up."""
    action()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def look_at_numbers(player: Player) -> Callable[[], object]:
    """What an update does to be sure that its loss and its gradients are finite."""
    gradients = [torch.randn_like(p) for group in player.optimizer.param_groups for p in group["params"]]
    loss = torch.ones(())

    def look() -> object:
        return torch.isfinite(loss) and torch.isfinite(torch.nn.utils.get_total_norm(gradients))

    return look


def measure(recipe: DistillRecipe, folder: Path) -> dict[str, float]:
    """Seconds of a step, of the two ways to save, and of each guard as a share of a step."""
    place = place_of(recipe)
    teacher = builders.teacher_of(recipe.teacher).to(place.device, memory_format=torch.channels_last)
    game = builders.distiller_of(recipe, teacher, place.device, place.bf16)
    steps = iter(range(recipe.run.steps))
    step = seconds(lambda: game.play(next(steps)))
    plan = rhythm_of(recipe).at_pace(step)
    state = {"recipe": recipe.as_dict(), "environment": environment(game), "game": game.state()}
    numbers = iter(range(1, 1000))
    safe = seconds(lambda: checkpoint.save(folder, next(numbers), state, recipe.run.keep))
    plain = seconds(lambda: torch.save(state, folder / "plain.pt"))
    moves = game.method.moves(0)
    line = json.dumps({"step": 1, "seconds": 1.0, **dict.fromkeys(game.method.chosen, 0.123456)}) + "\n"
    with RunLock(folder) as lock:
        guards = {
            "snapshots of buffers": snapshots(game, moves),
            "looks at losses and gradients": sum(
                seconds(look_at_numbers(player)) * moves.count(name)
                for name, player in (("student", game.student), ("source", game.source.player))
                if player is not None
            ),
            "looks at what is kept": looks_at_what_is_kept(game, moves),
            "looks at the folder": seconds(lock.check),
            "the diary": seconds(lambda: append(folder / "diary", line)) / plan.log_every,
            "looks for a collapse": seconds(game.vitals) / plan.save_every,
            "saving, beyond a plain save": max(0.0, safe - plain) / plan.save_every,
        }
    shares = {name: taken / step for name, taken in guards.items()}
    return {"step": step, "safe_save": safe, "plain_save": plain, "bytes": (folder / "plain.pt").stat().st_size,
            **shares, "guarding": sum(shares.values())}  # fmt: skip


def snapshots(game: Distiller, moves: list[str]) -> float:
    """The seconds that the snapshots of a step's moves take."""
    written = {
        "student": [game.student.network, game.method],
        "source": [game.source.network, game.method],
    }
    return sum(
        seconds(lambda modules=modules: Snapshot(modules)) * moves.count(name) for name, modules in written.items()
    )


def looks_at_what_is_kept(game: Distiller, moves: list[str]) -> float:
    """The seconds that it takes to see that the images and logits which a step puts into the bank are finite."""
    if game.bank is None or not len(game.bank):
        return 0.0
    batch, logits = game.bank.draw(game.sampling.batch)
    return seconds(lambda: finite(images=batch.images, logits=logits)) * (moves.count("keep") + moves.count("source"))


@click.command()
@click.argument("recipe", default="quickstart")
@OVERRIDES
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures as JSON.")
def price(recipe: str, overrides: tuple[str, ...], file: Path | None) -> None:
    """Measure what it costs that a run of RECIPE cannot be lost."""
    if file is not None:
        check_target(file)
    loaded = load(recipe, overrides, "distill")
    assert isinstance(loaded, DistillRecipe)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(loaded, Path(folder))
    save = found["safe_save"] / found["plain_save"]
    terminal.tell(f"a step of {recipe}: {1000 * found['step']:.0f} ms")
    terminal.tell(
        f"a safe save of {found['bytes'] / 1e6:.1f} MB: {1000 * found['safe_save']:.0f} ms, {save:.1f} times a plain"
        f" torch.save of {1000 * found['plain_save']:.0f} ms"
    )
    for name, share in list(found.items())[4:]:
        terminal.tell(f"  {name:<32}{100 * share:6.3f} % of a step")
    if file is not None:
        atomic_write(file, json.dumps({**found, "times_a_plain_save": save, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(command=price, name=Path(__file__).name))
