"""Weights on the hub: downloaded once, without code, from a server that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import save

from segkd.foundation.errors import UsageError
from segkd.recipe import expand_root
from segkd.recipe.copying import anchored
from tests.waiting import PATIENCE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}).encode(),
    "model.safetensors": save({"a": torch.ones(2)}),
    "pytorch_model.bin": b"the same weights again",
    "modeling.py": b"raise SystemExit('code of the repository')",
}
READ = """
from segkd.recipe import expand_root, load
from segkd.recipe.hub import cached
recipe = load({"extends": "base/ddad.yaml", "teacher": {**SAID, "weights": WEIGHTS},
    "student": {"arch": "FPN", "encoder": "resnet18"}, "synth": {"size": [64, 64]}, "run": {"steps": 1, "batch": 2}}, fetch=FETCH)
print(list(recipe.teacher.mean), recipe.teacher.weights)
if not SAID:
    print(recipe.teacher.arch, recipe.teacher.classes)
print(sorted(path.name for path in cached(WEIGHTS).iterdir()) if cached(WEIGHTS) else None)
"""


class Hub(BaseHTTPRequestHandler):
    """One repository `some/net`, at one commit; asked.paths are those that were asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path in ("/api/models/some/net", "/api/models/some/net/revision/main"):
            told = {"id": "some/net", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.server.files]}
            self._answer(200, json.dumps(told).encode(), Content_Type="application/json")
        elif path == f"/api/models/some/net/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.server.files.items()
            ]
            self._answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif path.startswith(f"/some/net/resolve/{COMMIT}/"):
            data = self.server.files[path.rpartition("/")[2]]
            self._answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self._answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.files = [], dict(FILES)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


SAID = {"arch": "FPN", "encoder": "resnet18", "classes": 3}


def read(
    hub: Any, home: Path, weights: str = "hf://some/net", fetch: bool = True, said: dict[str, Any] = SAID
) -> subprocess.CompletedProcess:
    """A recipe with such weights, read in a process whose hub is `hub` and whose cache lies in `home`."""
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    code = f"WEIGHTS, FETCH, SAID = {weights!r}, {fetch}, {said}\n{READ}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | own
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def test_they_are_downloaded_once_and_without_code(hub: Any, tmp_path: Path) -> None:
    before = read(hub, tmp_path, fetch=False)
    assert before.stdout.splitlines() == ["[0.5, 0.5, 0.5] hf://some/net", "None"] and not hub.asked
    assert "hf://some/net: not downloaded yet; it says what mean and std are" in before.stderr
    first = read(hub, tmp_path)
    taken = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert first.stdout.splitlines() == ["[0.1, 0.2, 0.3] hf://some/net", str(taken)], first.stderr
    assert first.stderr.splitlines() == ["hf://some/net: downloading it from the hub"]
    assert not any("modeling.py" in path or "pytorch_model" in path for path in hub.asked)
    hub.asked.clear()
    again = read(hub, tmp_path)
    assert (again.stdout, again.stderr) == (first.stdout, "") and not hub.asked


def test_what_a_recipe_leaves_out_its_folder_says(hub: Any, tmp_path: Path) -> None:
    config = {"architectures": ["SegformerForSemanticSegmentation"], "id2label": {"0": "void", "1": "road"}}
    hub.files["config.json"] = json.dumps(config).encode()
    before = read(hub, tmp_path, fetch=False, said={})
    assert "teacher.weights: not downloaded yet (segkd inspect does it); its folder may say" in before.stderr
    assert before.returncode == 1 and not hub.asked
    after = read(hub, tmp_path, said={})
    assert after.stdout.splitlines()[1] == "SegformerForSemanticSegmentation ('void', 'road')", after.stderr
    assert read(hub, tmp_path, fetch=False, said={}).stdout == after.stdout


def test_a_student_of_segkd_says_how_its_images_were_normalised(hub: Any, tmp_path: Path) -> None:
    del hub.files["preprocessor_config.json"]
    hub.files["preprocess.json"] = json.dumps({"mean": [0.3, 0.2, 0.1], "std": [1, 1, 1]}).encode()
    taken = ["config.json", "model.safetensors", "preprocess.json"]
    assert read(hub, tmp_path).stdout.splitlines() == ["[0.3, 0.2, 0.1] hf://some/net", str(taken)]


def test_older_weights_are_taken_where_there_are_no_others(hub: Any, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    assert "pytorch_model.bin" in read(hub, tmp_path).stdout
    del hub.files["pytorch_model.bin"]
    assert "holds no model.safetensors or pytorch_model.bin on the hub" in read(hub, tmp_path / "other").stderr


@pytest.mark.parametrize("weights", ["hf://some/other", "hf://some/net@absent"])
def test_what_cannot_be_had_is_one_line(hub: Any, tmp_path: Path, weights: str) -> None:
    last = read(hub, tmp_path, weights).stderr.splitlines()[-1]
    assert last.startswith(f"segkd.foundation.errors.StorageError: {weights}: cannot be downloaded (")
    assert last.endswith("; check its name and the network, or download it elsewhere and name its folder")


def test_a_name_is_checked_with_the_recipe(errors_of, distill: dict[str, Any], tmp_path: Path) -> None:
    distill["teacher"]["weights"] = "hf://net"
    assert "teacher.weights: expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION" in errors_of(distill)[0]
    with pytest.raises(UsageError, match="hf://../x: expected hf://OWNER/NAME"):
        expand_root("hf://../x")
    (tmp_path / "x.yaml").write_text("teacher: {weights: hf://some/net}\n")
    assert anchored(tmp_path / "x.yaml") == "teacher: {weights: hf://some/net}\n"
