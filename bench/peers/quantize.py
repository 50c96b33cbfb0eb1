"""
Runs one peer quantizer on one ONNX file and prints what it cost and what came out, for comparison with flow-compress on the same file and data.

    VENV/bin/python bench/peers/quantize.py --model resnet20.onnx --data cifar-train.npz --test cifar-test.npz \
        --method ort-static-minmax --mean .485,.456,.406 --std .229,.224,.225 --out resnet20.qdq.onnx --json

`seconds` is calibration, quantization and saving, with imports and reading of data left out; `secondsWithPreprocess` adds ONNX Runtime's
preprocessing where the method uses it. `peakRssBytes` is the peak during both, `rssBeforeBytes` what was resident before (imports and samples).
With --json, stdout gets exactly one JSON object; everything the tools print goes to stderr. Exit codes: 0 done, 1 failed, 2 bad input or usage.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from peer_data import BadInput, Preprocess, calibration_samples, labelled_batches
from peer_measure import peak_rss_bytes, reset_peak_rss, rss_bytes, top1
from peer_methods import DEFAULT_PREPROCESS, METHODS, NEEDS_DATA, Options, build_preprocess

TEST_BATCH = 250
TEST_THREADS = 2


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a peer quantizer on an ONNX file and measure it.")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file with one input")
    parser.add_argument("--data", type=Path, help="calibration samples: .npz, or a folder of images (with --size)")
    parser.add_argument("--test", type=Path, help=".npz with labels; gives top-1 over all of it")
    parser.add_argument("--method", choices=list(METHODS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="file to write (replaced if it exists)")
    parser.add_argument("--calib", type=positive, default=512, help="calibration samples (default 512)")
    parser.add_argument("--batch", type=positive, default=32, help="samples per calibration run (default 32)")
    parser.add_argument("--mean", type=numbers, default=(0.0,), help="comma-separated, for pixels / 255")
    parser.add_argument("--std", type=numbers, default=(1.0,), help="comma-separated, for pixels / 255")
    parser.add_argument("--size", type=positive, help="side of the centre crop of image files, pixels")
    parser.add_argument("--seed", type=int, default=0, help="chooses the calibration samples (default 0)")
    parser.add_argument("--preprocess", choices=["full", "optimize", "none"], help="before quantization; default: full for ort-static-* and ort-dynamic, else none")
    parser.add_argument("--transformer", action="store_true", help="nncf: model_type=TRANSFORMER")
    parser.add_argument("--bits", type=int, choices=[4, 8], default=4, help="ort-matmul-nbits (default 4)")
    parser.add_argument("--block", type=positive, default=32, help="ort-matmul-nbits: block size (default 32)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def only_input(model: Path) -> str:
    import onnx

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except Exception as error:  # the protobuf library's own error types differ between its backends
        raise BadInput(f"{model}: not a readable ONNX file ({error}).") from error
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in initializers]
    if len(inputs) != 1:
        raise BadInput(f"{model}: inputs {inputs}; only models with one input are compared.")
    return inputs[0]


def check_paths(arguments: argparse.Namespace) -> None:
    for path in (arguments.model, arguments.data, arguments.test):
        if path is not None and not path.exists():
            raise BadInput(f"{path}: no such file.")
    if arguments.out.resolve() == arguments.model.resolve():
        raise BadInput(f"{arguments.out}: --out is the model itself; name another file.")
    if not arguments.out.parent.is_dir():
        raise BadInput(f"{arguments.out.parent}: no such folder; make it first.")
    if arguments.method in NEEDS_DATA and arguments.data is None:
        raise BadInput(f"{arguments.method} calibrates; give --data.")


def run(arguments: argparse.Namespace) -> dict:
    check_paths(arguments)
    preprocess = Preprocess(arguments.mean, arguments.std, arguments.size)
    input_name = only_input(arguments.model)
    samples = np.empty((0,), np.float32)
    if arguments.method in NEEDS_DATA:
        samples = calibration_samples(arguments.data, input_name, arguments.calib, arguments.seed, preprocess)
    options = Options(input_name, samples, arguments.batch, arguments.block, arguments.bits, arguments.transformer)
    work, settings = METHODS[arguments.method](options)
    kind = arguments.preprocess or DEFAULT_PREPROCESS[arguments.method]
    prepare = build_preprocess(kind)

    with tempfile.TemporaryDirectory(prefix=".peer-", dir=arguments.out.parent) as folder:
        target = Path(folder) / "quantized.onnx"
        gc.collect()
        reset_peak_rss()
        rss_before = rss_bytes()
        start = time.perf_counter()
        source = arguments.model
        if prepare is not None:
            source = Path(folder) / "prepared.onnx"
            prepare(arguments.model, source)
        prepared = time.perf_counter()
        work(source, target)
        end = time.perf_counter()
        peak = peak_rss_bytes()
        os.replace(target, arguments.out)

    tool = "nncf" if arguments.method == "nncf" else "onnxruntime"
    result: dict = {
        "peer": tool,
        "version": importlib.metadata.version(tool),
        "python": platform.python_version(),
        "method": arguments.method,
        "preprocess": kind,
        "settings": settings,
        "model": str(arguments.model),
        "output": str(arguments.out),
        "bytes": arguments.out.stat().st_size,
        "seconds": round(end - prepared, 3),
        "peakRssBytes": peak,
    }
    if arguments.method in NEEDS_DATA:
        result["calibrationSamples"] = len(samples)
    if prepare is not None:
        result["secondsWithPreprocess"] = round(end - start, 3)
    if rss_before is not None:
        result["rssBeforeBytes"] = rss_before
    if arguments.test is not None:
        batches = labelled_batches(arguments.test, input_name, TEST_BATCH, preprocess)
        result["top1"], result["testSamples"] = top1(arguments.out, batches, TEST_THREADS)
    return result


def main() -> int:
    arguments = parse_arguments()
    stdout = os.dup(1)
    os.dup2(2, 1)  # the tools print to stdout
    logging.getLogger().setLevel(logging.ERROR)
    try:
        result = run(arguments)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # whatever a peer throws is its result: say it in one line
        print(f"error: {arguments.method} on {arguments.model}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        text = json.dumps(result)
    else:
        accuracy = f", top-1 {result['top1']:.2%} of {result['testSamples']}" if "top1" in result else ""
        text = f"{arguments.method}: {result['bytes']:,} bytes, {result['seconds']} s, peak {result['peakRssBytes'] / 1e6:.0f} MB{accuracy}"
    os.write(stdout, f"{text}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
