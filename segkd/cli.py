"""The command line. A verb imports what it needs when it runs, so that `segkd --help` and recipe checks stay quick."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.exceptions import NoArgsIsHelpError

from segkd import __version__, cli_bench, cli_data
from segkd.exits import Session, explained, pipe_closed, with_debug
from segkd.foundation import memory
from segkd.foundation.errors import RecipeError

Function = TypeVar("Function", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None, command: click.Command | None = None, name: str = "segkd") -> int:
    """Run a command (by default `segkd`) and return its exit code; every error is a line on stderr."""
    session = Session()
    try:
        code = (command or cli).main(arguments, prog_name=name, standalone_mode=False, obj=session)
        sys.stdout.flush()  # a closed pipe is noticed here, not in the interpreter's last breath
        return code if isinstance(code, int) else 0
    except NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except BaseException as error:
        if pipe_closed(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141  # as a program that SIGPIPE ended
        code, lines = explained(error)
        if session.debug:
            traceback.print_exc()
        for line in lines:
            print(line, file=sys.stderr)
        return code


DATA_SETS = ["camvid", "nyuv2", "scenes", "rooms", "folder"]  # as in recipes, which `segkd --help` has no time to load
OVERRIDES = click.argument("overrides", metavar="[key=value]...", nargs=-1)
TRUST = click.option("--trust-pickle", is_flag=True, help="Read weights that need pickle: it runs the code they hold.")
WHO = click.option("--who", type=click.Choice(["teacher", "student"]), help="Whose network; a recipe has its teacher.")
DEVICE = click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
PRECISION = click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of the networks; default: as in the recipe."
)


def run_options(command: Function) -> Function:
    """The flags that `distill` and `teach` share."""
    resume = click.option(
        "--resume", default="auto", show_default=True, metavar="auto|never|PATH",
        help="Go on where the run folder stands, want a new folder, or start from a checkpoint.",
    )  # fmt: skip
    accept = click.option("--accept", multiple=True, metavar="KEY", help="A key that may differ from the checkpoint's.")
    quiet = click.option("--quiet", is_flag=True, help="No progress; the result and errors only.")
    recipe = click.argument("recipe")
    return recipe(OVERRIDES(resume(accept(quiet(TRUST(with_debug(command)))))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segkd", message="%(prog)s %(version)s")
@with_debug
def cli() -> None:
    """Distil a segmentation network without its training images.

    RECIPE is a file, or the name of a shipped recipe: see `segkd recipes ls`.
    """


@cli.command()
@click.option("--plan", is_flag=True, help="Only measure what the run would take: time and memory, the largest batch.")
@run_options
def distill(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool,
    plan: bool,
) -> None:  # fmt: skip
    """Distil the recipe's teacher into a student; the same command resumes."""
    from segkd import recipe as recipes

    loaded = recipes.load(recipe, overrides, "distill")  # before torch: a slip is told at once
    folder = loaded.run.dir
    memory.hold(sparing=loaded.run.checkpointing)
    if plan:
        from segkd import runs

        for line in runs.planned(loaded, trust_pickle):
            click.echo(line)
        return
    from segkd import api

    summary = api.distill(recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        show_summary(folder, summary)


@cli.command()
@run_options
def teach(
    recipe: str, overrides: tuple[str, ...], resume: str, accept: tuple[str, ...], quiet: bool, trust_pickle: bool
) -> None:
    """Train a network on labelled images; the same command resumes."""
    from segkd import recipe as recipes

    folder = recipes.load(recipe, overrides, "teach").run.dir
    memory.hold()
    from segkd import api

    summary = api.teach(recipe, overrides, resume=resume, accept=accept, quiet=quiet, trust_pickle=trust_pickle)
    show_summary(folder, summary)


def show_summary(folder: str | None, summary: dict[str, Any]) -> None:
    """The plain values of a run's summary, a line each, and its audit; what was not measured is left out."""
    click.echo(f"{folder}:")
    for key, value in summary.items():
        if value is not None and not isinstance(value, (dict, list)):
            click.echo(f"  {key:<28}{f'{value:.4g}' if isinstance(value, float) else value}")
    click.echo(f"  {audited(summary)}")


def audited(summary: dict[str, Any]) -> str:
    """What the run opened: the files of images and data sets are counted, and procedural scenes that it trained on."""
    trained, measured = summary["real_images_for_training"], summary["real_images_for_evaluation"]
    free = (
        f"not data-free: {trained} real images trained" if trained else "data-free: no real image was opened to train"
    )
    return f"audit: {free}; {measured} to measure"


@cli.command("eval")
@click.argument("model")
@OVERRIDES
@click.option("--data", type=click.Choice(DATA_SETS), help="Data set; default: as in the recipe.")
@click.option("--root", metavar="DIR", help="Its folder; scenes and rooms need none.")
@click.option("--split", metavar="NAME", help="Default: the recipe's data.final, or test.")
@click.option(
    "--size",
    type=click.Choice(["protocol", "original"]),
    help="Shorter side 256 (the default), or the files' own size.",
)
@click.option("--slide", metavar="HxW", help="Show windows of this size, two thirds apart; their logits are averaged.")
@click.option("--scales", metavar="S,S,...", help="Average over scales of the image, as 0.75,1,1.25.")
@click.option("--flip", is_flag=True, help="Average over the image and its mirror image.")
@WHO
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the scores as JSON.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as CSV.")
@click.option("--confusion", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the confusion matrix.")
@DEVICE
@PRECISION
@TRUST
@with_debug
def evaluate(
    model: str, overrides: tuple[str, ...], data: str | None, root: str | None, split: str | None, size: Any,
    slide: str | None, scales: str | None, flip: bool, who: Any, json_file: Path | None, csv_file: Path | None,
    confusion: Path | None, device: str, precision: Any, trust_pickle: bool,
) -> None:  # fmt: skip
    """Measure the mIoU of MODEL on labelled images.

    MODEL is a student folder, a run folder, a checkpoint, or a recipe with --who teacher.
    """
    from segkd.foundation.files import atomic_write, check_target

    for file in (json_file, csv_file, confusion):
        if file is not None:
            check_target(file)
    from tqdm import tqdm

    from segkd import measuring
    from segkd.evaluation.confusion import save_confusion
    from segkd.evaluation.inference import Inference

    inference = Inference.parsed(slide, scales, flip)
    loaded = measuring.load_model(model, who, overrides, trust_pickle)
    with tqdm(unit="image", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        scores = measuring.evaluate(
            loaded, data=data, root=root, split=split, size=size, inference=inference, device=device,
            precision=precision, progress=progress,
        )  # fmt: skip
    click.echo(table(scores))
    if json_file is not None:
        atomic_write(json_file, as_json(scores))
    if csv_file is not None:
        atomic_write(csv_file, comma_separated(scores))
    if confusion is not None:
        save_confusion(confusion, scores)


TOTALS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "fw_iou": "frequency-weighted IoU"}


def table(scores: dict[str, Any]) -> str:
    """Scores as lines for a terminal: IoU of each class, then the totals; `-` where there was nothing to measure."""
    rows = [*scores["per_class"].items(), *((label, scores[key]) for key, label in TOTALS.items())]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {'-' if value is None else f'{value:.4f}':>6}" for name, value in rows]
    lines.insert(len(scores["per_class"]), "-" * (width + 8))
    size = scores["size"]
    shown = f"{size[1]}x{size[0]} pixels" if isinstance(size, list) else "several sizes"
    absent = f"; absent: {', '.join(scores['absent'])}" if scores["absent"] else ""
    return "\n".join([*lines, f"{scores['images']} images of {shown}{absent}"])


def as_json(scores: dict[str, Any]) -> str:
    """Scores as JSON, each list of numbers (a row of the confusion matrix) on a line."""
    import json
    import re

    text = json.dumps(scores, indent=2)
    return re.sub(r"\[\n([\d\s,.]+)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text) + "\n"


def comma_separated(scores: dict[str, Any]) -> str:
    """Scores as CSV: a row for each class (empty where there was nothing to measure), then the totals."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["class", "iou"])
    writer.writerows(scores["per_class"].items())
    writer.writerows((label, scores[key]) for key, label in TOTALS.items())
    return buffer.getvalue()


@cli.command()
@click.argument("model")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="DIR", help="Folder for the drawings; made if it is missing.")
@click.option("--teacher", metavar="MODEL", help="A second network, drawn beside the first.")
@click.option(
    "--masks",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Ground truth, STEM.png; of the ids or colours that a dataset.yaml there or above says.",
)
@click.option(
    "--kind", type=click.Choice(["panel", "mask", "overlay"]), default="panel", show_default=True,
    help="All side by side with a legend, a palette PNG of class ids, or the image tinted.",
)  # fmt: skip
@WHO
@DEVICE
@PRECISION
@TRUST
@with_debug
def visualize(
    model: str, images: tuple[str, ...], out: str, teacher: str | None, masks: str | None, kind: Any, who: Any,
    device: str, precision: Any, trust_pickle: bool,
) -> None:  # fmt: skip
    """Draw the masks that MODEL gives to images, named one by one or by their folder.

    MODEL is a student folder, a run folder, a checkpoint, or a recipe with --who teacher.
    """
    from segkd import measuring

    loaded = measuring.load_model(model, who, trust_pickle=trust_pickle)
    guide = None if teacher is None else measuring.load_model(teacher, "teacher", trust_pickle=trust_pickle)
    jobs = measuring.plan_drawings(images, out, kind, loaded.classes, masks)
    measuring.visualize(
        loaded, jobs, kind, teacher=guide, device=device, precision=precision,
        done=lambda job: click.echo(f"{job.image} -> {job.out}"),
    )  # fmt: skip


cli.add_command(cli_bench.bench)
cli.add_command(cli_data.data)


@cli.group()
@with_debug
def recipes() -> None:
    """List, show, check and copy recipes."""


@recipes.command("ls")
@with_debug
def list_recipes() -> None:
    """The shipped recipes, with the first line of each."""
    from segkd.recipe import find, shipped

    names = shipped()
    for name in names:
        first = find(name).read_text("utf-8").partition("\n")[0]
        click.echo(
            f"{name:<{max(map(len, names))}}  {first.removeprefix('#').strip() if first.startswith('#') else ''}"
        )


@recipes.command("show")
@click.argument("recipe")
@OVERRIDES
@with_debug
def show_recipe(recipe: str, overrides: tuple[str, ...]) -> None:
    """The whole recipe as a run would use it: every default, file path and preset filled in."""
    from segkd.recipe import find, load

    loaded = load(recipe, overrides)
    click.echo(f"# {find(recipe)}\n{loaded.to_yaml()}", nl=False)


@recipes.command("validate")
@click.argument("recipes", metavar="RECIPE... [key=value]...", nargs=-1)
@with_debug
def validate_recipes(recipes: tuple[str, ...]) -> None:
    """Check recipes with all their presets (by default every shipped one); no torch is loaded."""
    from segkd.recipe import shipped

    overrides = [item for item in recipes if "=" in item and not Path(item).exists()]
    names = [item for item in recipes if item not in overrides] or shipped()
    errors: dict[str, None] = {}  # in order, each once
    for name in names:
        try:
            click.echo(f"{name}: valid ({', '.join(checked(name, overrides))})")
        except RecipeError as error:
            errors.update(dict.fromkeys(error.errors))
    if errors:
        raise RecipeError(errors)


def checked(name: str, overrides: Sequence[str]) -> list[str]:
    """What a recipe is for, and its presets; each was loaded. Raises RecipeError."""
    from segkd.recipe import DistillRecipe, load, presets

    recipe = load(name, overrides)
    if not isinstance(recipe, DistillRecipe):
        return ["teach"]
    for preset in presets(name):
        method, _, variant = preset.partition(".")
        load(name, [*overrides, f"method={method}", f"variant={variant or 'null'}"])
    missing = not recipe.teacher.weights.startswith("${") and not Path(recipe.teacher.weights).is_file()
    hint = f"; make it with: segkd teach {recipe.teacher.recipe}" if recipe.teacher.recipe else ""
    return ["distill", *presets(name), *([f"teacher not there yet{hint}"] if missing else [])]


@recipes.command("cp")
@click.argument("recipe")
@click.argument("target", type=click.Path(path_type=Path))
@with_debug
def copy_recipe(recipe: str, target: Path) -> None:
    """Copy a recipe to TARGET (a file or a folder), to be changed there; it still finds the files that it names."""
    from segkd.foundation.files import atomic_write, check_target
    from segkd.recipe import find

    source = find(recipe)
    file = target / source.name if target.is_dir() else target
    if file.exists():
        raise click.UsageError(f"{file}: is there already")
    check_target(file)
    atomic_write(file, anchored(source))
    click.echo(str(file))


def anchored(source: Path) -> str:
    """The text of a recipe, in which the files that it reads are named by their whole paths."""
    from segkd.recipe.strict_yaml import Node, parse

    text = source.read_text("utf-8")
    tree, errors = parse(text, str)  # a value's place is the number of its line
    if errors:
        raise RecipeError(f"{source}:{error}" for error in errors)
    lines = text.splitlines(keepends=True)

    def visit(node: Node, above: str) -> None:
        for key, child in node.value.items() if isinstance(node.value, dict) else ():
            value = child.value
            names_file = key == "extends" or (key == "weights" and above in ("teacher", "student", "model"))
            if names_file and isinstance(value, str) and value != "none" and not value.startswith(("/", "~", "${")):
                number = int(child.where) - 1
                head, colon, rest = lines[number].partition(f"{key}:")
                lines[number] = head + colon + rest.replace(value, os.path.abspath(source.parent / value), 1)
            visit(child, key)

    visit(tree, "")
    return "".join(lines)
