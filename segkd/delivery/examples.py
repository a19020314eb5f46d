"""The scripts beside an exported file, from one text: they need neither segkd nor PyTorch, but for a `.pt2`."""

from __future__ import annotations

from pathlib import Path

TEXT = Path(__file__).with_name("example.txt")
RUNS = {
    "onnx": (
        "example.py", "onnxruntime",
        'onnxruntime.InferenceSession(here / "model.onnx").run(None, {"images": np.ascontiguousarray(x)})[0]',
    ),
    "opencv": ("example_opencv.py", "cv2", "network.forward()"),
    "pt2": (
        "example.py", "torch",
        'torch.export.load(here / "model.pt2").module()(torch.from_numpy(np.ascontiguousarray(x))).numpy()',
    ),
}  # fmt: skip
"""For each way to run a file: the script's name, what it imports, and what gives the answer to the images `x`."""
BEFORE = {
    "opencv": 'network = cv2.dnn.readNetFromONNX(str(here / "model.onnx"))\nnetwork.setInput(np.ascontiguousarray(x))\n'
}


def script(way: str) -> str:
    """The text of one of RUNS."""
    name, module, answer = RUNS[way]
    filled = {"{name}": name, "{imports}": f"import {module}", "{runs}": f"{BEFORE.get(way, '')}out = {answer}\n"}
    text = TEXT.read_text("utf-8")
    for place, value in filled.items():
        text = text.replace(place, value)
    return text
