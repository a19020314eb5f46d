"""The scripts beside an exported file: they need neither segkd nor PyTorch, but for a `.pt2`."""

_HEAD = '''"""Class ids (H,W) of a photo, at its own size: python {name} PHOTO"""
import json
import sys

import numpy as np
{imports}
from PIL import Image

about = json.load(open("deployed.json"))
photo = Image.open(sys.argv[1]).convert("L" if len(about["mean"]) == 1 else "RGB")
side = about["shorter_side"] or min(photo.size)
scale = min(1, side / min(photo.size))
seen = photo.resize([round(length * scale) for length in photo.size], Image.Resampling.BILINEAR)
x = np.atleast_3d(np.asarray(seen, np.float32))
if about["input"].startswith("x / 255"):
    x = (x / 255 - np.float32(about["mean"])) / np.float32(about["std"])
(height, width), multiple = x.shape[:2], about["multiple_of"]
x = np.pad(x, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge").transpose(2, 0, 1)[None]
'''
_TAIL = """ids = out[0] if about["output"] == "classes" else out[0].argmax(0)
mask = Image.fromarray(ids[:height, :width].astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST)
mask.putpalette([value for colour in about["palette"] for value in colour])
mask.save("mask.png")
print({about["classes"][k]: round(float((np.asarray(mask) == k).mean()), 3) for k in np.unique(mask)})
"""


def _script(name: str, imports: str, runs: str) -> str:
    return _HEAD.replace("{name}", name).replace("{imports}", imports) + runs + _TAIL


EXAMPLES = {
    "onnx": _script(
        "example.py", "import onnxruntime", 'out = onnxruntime.InferenceSession("model.onnx").run(None, {"images": np.ascontiguousarray(x)})[0]\n'
    ),
    "opencv": _script(
        "example_opencv.py", "import cv2", 'network = cv2.dnn.readNetFromONNX("model.onnx")\nnetwork.setInput(np.ascontiguousarray(x))\nout = network.forward()\n'
    ),
    "pt2": _script(
        "example.py", "import torch", 'out = torch.export.load("model.pt2").module()(torch.from_numpy(np.ascontiguousarray(x))).numpy()\n'
    ),
}  # fmt: skip
