"""The command line: quick without torch, one line for each error, and the right exit code."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import segkd
from segkd.cli.exits import explained
from segkd.cli.main import cli, main
from segkd.cli.measure import as_json, comma_separated, table
from segkd.data.sets.scenes import SCENES, SceneSet
from segkd.foundation.errors import DataError, NumbersError, RecipeError, Stopped, StorageError
from segkd.recipe import load
from segkd.runs.trained import load_model

ROOT = Path(__file__).parents[2]
TEACH = """\
# A toy.
model: {arch: Linknet, encoder: mobilenet_v2, classes: scenes, options: {encoder_depth: 3}}
train: {optimizer: {name: sgd, lr: 0.01}, crop: [32, 32]}
data: {name: scenes, final: null}
run: {steps: 2, batch: 2, precision: fp32, threads: 1}
"""
SCORES = {
    "miou": 0.5, "per_class": {"sky": 1.0, "road, wet": None, "car": 0.0}, "pixel_accuracy": 0.75, "fw_iou": 0.625,
    "absent": ["road, wet"], "images": 3, "size": [256, 341], "notes": ["the network sees so much"],
}  # fmt: skip


def segkd_process(*arguments: str, code: str = "import sys; from segkd.cli.main import main; sys.exit(main())") -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command whose body raises an error; its exit code, stdout and stderr."""

    def run(error: BaseException | Callable[[], object], *arguments: str) -> tuple[int, str, str]:
        @click.group()
        def group() -> None: ...

        @group.command()
        def verb() -> None:
            if isinstance(error, BaseException):
                raise error
            error()

        group.params += cli.params
        code = main([*arguments, "verb"], group)
        return code, *capsys.readouterr()

    return run


def test_help_imports_next_to_nothing_and_lists_every_verb() -> None:
    code = (
        "import sys; before = set(sys.modules); from segkd.cli.main import main; code = main();"
        "more = sys.modules.keys() - before; print(len(more), *{name.partition('.')[0] for name in more});"
        "sys.exit(code)"
    )
    *text, told = segkd_process("--help", code=code).splitlines()
    modules, *names = told.split()
    assert set(names) - sys.stdlib_module_names == {"click", "segkd"}
    assert int(modules) < 150
    assert {"distill", "teach", "eval", "visualize", "data", "recipes"} <= {line.split()[0] for line in text if line}


def test_recipes_are_checked_without_torch(here: Path) -> None:
    (here / "toy.yaml").write_text(TEACH)
    code = (
        "import sys; from segkd.cli.main import main; code = main();"
        "heavy = {'torch', 'numpy', 'cv2', 'kornia', 'segmentation_models_pytorch'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(code)"
    )
    out = segkd_process("recipes", "validate", str(here / "toy.yaml"), code=code)
    assert out.splitlines() == [f"{here}/toy.yaml: valid (teach)", "[]"]


def test_the_package_is_quick_until_something_is_asked_of_it() -> None:
    code = "import sys, segkd; print('torch' in sys.modules); segkd.load_student; print('torch' in sys.modules)"
    assert segkd_process(code=code).split() == ["False", "True"]
    assert set(segkd.__all__) <= set(dir(segkd))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = segkd.nonsense


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segkd {segkd.__version__}\n"


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["distil", "x"], ["distill"], ["distill", "--nonsense", "x"], ["eval", "x", "--size", "big"], ["eval", "nowhere"],
     ["visualize", "x", "y"], ["recipes", "cp", "teachers/scenes", "no/such/folder.yaml"], ["distill", "nowhere"],
     ["eval", "teachers/scenes"], ["teach", "teachers/scenes", "oops"], ["eval", "x", "--json", "no/such/file.json"]],
)  # fmt: skip
def test_usage_errors_are_one_line_and_2(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and err.strip() and not out
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--slide", "0x3"], "slide 0x3"), (["--slide", "9999x64"], "slide 9999x64"), (["--slide", "big"], "slide big"),
     (["--scales", "a,b"], "scales a,b"), (["--scales", "0,1"], "scales 0,1"), (["--confusion", "."], "is a folder"),
     (["--confusion", "no/such/c.png"], "no folder no/such"), (["--json", "no/such/s.json"], "no folder no/such"),
     (["--confusion", "c.jpg"], "c.jpg: what is written is a PNG"), (["--json", "s", "--csv", "./s"], "name a file for each")],
)  # fmt: skip
def test_bad_values_are_told_before_a_network_is_looked_for(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["eval", "nowhere", *flags]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and words in err and not out


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("a.png: truncated"), 3), (NumbersError("diverged"), 4), (StorageError("full"), 5), (Stopped(15), 143)],
)
def test_known_errors(failing: Callable[..., tuple[int, str, str]], error: Exception, code: int) -> None:
    assert failing(error) == (code, "", f"segkd: {error}\n")


def test_recipe_errors_keep_their_lines(failing: Callable[..., tuple[int, str, str]]) -> None:
    assert failing(RecipeError(["r.yaml:1: a: wrong", "r.yaml:2: b: wrong"])) == (
        2, "", "r.yaml:1: a: wrong\nr.yaml:2: b: wrong\n",
    )  # fmt: skip


def test_line_ends_in_names_are_escaped_and_words_of_libraries_joined(
    failing: Callable[..., tuple[int, str, str]],
) -> None:
    assert failing(DataError("a\nsegkd: done.png: damaged\n"))[2] == "segkd: a\\nsegkd: done.png: damaged\n"
    assert failing(ValueError("first\n  second\n"))[2].startswith("segkd: bug: ValueError: first; second (")
    assert "\x1b" not in failing(ValueError("\x1b[2J"))[2]
    assert "\x1b" not in failing(DataError("\x1b[2J"), "--debug")[2]


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda here: (here / "missing\n.png").read_bytes(), "missing\\n.png: No such file or directory"),
        (lambda here: here.read_bytes(), "Is a directory"),
        (lambda here: (here / "file" / "below").read_bytes(), "file/below: Not a directory"),
        (lambda here: here.mkdir(), "File exists"),
        (lambda here: (here / ("n" * 300)).touch(), "File name too long"),
        (lambda here: (here / "loop").read_bytes(), "loop: "),
    ],
)
def test_what_is_wrong_with_a_users_file_is_no_bug(failing, here, use, said):
    (here / "file").touch()
    (here / "loop").symlink_to("loop")
    code, out, err = failing(lambda: use(here))
    assert code == 5 and not out and len(err.splitlines()) == 1
    assert said in err and "bug" not in err and "check the path" in err


def test_a_warning_is_a_line(failing):
    code, _, err = failing(lambda: warnings.warn("of\n two lines \x1b[2J", UserWarning, stacklevel=1))
    assert code == 0 and re.fullmatch(r"warning: of two lines \\x1b\[2J \(test_main\.py:\d+\)\n", err)


def test_a_file_that_may_not_be_read_is_no_bug():
    code, (line,) = explained(PermissionError(errno.EACCES, "Permission denied", b"/etc/\xffshadow"))
    assert code == 5 and line.startswith("segkd: /etc/\udcffshadow: Permission denied; ")
    assert explained(FileNotFoundError("no such file: x"))[1] == [
        "segkd: no such file: x; check the path, and who may read and write there"
    ]


@pytest.mark.parametrize(
    ("arguments", "known"),
    [(["distil"], "distill"), (["vizualize"], "visualize"), (["recipes", "vaildate"], "validate"),
     (["distill", "r", "--quite"], "--quiet"), (["eval", "m", "--confuson", "c.png"], "--confusion"), (["--hlep"], "--help")],
)  # fmt: skip
def test_slips_of_verbs_and_flags_are_told_with_the_right_word(capsys, arguments, known):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Did you mean" in line and f"'{known}'" in line


def test_a_bug_is_called_one(failing: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = failing(lambda: {}["key"])
    assert code == 1 and not out and len(err.splitlines()) == 1
    assert err.startswith("segkd: bug: KeyError: 'key' (test_main.py:") and "--debug shows the traceback" in err


def test_debug_shows_the_traceback(failing: Callable[..., tuple[int, str, str]]) -> None:
    err = failing(DataError("bad.png: damaged"), "--debug")[2]
    assert err.startswith("Traceback") and err.endswith("segkd: bad.png: damaged\n")


def test_debug_after_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "nowhere", "--debug"]) == 2
    assert capsys.readouterr().err.startswith("Traceback")


def test_out_of_memory_is_6(failing: Callable[..., tuple[int, str, str]]) -> None:
    import torch

    code, _, err = failing(lambda: torch.empty(2**60, dtype=torch.uint8))
    assert code == 6 and "peak of" in err and "run.batch" in err and len(err.splitlines()) == 1
    assert failing(MemoryError())[0] == 6
    assert failing(torch.cuda.OutOfMemoryError("CUDA out of memory"))[0] == 6
    assert failing(RuntimeError("could not create a primitive"))[0] == 6
    assert failing(RuntimeError("could not create a primitive descriptor for a convolution"))[0] == 1


def test_a_full_disk_is_5(failing: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = failing(lambda: Path("/dev/full").write_bytes(b"x" * 100_000))
    assert code == 5 and os.strerror(errno.ENOSPC) in err and len(err.splitlines()) == 1


def test_interrupts_are_130_and_an_end_of_file_is_not_one(failing: Callable[..., tuple[int, str, str]]) -> None:
    assert failing(KeyboardInterrupt())[0] == 130
    code, _, err = failing(EOFError("Ran out of input"))
    assert code == 1 and "EOFError" in err
    assert explained(KeyboardInterrupt()) == (130, ["segkd: stopped"])


@pytest.mark.parametrize("lines", [1, 100_000], ids=["buffered", "flushed"])
def test_a_closed_pipe_is_quiet(lines: int) -> None:
    code = (
        "import sys, click; from segkd.cli.main import main;"
        f"verb = click.Command('verb', callback=lambda: click.echo('line\\n' * {lines}));"
        "sys.stdin.readline(); sys.exit(main([], verb))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) as process:
        process.stdout.close()
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_every_shipped_recipe_is_valid_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "validate"]) == 0
    checked = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert main(["recipes", "ls"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == checked
    assert "teachers/scenes" in checked


def test_validate_reports_all_recipes_and_all_lines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "good.yaml").write_text(TEACH)
    (here / "bad.yaml").write_text(TEACH.replace("crop:", "corp:").replace("batch: 2", "batch: 0"))
    assert main(["recipes", "validate", "good.yaml", "bad.yaml", "run.steps=7"]) == 2
    out, err = capsys.readouterr()
    assert out == "good.yaml: valid (teach)\n"
    assert any("bad.yaml:3: train.corp: unknown key, did you mean 'crop'?" in line for line in err.splitlines())
    assert any("bad.yaml:5: run.batch:" in line for line in err.splitlines())


def test_show_prints_a_recipe_that_loads_as_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "toy.yaml").write_text(TEACH)
    assert main(["recipes", "show", "toy.yaml", "run.steps=7"]) == 0
    (here / "shown.yaml").write_text(capsys.readouterr().out)
    assert load("shown.yaml") == load("toy.yaml", ["run.steps=7"])


def test_cp_copies_once_and_keeps_comments_and_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = here / "shipped"
    shipped.mkdir()
    (shipped / "base.yaml").write_text(TEACH)
    (shipped / "toy.yaml").write_text("# mine\nextends: base.yaml  # all of it\nmodel: {weights: base.safetensors}\n")
    assert main(["recipes", "cp", "shipped/toy.yaml", "."]) == 0
    assert capsys.readouterr().out == "toy.yaml\n"
    copied = (here / "toy.yaml").read_text()
    assert copied.startswith("# mine\n") and "# all of it" in copied
    assert load("toy.yaml") == load("shipped/toy.yaml")
    assert main(["recipes", "cp", "shipped/toy.yaml", "toy.yaml"]) == 2
    assert (here / "toy.yaml").read_text() == copied


def test_teach_prints_its_summary_again_when_finished(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SceneSet.counts, "train", 8)
    (here / "toy.yaml").write_text(TEACH)
    assert main(["teach", "toy.yaml", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("runs/toy-s0: 2 steps in ") and err == ""
    assert "\n  audit: data-free: no real image was opened to train; 0 to measure\n" in out
    assert main(["teach", "toy.yaml", "--quiet"]) == 0
    assert capsys.readouterr().out == out
    assert json.loads(Path("runs/toy-s0/summary.json").read_text())["recipe"] == "toy"
    assert main(["distill", "toy.yaml"]) == 2
    assert "segkd teach" in capsys.readouterr().err


def test_a_teacher_of_scenes_has_seen_no_real_image(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SceneSet.counts, "train", 8)
    monkeypatch.setitem(SceneSet.counts, "test", 12)
    recipe = TEACH.replace("name: scenes, final: null", "name: scenes")
    (here / "toy.yaml").write_text(recipe + "output: toy.safetensors\n")
    assert main(["teach", "toy.yaml", "--quiet"]) == 0
    summary = json.loads(Path("runs/toy-s0/summary.json").read_text())
    assert list(summary["per_class"]) == list(SCENES.names) and summary["images"] == 12
    assert summary["real_images_for_training"] == summary["real_images_for_evaluation"] == 0
    assert "Licence: MIT" in Path("toy.md").read_text()
    assert load_model("runs/toy-s0").classes is SCENES
    assert load_model("toy.yaml", "teacher").classes is SCENES


def test_table() -> None:
    assert table(SCORES) == [
        "sky                     1.0000",
        "road, wet                    -",
        "car                     0.0000",
        "-" * 30,
        "mIoU                    0.5000",
        "pixel accuracy          0.7500",
        "frequency-weighted IoU  0.6250",
        "3 images of 341x256 pixels; absent: road, wet",
        "the network sees so much",
    ]


def test_json_has_a_row_of_the_matrix_on_a_line() -> None:
    scores = SCORES | {"per_class": {"a [1,  2]": None}, "confusion": [[1, 20], [3, 4]], "scales": [0.5, 1.0]}
    text = as_json(scores)
    assert json.loads(text) == scores
    assert {"    [1, 20],", "    [3, 4]", '  "size": [256, 341],', '  "scales": [0.5, 1.0]'} <= set(text.splitlines())


def test_comma_separated() -> None:
    rows = comma_separated(SCORES).splitlines()
    assert rows[:4] == ["class,iou", "sky,1.0", '"road, wet",', "car,0.0"] and rows[4] == "mIoU,0.5"


def test_a_plan_is_made_and_nothing_written(tiny, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    folder = tmp_path / "run"
    for budget, said in (("null", "4 steps of"), ("1m", "in the budget of 1 min")):
        overrides = ("game.keep_moves=2", f"run.dir={folder}", f"run.budget={budget}")
        recipe.write_text(tiny.recipe("ddad.segkd", *overrides).to_yaml())
        assert main(["distill", str(recipe), "--plan"]) == 0
        shown = capsys.readouterr().out
        assert said in shown and re.search(r"run.batch up to about [\d,]+ would fit into 90% of", shown)
        assert [re.match(r"(.*\S)  +(\d)  ", line).groups() for line in shown.splitlines()[2:5]] == [
            ("generator update", "1"),
            ("batch for the image bank", "2"),
            ("student update", "2"),
        ]
    assert not folder.exists()


@pytest.mark.parametrize(
    "words", [["visualize", "x", "y", "--out", ""], ["export", "x", "--format", "onnx", "--out="], ["ls", ""], ["report", ""]]
)  # fmt: skip
def test_an_empty_name_is_not_the_working_directory(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "an empty name" in capsys.readouterr().err and not [*tmp_path.iterdir()]
