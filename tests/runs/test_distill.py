"""Distillation from the recipe to the summary, in one process and, for a signal, in two."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segkd import runs
from segkd.delivery.folder import load_student
from segkd.foundation.errors import (
    DataError,
    NumbersError,
    RecipeError,
    Stopped,
    StorageError,
    TeacherError,
    UsageError,
)
from segkd.foundation.files import sha256
from segkd.machine import precision
from segkd.recipe import load
from segkd.runs import place, run
from segkd.runs.distill import Distillation
from segkd.runs.folder import run_folder
from segkd.runs.trained import load_model
from segkd.training import checkpoint
from segkd.training.distiller import Distiller
from segkd.training.log import read_lines

ROOT = Path(__file__).parents[2]
QUIET = runs.Options(name="tiny", quiet=True)
SUMMARY = {
    "recipe", "method", "variant", "seed", "steps", "batch", "seconds", "student_miou", "student_miou_ema", "student_miou_last",
    "teacher_miou", "recovery", "agreement", "agreement_shown", "best_step", "real_images_for_training", "real_images_for_evaluation", "peak_memory_mb",
    "student_parameters", "teacher_parameters", "student_flops", "teacher_flops", "refused_moves", "rollbacks", "machine", "torch",
    "precision", "per_class", "teacher_per_class", "statistics_recorded_from",
}  # fmt: skip
MEASURED = ["data.name=camvid", "data.watch=val"]


pytestmark = pytest.mark.usefixtures("own_threads")


@pytest.fixture
def distil(tiny, tmp_path):
    """Distils into tmp_path/NAME."""

    def run(*overrides, case="ddad.segkd", name="run", options=QUIET):
        return runs.distill(tiny.recipe(case, "run.threads=1", f"run.dir={tmp_path / name}", *overrides), options)

    return run


def student_bytes(folder):
    return (folder / "student" / "model.safetensors").read_bytes()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_leaves_behind_what_it_should(tiny, distil, tmp_path):
    summary = distil(*MEASURED)
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} - {".lock"} == {
        "recipe.yaml", "metrics.jsonl", "samples", "checkpoints", "student", "summary.json"
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert set(summary) == SUMMARY
    chosen = {
        key: summary[key] for key in ("recipe", "method", "variant", "seed", "steps", "precision", "refused_moves")
    }
    assert chosen == {
        "recipe": "tiny", "method": "ddad", "variant": "segkd", "seed": 0, "steps": 4, "precision": "fp32", "refused_moves": 0,
    }  # fmt: skip
    assert summary["real_images_for_training"] == 0 and summary["real_images_for_evaluation"] == 4
    assert summary["student_miou"] == summary["student_miou_ema"] and 0 <= summary["agreement"] <= 1
    assert summary["recovery"] == pytest.approx(summary["student_miou"] / summary["teacher_miou"])
    assert len(summary["per_class"]) == len(summary["teacher_per_class"]) == 11

    assert [p.name for p in sorted((folder / "samples").iterdir())] == ["00000002.png", "00000004.png"]
    assert [checkpoint.load(p)["step"] for p in checkpoint.listed(folder / "checkpoints")] == [4, 2]
    lines = read_lines(folder / "metrics.jsonl")
    looks = [line for line in lines if "agreement" in line]
    assert [line["step"] for line in looks] == [2, 4]
    assert all({"val_miou_ema", "val_miou_last"} <= set(line) for line in looks)
    assert {"kd", "adv", "bn", "balance", "lr"} <= set(next(line for line in lines if "kd" in line))

    text = (folder / "recipe.yaml").read_text()
    assert f"# teacher sha256: {sha256(tiny.folder / 'teacher.safetensors')}\n" in text and "# threads: 1\n" in text
    assert load(folder / "recipe.yaml") == tiny.recipe("ddad.segkd", "run.threads=1", f"run.dir={folder}", *MEASURED)

    card = (folder / "student" / "README.md").read_text()
    assert "Distilled from DeepLabV3Plus with encoder tu-resnet10t" in card and "trained on: none" in card
    assert f"mIoU {summary['student_miou']:.4f} on camvid test (2 images)" in card
    assert (
        f"its teacher's there is {summary['teacher_miou']:.4f}. In measuring, the network sees a shorter side of"
        in card
    )
    assert f"Agreement {summary['agreement']:.4f}: the share of pixels of synthetic images" in card
    assert str(tmp_path) not in card and "seconds" not in card

    student = load_student(folder)
    assert student.names[0] == "sky" and student.mean == (0.5, 0.45, 0.4) and len(student.palette) == 11
    assert student.predict([torch.zeros(30, 50, 3, dtype=torch.uint8).numpy()])[0].shape == (30, 50)
    state = checkpoint.load(checkpoint.listed(folder / "checkpoints")[0])["game"]["student"]
    averaged = {key.removeprefix("module."): value for key, value in state["average"].items()} | state["statistics"]
    saved = load_file(folder / "student" / "model.safetensors")
    assert all(torch.equal(value, averaged[f"network.{key}"]) for key, value in saved.items())
    measured = load_model(checkpoint.listed(folder / "checkpoints")[0]).network.state_dict()
    assert all(torch.equal(value, measured[f"network.{key}"]) for key, value in saved.items())


def test_averaged_and_live_students_that_are_apart_are_told(distil, tmp_path):
    """In its first steps the live student's statistics are still nearly those that it began with."""
    distil("run.eval_every=2", "run.steps=2")
    notes = [line["note"] for line in read_lines(tmp_path / "run" / "metrics.jsonl") if "note" in line]
    assert len(notes) == 1 and "the averaged student agrees" in notes[0] and "run.headline says" in notes[0]


def test_a_finished_run_returns_its_summary_at_once(tiny, distil, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(tiny.folder / "teacher.safetensors", teacher)
    summary = distil("run.steps=1", f"teacher.weights={teacher}")
    before = contents(tmp_path / "run")
    teacher.unlink()
    assert distil("run.steps=1", f"teacher.weights={teacher}") == summary
    with pytest.raises(UsageError, match=r"a finished run of another recipe \(student\.optimizer\.lr\)"):
        distil("run.steps=1", f"teacher.weights={teacher}", "student.optimizer.lr=0.05")
    assert contents(tmp_path / "run") == before


def test_a_finished_run_is_measured_again_on_something_else(distil, tmp_path, capsys):
    folder = tmp_path / "run"
    assert distil("run.steps=1")["student_miou"] is None
    student = student_bytes(folder)
    summary = distil("run.steps=1", "data.name=camvid", "data.final=test")
    assert f"mIoU {summary['student_miou']:.4f} on camvid test" in (folder / "student" / "README.md").read_text()
    assert "measured again with another data.name\n" in capsys.readouterr().err
    assert summary["student_miou"] is not None and summary["real_images_for_evaluation"] == 2
    assert student_bytes(folder) == student
    assert distil("run.steps=1", "data.name=camvid", "data.final=test") == summary
    assert not capsys.readouterr().err


def test_a_kill_while_a_finished_run_is_measured_again_leaves_no_old_scores(distil, tmp_path, monkeypatch, capsys):
    class Killed(BaseException):
        pass

    def killed(*given, **options):
        raise Killed

    distil("run.steps=1", "data.name=camvid", "data.final=test")
    for where, name in ((Distillation, "measure"), (run, "save_network")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(where, name, killed)
            distil("run.steps=1", "data.name=camvid", "data.final=val")
        assert not (tmp_path / "run" / "summary.json").exists()
    summary = distil("run.steps=1", "data.name=camvid", "data.final=val")
    shutil.rmtree(tmp_path / "run" / "student")
    capsys.readouterr()
    again = distil("run.steps=1", "data.name=camvid", "data.final=val")
    assert "student: missing, though the run was finished; made again" in capsys.readouterr().err
    assert again["student_miou"] == summary["student_miou"] and (tmp_path / "run" / "student").is_dir()


def test_without_an_average_the_student_is_measured_once(distil, monkeypatch):
    measured, score = [], run.score
    monkeypatch.setattr(run, "score", lambda network, *rest: (measured.append(network), score(network, *rest))[1])
    summary = distil(*MEASURED, "run.steps=1", "run.eval_every=1", "student.ema=0", "data.final=test")
    assert len(measured) == 5  # student and teacher on one image, the look at val, then student and teacher
    assert summary["student_miou_ema"] == summary["student_miou_last"] == summary["student_miou"]


@pytest.mark.parametrize("name", ["summary.json", "recipe.yaml"])
def test_a_damaged_file_of_a_finished_run_is_made_again(distil, tmp_path, capsys, name):
    summary = distil("run.steps=1")
    folder = tmp_path / "run"
    before, path = contents(folder / "student"), folder / name
    text = path.read_bytes()
    path.write_bytes(text[: len(text) - 30])
    again = distil("run.steps=1")
    assert capsys.readouterr().err.startswith(f"warning: {path}: damaged (")
    measured = {"seconds": 0, "peak_memory_mb": 0}
    assert again | measured == summary | measured
    assert contents(folder / "student") == before and distil("run.steps=1") == again

    path.write_bytes(bytes(500))
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(StorageError, match=f"{name}: damaged .*no checkpoint is there; name another run.dir") as error:
        distil("run.steps=1")
    assert one_line(error)


def test_the_first_lines_of_a_run_say_what_it_will_take(distil, capsys):
    distil(*MEASURED, "game.keep_moves=2", options=runs.Options())
    said = capsys.readouterr().err.splitlines()
    at = next(index for index, line in enumerate(said) if line.startswith("a step is "))
    times = r" of \S+ s"
    assert re.fullmatch(
        f"a step is 2 student updates{times}, 1 generator update{times}, 2 batches for the image bank{times}", said[at]
    )
    length = r"4 steps of \S+ s take \d+\.\d s, evaluations and checkpoints not counted"
    assert re.fullmatch(length, said[at + 1]), said
    assert re.fullmatch(
        r"memory: \S+ MB for an update of batch 2 and \S+ MB for a full image bank; run.batch up to about \S+ would fit into"
        r" 90% of \S+ MB", said[at + 2]
    ), said  # fmt: skip


@pytest.mark.parametrize(("resume", "words"), [("auto", "the same command resumes"), ("never", "with --resume auto")])
def test_who_stops_a_run_is_told_how_it_goes_on(tiny, tmp_path, resume, words):
    with (
        pytest.raises(Stopped, match=words) as caught,
        run_folder(tiny.recipe("noise", f"run.dir={tmp_path / 'run'}"), resume),
    ):
        raise Stopped(signal.SIGTERM)
    assert caught.value.exit_code == 143 and one_line(caught)


def test_without_labels_the_scores_are_null(distil, tmp_path):
    summary = distil("run.steps=1")
    assert [summary[key] for key in ("student_miou", "teacher_miou", "recovery", "per_class")] == [None] * 4
    assert summary["agreement"] is not None and summary["real_images_for_evaluation"] == 0
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "mIoU is not known" in card and f"Agreement {summary['agreement']:.4f}" in card


@pytest.mark.parametrize("case", ["ddad.paper", "ddad.segkd", "dfad", "noise", "kd", "mskd"])
def test_every_variant_runs(distil, tiny, case):
    summary = distil("run.steps=2", case=case)
    assert (summary["method"], summary["steps"], summary["refused_moves"]) == (case.partition(".")[0], 2, 0)
    assert summary["variant"] == (case.partition(".")[2] or None)
    assert summary["real_images_for_training"] == (4 if case == "kd" else 0)


def test_one_process_may_distil_with_images_and_then_without(distil):
    assert distil("run.steps=1", case="kd", name="with")["real_images_for_training"] == 4
    assert distil("run.steps=1", case="noise", name="without")["real_images_for_training"] == 0


def test_the_audit_counts_over_all_parts_of_a_run(tiny, distil, monkeypatch):
    """A method that peeps at one image in its first part cannot hide it by being stopped."""
    play, peeped = Distiller.play, []

    def peeping(game, step):
        if step == 1 and not peeped:
            peeped.append(step)
            (tiny.folder / "camvid" / "train" / "0.png").read_bytes()
            os.kill(os.getpid(), signal.SIGTERM)
        return play(game, step)

    monkeypatch.setattr(Distiller, "play", peeping)
    with pytest.raises(Stopped):
        distil("run.steps=3", case="noise")
    assert distil("run.steps=3", case="noise")["real_images_for_training"] == 1


def test_images_that_a_stream_opens_anew_are_no_more_for_that(distil, tmp_path):
    short = ["run.steps=2", "run.save_every=1"]
    shown, folder = distil(*short, case="kd"), tmp_path / "run"
    last = checkpoint.listed(folder / "checkpoints")[0]
    for path in (folder / "summary.json", last):
        path.unlink()
    assert distil(*short, case="kd")["real_images_for_training"] == shown["real_images_for_training"] > 0
    assert checkpoint.listed(folder / "checkpoints")[0] == last


def test_the_headline_is_what_the_recipe_says(distil, tmp_path):
    short = [*MEASURED, "run.steps=2"]
    averaged = distil(*short, name="ema")
    last = distil(*short, "run.headline=last", name="last")
    assert last["student_miou_last"] == averaged["student_miou_last"] == last["student_miou"]
    assert last["student_miou_ema"] == averaged["student_miou"]
    assert student_bytes(tmp_path / "ema") != student_bytes(tmp_path / "last")


class Terminated:
    """The process is asked to stop in a step."""

    def __init__(self, at):
        self.at = at

    def __call__(self):
        play = Distiller.play

        def played(game, step):
            if step == self.at:
                signal.raise_signal(signal.SIGTERM)
            return play(game, step)

        Distiller.play = played


def test_a_run_that_a_signal_stopped_ends_in_the_same_bytes(tiny, distil, forks, tmp_path):
    long = ["run.steps=14", "run.save_every=12", "run.eval_every=4", "run.sample_every=7", "run.threads=1"]
    long += ["game.student_moves=1"]
    folder = tmp_path / "stopped"
    recipe = tmp_path / "whole.yaml"
    recipe.write_text(tiny.recipe("ddad.segkd", *long, f"run.dir={folder}").to_yaml())
    process = forks.start(["distill", str(recipe)], tmp_path, Terminated(at=5))
    assert process.wait() == 128 + signal.SIGTERM and "resumes the run" in process.said()[-1]
    assert checkpoint.newest(folder / "checkpoints")[0]["step"] in (5, 6)  # between two updates of a step, or after it
    assert not (folder / "summary.json").exists() and not (folder / "student").exists()

    torch.manual_seed(1234)
    resumed = runs.distill(load(recipe, kind="distill"), QUIET)
    whole = distil(*long, name="whole")
    assert student_bytes(folder) == student_bytes(tmp_path / "whole")
    assert resumed["agreement"] == whole["agreement"]
    games = [checkpoint.newest(f / "checkpoints")[0]["game"] for f in (folder, tmp_path / "whole")]
    assert tiny.hash(games[0]) == tiny.hash(games[1])
    told = [{line["step"]: line["kd"] for line in read_lines(f / "metrics.jsonl") if "kd" in line}
            for f in (folder, tmp_path / "whole")]  # fmt: skip
    assert told[0] == told[1] and 14 in told[0]


def test_a_named_checkpoint_winds_the_run_back(tiny, distil, tmp_path):
    distil("run.steps=2", "run.save_every=1")
    folder = tmp_path / "run"
    wanted = student_bytes(folder)
    (folder / "summary.json").unlink()
    older = checkpoint.listed(folder / "checkpoints")[-1]
    distil("run.steps=2", "run.save_every=1", options=runs.Options(name="tiny", resume=str(older), quiet=True))
    assert student_bytes(folder) == wanted


@pytest.mark.parametrize("name", ["other.ckpt", f"step-00000001-{'0' * 64}.ckpt"])
def test_a_named_checkpoint_that_is_not_there_is_told_before_anything_is_loaded(distil, tmp_path, name):
    with pytest.raises(StorageError, match=name):
        distil("teacher.weights=missing", options=runs.Options(resume=str(tmp_path / name), quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("chosen", ["fp32", "bf16", "bf16, student in fp32"])
def test_what_auto_chose_first_it_chooses_to_the_end(chosen, distil, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def part(bf16, in_fp32=()):
        monkeypatch.setattr(precision, "quicker_in_bf16", lambda: bf16)
        monkeypatch.setattr(place, "quicker_in_fp32", lambda game: frozenset(in_fp32))
        short = ["run.steps=2", "run.save_every=1", "student.ema=0.0"]  # no average that could be apart
        found = distil("run.precision=auto", *short)["precision"]
        return found, capsys.readouterr().err

    first = {"fp32": (False, ()), "bf16": (True, ()), "bf16, student in fp32": (True, ("student",))}[chosen]
    assert part(*first) == (chosen, "")
    wanted = student_bytes(folder)
    for path in (folder / "summary.json", checkpoint.listed(folder / "checkpoints")[0]):
        path.unlink()
    assert part(bf16=True, in_fp32=("teacher",)) == (chosen, "")
    assert student_bytes(folder) == wanted
    (folder / "summary.json").unlink()
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(re.sub(r"# machine: .*", "# machine: another", text, count=1))
    now, said = part(bf16=True, in_fp32=("teacher",))
    assert now == "bf16, teacher in fp32" and f"precision was {chosen} and is {now}" in said


def test_another_recipe_in_the_folder_is_refused_by_its_key(distil, tmp_path):
    distil("run.steps=1")
    (tmp_path / "run" / "summary.json").unlink()
    before = contents(tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"the recipe changed since its checkpoint: student\.optimizer\.lr; .*--accept"
    ):
        distil("run.steps=1", "student.optimizer.lr=0.05")
    assert contents(tmp_path / "run") == before


def test_a_budget_becomes_steps_once(distil, tmp_path, tiny):
    budget = ["run.steps=null", "run.budget=0.6s"]
    summary = distil(*budget)
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert summary["steps"] >= 1 and re.search(rf"^  steps: {summary['steps']}$", text, re.MULTILINE)
    (tmp_path / "run" / "summary.json").unlink()
    assert distil(*budget)["steps"] == summary["steps"]


def test_a_budget_goes_on_from_a_checkpoint_elsewhere_with_its_steps(distil, tmp_path, monkeypatch):
    budget = ["run.steps=null", "run.budget=0.6s"]
    steps = distil(*budget)["steps"]
    [newest, *_] = checkpoint.listed(tmp_path / "run" / "checkpoints")
    monkeypatch.setattr("segkd.runs.run.steps_for", lambda *given: pytest.fail("measured anew"))
    options = runs.Options(name="tiny", resume=str(newest), quiet=True)
    assert distil(*budget, f"run.dir={tmp_path / 'other'}", options=options)["steps"] == steps


def test_a_run_that_is_wound_back_leaves_the_newer_checkpoints_at_once(distil, tmp_path, monkeypatch):
    distil("run.steps=3", "run.save_every=1", "run.keep=4")
    folder = tmp_path / "run" / "checkpoints"
    first = checkpoint.listed(folder)[2]
    assert first.name.startswith("step-00000001")
    (tmp_path / "run" / "summary.json").unlink()

    def diverged(game, step):
        raise NumbersError("it has diverged")

    monkeypatch.setattr(Distiller, "play", diverged)
    with pytest.raises(NumbersError, match="it has diverged"):
        distil("run.steps=3", "run.save_every=1", "run.keep=4", options=runs.Options("tiny", str(first), quiet=True))
    assert [path.name[:13] for path in checkpoint.listed(folder)] == ["step-00000001", "step-00000000"]


def one_line(error):
    return str(error.value).count("\n") == 0 and len(str(error.value)) < 400


def test_classes_that_disagree_are_counted_out(tiny, distil, tmp_path):
    state = load_file(tiny.folder / "teacher.safetensors")
    for key in ("segmentation_head.0.weight", "segmentation_head.0.bias"):
        state[key] = state[key][:3].contiguous()
    save_file(state, tmp_path / "three.safetensors")
    three = [f"teacher.weights={tmp_path / 'three.safetensors'}", "teacher.classes=[a, b, c]"]
    with pytest.raises(TeacherError, match=r"classes disagree: teacher 3, student 3, data 11 \(camvid\)") as error:
        distil(*MEASURED, *three)
    assert one_line(error) and error.value.exit_code == 3


def test_a_missing_teacher_names_the_command_that_makes_it(distil):
    with pytest.raises(TeacherError, match=r"nowhere\.safetensors: no such .*segkd teach teachers/tiny$") as error:
        distil("teacher.weights=nowhere.safetensors")
    assert one_line(error)


@pytest.mark.parametrize("case", ["ddad.segkd", "ddad.paper"])
def test_statistics_that_were_never_trained_are_no_judge(tiny, distil, tmp_path, case):
    state = load_file(tiny.folder / "teacher.safetensors")
    for key, value in state.items():
        if "running_" in key:
            value.fill_(float("var" in key))
    save_file(state, tmp_path / "folded.safetensors")
    weights = f"teacher.weights={tmp_path / 'folded.safetensors'}"
    with pytest.raises(TeacherError, match=r"folded\.safetensors: .*BatchNorm.*never trained.*weights\.bn=0") as error:
        distil(weights, case=case)
    assert one_line(error)
    assert distil(weights, "weights.bn=0", "run.steps=1", case=case)["steps"] == 1


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["teacher.classes=camvd"], RecipeError, "teacher.classes"),
        (
            ["teacher.options={channels: [16, 24, 32, 40], stem_width: 8, decoder_channels: 32}"],
            TeacherError,
            "expected shape",
        ),
        (["data.name=camvid", "data.root=nowhere"], DataError, "nowhere"),
        (["run.device=cuda:7"], RecipeError, "run.device: cuda:7"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_half_written(distil, tmp_path, overrides, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as error:
        distil(*overrides)
    assert one_line(error)
    assert not contents(tmp_path).keys() - {"run/.lock"}


def test_a_damaged_teacher_is_one_line(tiny, distil, tmp_path):
    data = (tiny.folder / "teacher.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(TeacherError, match=r"cut\.safetensors: not a valid safetensors file") as error:
        distil(f"teacher.weights={tmp_path / 'cut.safetensors'}")
    assert one_line(error)
