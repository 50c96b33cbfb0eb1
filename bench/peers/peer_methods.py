"""The peers: each builder imports its tool, so that imports are not timed, and returns a function (source file, target file) -> None."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peer_data import BadInput

Work = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Options:
    """`samples`: float32 [N, ...], empty for methods that take no data; `batch`: samples per calibration run."""

    input_name: str
    samples: np.ndarray
    batch: int
    block: int
    bits: int
    transformer: bool

    def batches(self) -> list[np.ndarray]:
        return [self.samples[i : i + self.batch] for i in range(0, len(self.samples), self.batch)]


def _ort_static(calibration: str) -> Callable[[Options], tuple[Work, dict]]:
    """QDQ, uint8 activations, int8 weights per channel: the setting ONNX Runtime recommends for x86 CPUs."""

    def build(options: Options) -> tuple[Work, dict]:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._feeds = iter([{options.input_name: batch} for batch in options.batches()])

            def get_next(self) -> dict | None:
                return next(self._feeds, None)

        def work(source: Path, target: Path) -> None:
            quantize_static(
                str(source),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[calibration],
            )

        settings = {"format": "QDQ", "activations": "uint8", "weights": "int8", "perChannel": True, "calibration": calibration, "batch": options.batch}
        return work, settings

    return build


def _ort_dynamic(options: Options) -> tuple[Work, dict]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def work(source: Path, target: Path) -> None:
        quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)

    return work, {"weights": "int8", "perChannel": True}


def _ort_matmul_nbits(options: Options) -> tuple[Work, dict]:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def work(source: Path, target: Path) -> None:
        quantizer = MatMulNBitsQuantizer(onnx.load(str(source)), bits=options.bits, block_size=options.block, is_symmetric=True)
        quantizer.process()
        written = quantizer.model.model
        if not any(node.op_type == "MatMulNBits" for node in written.graph.node):
            raise BadInput("ort-matmul-nbits found no MatMul with constant weights in the model; use another method.")
        quantizer.model.save_model_to_file(str(target))

    return work, {"bits": options.bits, "block": options.block, "symmetric": True}


def _nncf(options: Options) -> tuple[Work, dict]:
    os.environ.setdefault("NNCF_CI", "1")  # NNCF's own switch for running without telemetry
    import nncf
    import nncf.onnx.quantization.quantize_model  # noqa: F401  (otherwise imported inside the timed call)
    import onnx

    batches = options.batches()
    model_type = nncf.ModelType.TRANSFORMER if options.transformer else None

    def work(source: Path, target: Path) -> None:
        dataset = nncf.Dataset(batches, lambda batch: {options.input_name: batch})
        onnx.save(nncf.quantize(onnx.load(str(source)), dataset, subset_size=len(batches), model_type=model_type), str(target))

    settings = {"preset": "default", "fastBiasCorrection": True, "modelType": "transformer" if options.transformer else "none", "batch": options.batch}
    return work, settings


METHODS: dict[str, Callable[[Options], tuple[Work, dict]]] = {
    "ort-static-minmax": _ort_static("MinMax"),
    "ort-static-entropy": _ort_static("Entropy"),
    "ort-dynamic": _ort_dynamic,
    "ort-matmul-nbits": _ort_matmul_nbits,
    "nncf": _nncf,
}

NEEDS_DATA = {"ort-static-minmax", "ort-static-entropy", "nncf"}

DEFAULT_PREPROCESS = {
    "ort-static-minmax": "full",
    "ort-static-entropy": "full",
    "ort-dynamic": "full",
    "ort-matmul-nbits": "none",
    "nncf": "none",
}


def build_preprocess(kind: str) -> Work | None:
    """`full`: ONNX Runtime's quant_pre_process (symbolic shapes, basic graph optimisation, shapes); `optimize`: its optimisation alone; `none`."""
    if kind == "none":
        return None
    if kind == "full":
        import onnxruntime.tools.symbolic_shape_infer
        import onnxruntime.transformers.onnx_utils  # noqa: F401  (otherwise imported inside the timed call)
        from onnxruntime.quantization.shape_inference import quant_pre_process

        return lambda source, target: quant_pre_process(str(source), str(target))

    import onnx
    import onnxruntime as ort
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    def optimize(source: Path, target: Path) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(target))
        add_pre_process_metadata(model)
        onnx.save(model, str(target))

    return optimize
