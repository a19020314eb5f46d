"""A student as an ONNX file, from the same program that torch.export makes, in fp32 or with 8-bit weights and activations."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkd.foundation.errors import UsageError

OPSET = 18
"""Of ONNX: what onnxruntime has known since 2023."""
AXES = {0: "batch", 2: "height", 3: "width"}


def libraries() -> None:
    """Raises UsageError where those of the extra are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name}: ONNX needs it: pip install 'segkd[export]'") from error


def onnx_bytes(program: torch.export.ExportedProgram, output: str, metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a file with the program's input `images` (batch,K,height,width) and its output of that name.

    `metadata` becomes properties of the file, each as JSON.
    """
    import onnx

    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["images"], output_names=[output], verbose=False
        )
    model = made.model_proto
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # where the code lay on this machine is nobody's business
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        sizes = value.type.tensor_type.shape.dim
        axes = AXES if len(sizes) == 4 else {0: "batch", 1: "height", 2: "width"}
        for axis, name in axes.items():
            sizes[axis].dim_param = name
    del model.metadata_props[:], model.graph.metadata_props[:]
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def quantised_bytes(whole: bytes, images: Iterable[np.ndarray]) -> bytes:
    """The bytes of a file whose weights and activations are 8-bit integers (QDQ), their ranges those that `images` lead to.

    Args:
        whole: the bytes of the file in fp32.
        images: each (1,K,h,w) float32, as the file takes it.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.preprocess import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, shaped, after = (Path(folder, name) for name in ("fp32.onnx", "shaped.onnx", "int8.onnx"))
        before.write_bytes(whole)
        quant_pre_process(str(before), str(shaped), skip_symbolic_shape=True)
        # 7-bit weights: processors without VNNI add pairs of products in 16 bits, which 8 bits may overflow
        quantize_static(
            str(shaped), str(after), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return after.read_bytes()


class Session:
    """A file in onnxruntime: images (N,K,h,w) float32 to its output.

    Args:
        threads: of the CPU.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"images": images})[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters and their libraries say in passing."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
