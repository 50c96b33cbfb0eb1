"""
Writes a MatMul network the size of a zoo model's hidden layers, and inputs for it: OUT/matmul2048.onnx, [N, 2048] -> 4 x (MatMul 2048 x 2048,
Add bias, Relu) -> [N, 2048], float32, opset 17, seeded weights; OUT/matmul2048.npz, an array `input` [512, 2048] of standard normal values.

    VENV/bin/python bench/peers/make-matmul.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 2048
LAYERS = 4
SAMPLES = 512


def build(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, initializers = [], []
    value = "input"
    for layer in range(LAYERS):
        # Variance 2 / width keeps the scale of the activations through the Relus.
        weight = (rng.standard_normal((WIDTH, WIDTH)) * np.sqrt(2 / WIDTH)).astype(np.float32)
        bias = (rng.standard_normal(WIDTH) * 0.1).astype(np.float32)
        initializers += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        out = "output" if layer == LAYERS - 1 else f"relu{layer}"
        nodes += [
            helper.make_node("MatMul", [value, f"w{layer}"], [f"matmul{layer}"], f"MatMul_{layer}"),
            helper.make_node("Add", [f"matmul{layer}", f"b{layer}"], [f"add{layer}"], f"Add_{layer}"),
            helper.make_node("Relu", [f"add{layer}"], [out], f"Relu_{layer}"),
        ]
        value = out
    graph = helper.make_graph(
        nodes,
        "matmul2048",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", WIDTH])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="flow-compress-bench")
    onnx.checker.check_model(model)
    return model


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: make-matmul.py OUT (an existing folder)", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    onnx.save(build(rng), str(folder / "matmul2048.onnx"))
    np.savez(folder / "matmul2048.npz", input=rng.standard_normal((SAMPLES, WIDTH)).astype(np.float32))
    return 0


if __name__ == "__main__":
    sys.exit(main())
