"""Terms read from method files without importing them."""

from pathlib import Path

import pytest

from segkd.foundation.errors import UsageError
from segkd.recipe import Terms, method_terms
from segkd.recipe.terms import METHODS


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text("import no_such_module_anywhere\n" + text)
    return folder


BASE = "class Method:\n    student: tuple[str, ...] = ()\n    source: tuple[str, ...] = ()\n    weights: dict[str, float]\n"
DFAD = (
    "from base import Method\nclass Helper:\n    pass\n"
    "class DFAD(Method):\n    student, source = ('kd',), ('adv',)\n    weights = dict(kd=1.0, adv=2)\n"
)


def test_forms_of_writing(tmp_path: Path) -> None:
    write(
        tmp_path,
        __init__="",
        base=BASE,
        dfad=DFAD,
        kd="class KD(base.Method):\n    student: tuple[str, ...] = ('kd',)\n    weights = {'kd': 1}\n",
        ddad="class DDAD(Method[int]):\n    student = ('kd',)\n    source = ('adv', 'bn')\n    weights = {'kd': .5}\n",
    )
    assert method_terms(tmp_path) == {
        "ddad": Terms(("kd",), ("adv", "bn"), {"kd": 0.5}),
        "dfad": Terms(("kd",), ("adv",), {"kd": 1.0, "adv": 2.0}),
        "kd": Terms(("kd",), (), {"kd": 1.0}),
    }
    assert method_terms(tmp_path)["ddad"].names == ("kd", "adv", "bn")


def test_a_term_of_refined_images_alone_is_a_term(tmp_path: Path) -> None:
    more = "    pixels = ('adv', 'tv')\n    weights = {'tv': 0.0}\n"
    write(tmp_path, base=BASE, mad="class MAD(Method):\n    student, source = ('kd',), ('adv',)\n" + more)
    terms = method_terms(tmp_path)["mad"]
    assert terms.pixels == ("adv", "tv") and terms.names == ("kd", "adv", "tv")


def test_inheritance_across_files_by_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=BASE,
        dfad=DFAD,
        ddad="import dfad\nclass DDAD(dfad.DFAD):\n    source = ('adv', 'bn')\n    weights = {'bn': 1.0}\n",
        mad="class MAD(DDAD):\n    pass\n",
    )
    terms = method_terms(tmp_path)
    assert terms["ddad"] == Terms(("kd",), ("adv", "bn"), {"bn": 1.0})
    assert terms["mad"] == terms["ddad"]


def test_a_method_file_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "methods"
    folder.mkdir()
    write(folder, base=BASE, dfad=DFAD)
    write(tmp_path, mine="class Mine(DFAD):\n    student = ('kd', 'extra')\n")
    terms = method_terms(folder, [tmp_path / "mine.py"])
    assert sorted(terms) == ["dfad", "mine"]
    assert terms["mine"].names == ("kd", "extra", "adv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class M:\n    student = [x for x in 'a']\n", r"m\.py:3: student: must be a literal"),
        ("class M:\n    student = ['kd']\n", r"m\.py:3: student: must be a tuple"),
        ("class M:\n    student = ('kd')\n", r"m\.py:3: student: must be a tuple"),
        ("class M:\n    student = ('kd',)\n    weights = {'kd': '1'}\n", r"m\.py:4: weights: must be a dict"),
        ("class M:\n    student = ('kd',)\n    weights = {'kd': True}\n", r"m\.py:4: weights: must be a dict"),
        ("class M:\n    student = ('kd',)\n    weights = dict(**w)\n", r"m\.py:4: weights: must be a literal"),
        ("class M:\n    pass\n", r"m\.py: holds no method"),
        ("class M(:\n", r"m\.py:2: cannot read the method"),
        ("class A(B):\n    pass\nclass B(A):\n    pass\n", r"inherits from itself"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        method_terms(write(tmp_path, m=text))


def test_missing_files(tmp_path: Path) -> None:
    assert method_terms(tmp_path / "nowhere") == {}
    with pytest.raises(UsageError, match=r"mine\.py:1: cannot read the method"):
        method_terms(tmp_path, [tmp_path / "mine.py"])


def test_shipped_methods_can_be_read_and_weigh_their_terms() -> None:
    files = {path.stem for path in METHODS.glob("*.py")} - {"__init__", "base", "finding"}
    if not files:
        pytest.skip("no methods yet")
    terms = method_terms()
    assert terms.keys() == files
    for name, found in terms.items():
        assert set(found.weights) == set(found.names), name
