"""Methods and terms that are added: as the page of docs says, and whatever a file of one's own does wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import segkd
from segkd.cli.main import main
from segkd.methods.finding import MethodFile, method_class
from segkd.recipe import method_terms
from segkd.training import checkpoint
from tests.conftest import Tiny, hash_of

PAGE = (Path(__file__).parents[2] / "docs" / "own_method.md").read_text("utf-8")
METHOD, SOURCE, TERM = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[RECIPE] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_what_happens(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file and one recipe: validated, played, resumed, measured; nothing but the flag brings its code."""
    (here / "shifted.py").write_text(METHOD)
    (here / "mine.yaml").write_text(RECIPE)
    quick = ["data=null", "run.device=cpu", "run.dir=run"]
    validate, distill = (command.split()[1:] for command in COMMANDS)
    assert main(validate) == 0
    assert main([*distill, *quick]) == 0
    assert (here / "run/method/shifted.py").read_text() == METHOD
    assert main([*distill, *quick, "--quiet"]) == 0, "a finished run only tells its summary"
    more = [*distill, *quick, "run.steps=3", "--accept", "run.steps", "--quiet"]
    (here / "shifted.py").write_text(METHOD + "\n")
    capsys.readouterr()
    assert main(more) == 2 and "method" in capsys.readouterr().err
    [step] = (here / "run/checkpoints").glob("step-00000002-*")
    assert main([*distill, *quick, "--resume", str(step), "--quiet"]) == 2
    assert "run: method: another file than the run has begun with (sha256 " in capsys.readouterr().err
    assert main([*more, "--accept", "method"]) == 0
    capsys.readouterr()
    assert main([*more[:2], *more[4:]]) == 2
    known = ", ".join(method_terms())
    assert f'unknown method "shifted" (known: {known}); one of your own: segkd' in capsys.readouterr().err
    assert main(["visualize", "run", "run/samples", "--out", "drawn", "--device", "cpu"]) == 0


def test_a_method_may_bring_a_source_of_its_own(here: Path) -> None:
    """That of the page: twice to the same bytes, and what it made is in the bank."""
    (here / "restarted.py").write_text(SOURCE)
    (here / "mine.yaml").write_text(RECIPE.replace("shifted", "restarted").replace("options: {power: 1.5}\n", ""))
    play = ["distill", "mine.yaml", "--method-file", "restarted.py", "data=null", "run.device=cpu", "--quiet"]
    games = []
    for folder in ("one", "other"):
        assert main([*play, "synth.replay=4", f"run.dir={folder}"]) == 0
        games.append(checkpoint.load(checkpoint.listed(here / folder / "checkpoints")[0])["game"])
    assert hash_of(games[0]) == hash_of(games[1])
    assert len(games[0]["replay"]["images"]) == 2 and games[0]["source"]["own"]


def test_a_further_term_is_one_file(tmp_path: Path) -> None:
    """That of the page, in a copy of the package."""
    shutil.copytree(segkd.__path__[0], tmp_path / "segkd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        Path(segkd.__path__[0]).parent / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("logs")
    )
    (tmp_path / "segkd/methods/terms/sure.py").write_text(TERM)

    def said(*arguments: str) -> tuple[int, str]:
        command = [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, ''); from segkd.cli.main import main; sys.exit(main())",
        ]
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    keys = said("recipes", "keys", "terms.sure")[1]
    assert "terms.sure.weight: 0.0" in keys and "Student: it should be sure of every pixel." in keys
    small = [
        "synth.kind=noise",
        "synth.augment=[]",
        "game.student_moves=1",
        "run.steps=1",
        "run.batch=4",
        "data=null",
        "run.device=cpu",
    ]
    code, lines = said("distill", "quickstart", "method=noise", "terms.sure.weight=0.1", *small, "run.dir=run")
    assert code == 0, lines
    assert '"sure":' in (tmp_path / "run/metrics.jsonl").read_text()


OWN = """from segkd.methods.noise import Noise


class Own(Noise):
    student, weights = ("kd", "more"), {"kd": 1.0, "more": 1.0}

    def more(self, v):
        return v.s.mean()
"""
WRONG = {
    "does not import": (("from segkd", "import nowhere\nfrom segkd"), "own.py:1: ModuleNotFoundError: No module named 'nowhere'"),
    "leaves": (("from segkd", "import sys\nsys.exit(0)\nfrom segkd"), "own.py:2: SystemExit: 0"),
    "no Python": (("class Own", "class Own("), "own.py:4: cannot read the method: "),
    "no number": (("v.s.mean()", "v.s"), r"own.py:7: term more returns a tensor \(\d+, .*\) of float32, and not one number"),
    "no fraction": (("v.s.mean()", "v.s.argmax()"), "own.py:7: term more returns a tensor () of int64, and not one number"),
    "None": (("return v.s.mean()", "v.s.mean()"), "own.py:7: term more returns an object of type NoneType"),
    "raises": (("v.s.mean()", "v.s.mean() / 0 + [][1]"), "own.py:8: IndexError: list index out of range"),
    "no labels": (("v.s.mean()", "v.labels.float().mean()"), "own.py:8: a term looks at v.labels, and the source draws no maps of classes; set synth.kind=conditional"),
    "no average": (("v.s.mean()", "v.average(v.x).mean()"), "own.py:8: a term asks for v.average, and the student has no average"),
    "no latents": (("v.s.mean()", "v.z.mean()"), "own.py:8: AttributeError: a term looks at v.z, which this move does not"),
    "another option": (("v.s.mean()", "v.s.mean() * self.options['a']"), "own.py:8: Own: no option 'a' in its `options`"),
    "no gradient": (("v.s.mean()", "v.t.mean()"), "own.py:7: no gradient comes back from term more; leave detach"),
    "no gradient of one": (("v.s.mean()", "v.s.detach().abs().mean()"), "own.py:7: no gradient comes back from term more; leave detach"),
    "no function": (("def more", "def less"), "own.py:4: term more: the class has no function of that name"),
    "no weight": ((', "more": 1.0}', "}"), "own.py:4: term more: `weights` has no default for it"),
    "a weight of nothing": ((', "more": 1.0}', ', "more": 1.0, "mroe": 1.0}'), "own.py:4: weights: mroe: no term of the class is called so"),
    "a name that is taken": (("more", "loss"), "own.py:4: term loss: every method has a loss already"),
    "two methods": (("class Own", "class Other(Noise):\n    pass\n\n\nclass Own"), "own.py:8: holds 2 classes of a method"),
    "no method of segkd": (("(Noise)", ""), "own.py:1: holds 0 subclasses of segkd.methods.base.Method"),
    "another constructor": (("    def more", "    def __init__(self):\n        super().__init__()\n\n    def more"), "own.py:4: TypeError: "),
    "a parameter that nobody uses": (
        ("    def more", "    def __init__(self, *a):\n        super().__init__(*a)\n        import torch\n"
         "        self.idle = torch.nn.Parameter(torch.ones(1))\n\n    def more"), "own.py:4: Own: no term with weight uses its parameter idle"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_a_file_does_wrong_is_one_line(
    fault: str, here: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    (before, after), line = WRONG[fault]
    (here / "own.py").write_text(OWN.replace(before, after))
    weights = ["weights.kd=0"] if fault == "no gradient" else []
    values = ["method=own", "variant=null", "data=null", "synth.size=[32, 32]", "run.steps=1", "run.batch=2", "run.device=cpu",
              "synth.kind=noise", "synth.replay=0", "synth.augment=[]", "student.ema=0", "run.headline=last", "terms=null",
              "game.synth_moves=0", "game.keep_moves=0", "game.overlap=false", "run.dir=run"]  # fmt: skip
    code = main(["distill", str(tiny.path), *values, *weights, "--method-file", "own.py", "--quiet"])
    err = capsys.readouterr().err
    told = [text for text in err.splitlines() if "own.py" in text]
    assert code == 2 and "bug" not in err and len(told) == 1, err
    assert re.match(rf"(segkd: )?{line if fault == 'no number' else re.escape(line)}", told[0]), err


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("own.py", [], "own.py: the recipe's method is ddad; choose method=own, or leave the file out"),
        ("kd.py", ["method=kd"], "segkd: kd.py: segkd has a kd of its own; give the file another name"),
        ("base.py", ["method=base"], "segkd: base.py: segkd has a base of its own; give the file another name"),
        ("none.py", ["method=none"], "segkd: none.py:1: cannot read the method: no such file"),
    ],
)
def test_a_file_that_is_not_the_recipes_method(here, tiny, capsys, name, values, line) -> None:
    if name != "none.py":
        (here / name).write_text(OWN)
    assert main(["distill", str(tiny.path), *values, "--method-file", name]) == 2
    assert line in capsys.readouterr().err


def test_what_a_file_changes_in_torch_is_put_back(here: Path) -> None:
    changes = (
        "import torch\ntorch.set_grad_enabled(False)\ntorch.manual_seed(0)\ntorch.set_default_dtype(torch.float64)\n"
    )
    (here / "own.py").write_text(changes + OWN)
    before = torch.get_rng_state()
    assert method_class("own", MethodFile.read(Path("own.py"))).__name__ == "Own"
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before)
