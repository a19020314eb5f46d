"""Files, what they extend, presets and overrides: which value wins, and where it was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, find, load, named, presets, shipped, sources
from segkd.recipe.strict_yaml import dump

Write = Callable[..., Path]
Errors = Callable[..., list[str]]


def test_find_paths_and_shipped_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged, checkout = here / "packaged", here / "checkout"
    monkeypatch.setattr(sources, "PACKAGED", packaged)
    monkeypatch.setattr(sources, "CHECKOUT", checkout)
    for file in ("packaged/quickstart.yaml", "checkout/quickstart.yaml", "checkout/teachers/scenes.yaml",
                 "checkout/base/ddad.yaml", "mine.yaml"):  # fmt: skip
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text("a: 1")
    assert find("mine.yaml") == Path("mine.yaml")
    assert find("quickstart") == find("quickstart.yaml") == packaged / "quickstart.yaml"
    assert find("teachers/scenes") == checkout / "teachers/scenes.yaml"
    assert find("base/ddad") == checkout / "base/ddad.yaml"
    assert shipped() == ["quickstart", "teachers/scenes"]
    with pytest.raises(RecipeError, match=r"no such recipe.*did you mean 'quickstart'"):
        find("quikstart")
    with pytest.raises(RecipeError, match="shipped: quickstart, teachers/scenes"):
        find("something/else.yaml")
    with pytest.raises(RecipeError, match="a folder, and no recipe file"):
        find(here)


def test_extends_merges_mappings_and_replaces_the_rest(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    write(distill, "base/root.yaml")
    write("extends: base/root.yaml\nstudent: {optimizer: {lr: 0.2}}\nsynth: {augment: [crop, erase]}\n", "middle.yaml")
    path = write("extends: ../middle.yaml\nrun: {seed: 9}\nsynth: {sizes: []}\n", "deep/leaf.yaml")
    recipe = load(path, methods=methods)
    assert recipe.student.optimizer.lr == 0.2
    assert recipe.student.optimizer.momentum == 0.9
    assert recipe.synth.augment == ("crop", "erase")
    assert recipe.synth.sizes == ()
    assert (recipe.run.seed, recipe.run.batch) == (9, 8)


def test_null_unsets_what_was_inherited(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    write(distill, "root.yaml")
    recipe = load(
        write("extends: root.yaml\nstudent: {ema: null, schedule: null}\ndata: {final: null}\nweights: {adv: null}\n"
              "synth: {optimizer: {clip: null}}\noptions: null\n"), methods=methods)  # fmt: skip
    assert recipe.student.ema == 0.999
    assert recipe.student.schedule.name == "poly"
    assert recipe.data.final is None
    assert recipe.synth.optimizer.clip is None
    assert recipe.weights["adv"] == 1.0
    assert recipe.options["temperature"] == 1.0


def test_errors_name_the_file_and_line_that_caused_them(
    errors_of: Errors, write: Write, distill: dict[str, Any]
) -> None:
    distill["student"]["optimizer"]["lr"] = -1
    root = dump(distill)
    write(root, "base/root.yaml")
    line = next(number for number, text in enumerate(root.splitlines(), 1) if "lr: -1" in text)
    errors = errors_of(
        "extends: base/root.yaml\nrun:\n  sed: 1\npresets:\n  ddad:\n    options: {ramp: 2}\n",
        "teacher.clases=11", "run.batch=many",
    )  # fmt: skip
    assert sorted(errors) == [
        f"base/root.yaml:{line}: student.optimizer.lr: must be more than 0.0, got -1",
        'command line: run.batch: expected a whole number, got "many"',
        "command line: teacher.clases: unknown key, did you mean 'classes'?",
        "recipe.yaml:3: run.sed: unknown key, did you mean 'seed'?",
        "recipe.yaml:6: options.ramp: must be at most 1.0, got 2",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"recipe.yaml": "a: 1\nextends: no.yaml\n"}, 'recipe.yaml:2: extends: no such file: "no.yaml"'),
        ({"recipe.yaml": "extends: recipe.yaml\n"}, "recipe.yaml:1: extends: a circle: recipe.yaml -> recipe.yaml"),
        ({"recipe.yaml": "extends: b/b.yaml\n", "b/b.yaml": "\nextends: ../recipe.yaml\n"},
         "b/b.yaml:2: extends: a circle: recipe.yaml -> b.yaml -> recipe.yaml"),
        ({"recipe.yaml": "extends: [a.yaml]\n"}, "recipe.yaml:1: extends: expected the path of one recipe"),
        ({"recipe.yaml": "extends: .\n"}, 'recipe.yaml:1: extends: a folder; its recipe is recipe.yaml in it: "."'),
        ({"recipe.yaml": "extends: b.txt\n", "b.txt": "secret: 1\n"}, 'recipe.yaml:1: extends: "b.txt" is no recipe (.yaml)'),
        ({"recipe.yaml": "extends: b.yaml\n", "b.yaml": "[1]\n"}, "b.yaml:1: expected a mapping (key: value), got [1]"),
        ({"recipe.yaml": "extends: b.yaml\n", "b.yaml": "a: [\n"}, "b.yaml:2: not valid YAML: "),
    ],
)  # fmt: skip
def test_chains_that_cannot_be_followed(errors_of: Errors, write: Write, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(text, name)
    errors = errors_of(files["recipe.yaml"])
    assert len(errors) == 1
    assert errors[0].startswith(message)


def test_not_text(here: Path, methods: dict[str, Terms]) -> None:
    (here / "a.yaml").write_bytes(b"a: 1\nb: \xff\xfe\n")
    with pytest.raises(RecipeError, match=r"a\.yaml:2: not UTF-8 text"):
        load("a.yaml", methods=methods)
    (here / "a.pt").write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(
        RecipeError, match=r"a\.pt:1: not UTF-8 text; a recipe is a text, and names weights as teacher\.weights$"
    ):
        load("a.pt", methods=methods)


def test_a_byte_order_mark_is_no_key(here: Path, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    (here / "a.yaml").write_bytes(b"\xef\xbb\xbf" + dump(distill).encode())
    assert load("a.yaml", methods=methods).run.batch == 8


def with_presets(distill: dict[str, Any]) -> dict[str, Any]:
    del distill["weights"]
    distill["presets"] = {
        "ddad": {"weights": {"adv": 0.25}, "run": {"batch": 4, "keep": 3}, "student": {"ema": 0.5}},
        "ddad.paper": {"weights": {"bn": 7.0}, "run": {"batch": 2}},
        "dfad": {"weights": {"adv": 3.0}, "synth": {"replay": 77}},
        "dfad.quick": {"run": {"steps": 3}},
    }
    return distill


@pytest.mark.parametrize(
    ("overrides", "weights", "batch", "replay", "folder"),
    [
        ((), {"kd": 1, "adv": 0.25, "bn": 1, "balance": 0}, 4, 10, "runs/recipe-s1"),
        (("variant=paper",), {"kd": 1, "adv": 0.25, "bn": 7, "balance": 0}, 2, 10, "runs/recipe-paper-s1"),
        (("method=dfad",), {"kd": 1, "adv": 3}, 8, 77, "runs/recipe-dfad-s1"),
        (("method=dfad", "variant=quick"), {"kd": 1, "adv": 3}, 8, 77, "runs/recipe-dfad-quick-s1"),
        (("variant=paper", "run.batch=1", "run.seed=5"), {"kd": 1, "adv": 0.25, "bn": 7, "balance": 0}, 1, 10,
         "runs/recipe-paper-s5"),
        (("weights.adv=0", "run.dir=x/y"), {"kd": 1, "adv": 0, "bn": 1, "balance": 0}, 4, 10, "x/y"),
        (("variant=null",), {"kd": 1, "adv": 0.25, "bn": 1, "balance": 0}, 4, 10, "runs/recipe-s1"),
    ],
)  # fmt: skip
def test_presets_then_command_line(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], overrides: tuple[str, ...],
    weights: dict[str, float], batch: int, replay: int, folder: str,
) -> None:  # fmt: skip
    recipe = load(write(with_presets(distill)), overrides, methods=methods)
    assert recipe.weights == weights
    assert (recipe.run.batch, recipe.synth.replay, recipe.run.dir) == (batch, replay, folder)
    assert recipe.student.ema == (0.5 if recipe.method == "ddad" else 0.99)
    assert "presets" not in recipe.as_dict()


def test_presets_are_inherited_and_listed(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    write(with_presets(distill), "root.yaml")
    path = write("extends: root.yaml\npresets: {ddad: {run: {batch: 16}}, ddad.mine: {run: {keep: 9}}}\n")
    recipe = load(path, ["variant=mine"], methods=methods)
    assert (recipe.run.batch, recipe.run.keep, recipe.weights["adv"]) == (16, 9, 0.25)
    assert presets(path) == ["ddad", "ddad.paper", "dfad", "dfad.quick", "ddad.mine"]


def test_wrong_presets(errors_of: Errors, distill: dict[str, Any]) -> None:
    text = dump(distill)
    line = text.count("\n") + 1
    errors = errors_of(text + "presets:\n  dad: {}\n  ddad: 3\n  dfad: {method: ddad}\n  ddad.fast: {runn: {}}\n")
    assert sorted(errors) == [
        f"recipe.yaml:{line + 1}: presets.dad: unknown method, did you mean 'ddad'? (known: ddad, dfad)",
        f"recipe.yaml:{line + 2}: presets.ddad: expected a mapping, got 3",
        f"recipe.yaml:{line + 3}: presets.dfad.method: a preset cannot choose this",
    ]
    assert errors_of(text + "presets: [ddad]\n") == [
        f"recipe.yaml:{line}: presets: expected a mapping from METHOD or METHOD.VARIANT to keys"
    ]


def test_paths_belong_to_the_file_that_names_them(
    write: Write, here: Path, distill: dict[str, Any], methods: dict[str, Terms]
) -> None:
    distill["teacher"]["weights"] = "../teachers/t.safetensors"
    distill["student"]["weights"] = "s.safetensors"
    distill["presets"] = {"ddad.paper": {"teacher": {"weights": "p.safetensors"}}}
    write(distill, "a/b/root.yaml")
    path = write("extends: b/root.yaml\nrun: {dir: out}\ndata: {root: d}\n", "a/leaf.yaml")
    recipe = load(path, methods=methods)
    assert recipe.teacher.weights == str(here / "a/teachers/t.safetensors")
    assert recipe.student.weights == str(here / "a/b/s.safetensors")
    assert (recipe.run.dir, recipe.data.root) == ("out", "d")
    assert load(path, ["variant=paper"], methods=methods).teacher.weights == str(here / "a/b/p.safetensors")
    changed = load(path, ["teacher.weights=x/y.pt", "student.weights=none"], methods=methods)
    assert (changed.teacher.weights, changed.student.weights) == (str(here / "x/y.pt"), "none")
    words = load(path, ["teacher.weights=teacher", "student.weights=teacher"], methods=methods)
    assert (words.teacher.weights, words.student.weights) == (str(here / "teacher"), "teacher"), "a folder, and a word"
    assert load(path, ["student.weights=./teacher"], methods=methods).student.weights == str(here / "teacher")
    kept = load(path, ["teacher.weights=${SEGKD_DATA}/t.pt"], methods=methods)
    assert kept.teacher.weights == "${SEGKD_DATA}/t.pt"


def test_paths_of_a_teach_recipe(
    write: Write, here: Path, teach: dict[str, Any], methods: dict[str, Terms], tmp_path: Path
) -> None:
    teach["output"] = "t.safetensors"
    teach["model"]["weights"] = "none"
    recipe = load(write(teach, "teachers/scenes.yaml"), methods=methods)
    assert recipe.output == str(here / "teachers/t.safetensors")
    assert recipe.model.weights is None
    assert recipe.run.dir == "runs/scenes-s0"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("student.optimizer.lr=1e-4", ("student", "optimizer", "lr"), 1e-4),
        ("synth.size=[64, 96]", ("synth", "size"), [64, 96]),
        ("synth={replay: 3}", ("synth", "replay"), 3),
        ("data.root='a=b c'", ("data", "root"), "a=b c"),
        ("data.root=a=b", ("data", "root"), "a=b"),
        ("data.watch=val", ("data", "watch"), "val"),
        ("data.final=", ("data", "final"), None),
        ("student.ema=", ("student", "ema"), 0.999),
        ("run.budget=90s", ("run", "budget"), 90.0),
        (" run.seed =3", ("run", "seed"), 3),
        ("teacher.classes=[sky, road]", ("teacher", "classes"), ["sky", "road"]),
    ],
)
def test_override_values(
    write: Write, distill: dict[str, Any], methods: dict[str, Terms], override: str, key: tuple[str, ...], value: Any
) -> None:
    found: Any = load(write(distill), [override], methods=methods).as_dict()
    for part in key:
        found = found[part]
    assert found == value


def test_the_last_of_two_overrides_wins(write: Write, distill: dict[str, Any], methods: dict[str, Terms]) -> None:
    assert load(write(distill), ["run.seed=3", "run.seed=4"], methods=methods).run.seed == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", 'command line: "run.seed": expected key=value or key.sub=value'),
        ("=3", 'command line: "=3": expected key=value'),
        ("run..seed=3", 'command line: "run..seed=3": expected key=value'),
        ("extends=x.yaml", "command line: extends: belongs in a recipe file"),
        ("presets.ddad.run={}", "command line: presets: belongs in a recipe file"),
        ("run.seed=[1", "command line: run.seed: not valid YAML"),
        ("run.seed=!!int 3", "command line: run.seed: the tag"),
        ("run.seed.x=3", "command line: run.seed: expected a whole number, got a mapping"),
        ("run=3", "command line: run: expected a mapping, got 3"),
        ("run.seed=1.0", "command line: run.seed: expected a whole number, got 1.0"),
        ("rum.seed=1", "command line: rum: unknown key, did you mean 'run'?"),
        ("seed=1", "command line: seed: unknown key here; it belongs to run.seed"),
        (
            "student.classes=[road]",
            "command line: student.classes: unknown key here; it belongs to teacher.student_classes or teacher.classes",
        ),
        ("method=ddda", "command line: method: unknown method \"ddda\", did you mean 'ddad'? (known: ddad, dfad)"),
        ("method=3", "command line: method: expected text, got 3"),
        (
            "variant=papr",
            "command line: variant: unknown variant \"papr\", did you mean 'paper'? (known: segkd, pictures, paper)",
        ),
        ("weights.adw=1", "command line: weights.adw: unknown term of ddad, did you mean 'adv'? (known: kd, adv, bn, "),
        ("terms.mixup=1", "command line: terms.mixup: unknown further term (known: attention, c"),
    ],
)
def test_wrong_overrides(errors_of: Errors, distill: dict[str, Any], override: str, message: str) -> None:
    errors = errors_of(distill, override)
    assert len(errors) == 1, errors
    assert errors[0].startswith(message)


def test_a_recipe_may_extend_a_shipped_one_from_anywhere(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quickstart\nrun: {seed: 7}\n")
    recipe = load(path)
    assert recipe.run.seed == 7
    assert recipe.teacher == load("quickstart").teacher
    path.write_text("extends: base/ddad.yaml\n")
    trees, errors = sources.read_chain(path)
    assert not errors
    assert len(trees) == 2 and "presets" in trees[0].value and not trees[1].value


def test_a_former_name_is_taken_and_the_new_one_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "camvid_deeplab.yaml"
    beside.write_text("run: {seed: 9}\n")
    (tmp_path / "link").symlink_to(sources.CHECKOUT)
    for old, new in sources.RENAMED.items():
        for given in (
            old,
            f"{old}.yaml",
            f"{sources.CHECKOUT}/{old}.yaml",
            f"{sources.CHECKOUT}/{old}",
            f"link/{old}.yaml",
        ):
            sources.tell.cache_clear()
            assert find(given) == find(f"{sources.CHECKOUT}/{new}.yaml")
            assert find(given) and named(given), "and it is told once"
            assert capsys.readouterr().err == f"segkd: {old} is called {new} now\n"
            path = tmp_path / "mine.yaml"
            path.write_text(f"extends: {given}\n")
            assert load(path).teacher == load(new).teacher
            assert capsys.readouterr().err == f"mine.yaml:1: extends: {old} is called {new} now\n"
        assert load(old).run.dir == f"runs/{old}-s0", "the same command goes on with the same run"
        assert old not in shipped() and new in shipped()
    with pytest.raises(RecipeError, match="no such recipe"):
        find("elsewhere/camvid_cpu.yaml")
    (tmp_path / "camvid_cpu.yaml").write_text("run: {seed: 1}\n")
    capsys.readouterr()
    assert find("camvid_cpu.yaml") == Path("camvid_cpu.yaml"), "a file of one's own is what it is"
    assert not capsys.readouterr().err
