"""What `segkd doctor` finds in environments that something is wrong with."""

import json
from pathlib import Path

import pytest

from segkd.cli.main import main
from segkd.runs.doctor import findings


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Packages as pip leaves them, before all others."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(name: str, version: str) -> None:
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return put


def found(tmp_path: Path) -> dict[str, tuple[str, str]]:
    return {each.name: (each.state, each.words) for each in findings(tmp_path / "runs")}


def test_a_sound_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SEGKD_DATA", raising=False)
    seen = found(tmp_path)
    assert {
        "versions",
        "packages",
        "OpenCV",
        "GPU" if "GPU" in seen else "GPU 0",
        "CPU",
        "memory",
        "disk",
        "SEGKD_DATA",
    } <= set(seen)
    assert seen["SEGKD_DATA"][0] == "note" and "licences" not in seen and seen["OpenCV"][0] == "ok"
    code = main(["doctor", str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (3 if any(each["state"] == "wrong" for each in told) else 0)
    assert main(["doctor", str(tmp_path)]) == code and "versions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "version", "name", "words"),
    [
        ("opencv-python", "4.9", "OpenCV", "pip uninstall opencv-python opencv-python-headless"),
        ("albumentationsx", "2.1", "licences", "AGPL"),
        ("click", "1.0", "packages", "click 1.0, needed >=8"),
    ],
)
def test_what_is_wrong_says_what_to_do(
    install, tmp_path: Path, package: str, version: str, name: str, words: str
) -> None:
    install(package, version)
    state, told = found(tmp_path)[name]
    if name == "packages" and state == "note":
        pytest.skip("segkd is not installed in this environment")
    assert state == "wrong" and words in told
    assert main(["doctor", str(tmp_path)]) == 3


def test_data_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKD_DATA", str(tmp_path / "none"))
    assert found(tmp_path)["SEGKD_DATA"] == ("wrong", f"{tmp_path / 'none'}: no such folder")
    (tmp_path / "none/camvid").mkdir(parents=True)
    assert found(tmp_path)["SEGKD_DATA"][0] == "ok"
