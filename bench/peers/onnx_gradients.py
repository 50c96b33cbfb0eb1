"""Gradients of an ONNX file's parameters by PyTorch, in float64, held against those that are given.

Runs the nodes of the file one by one with PyTorch's own operators. Reads a JSON job on stdin (bench/asset-gradients.ts writes it) and
prints the loss and, per parameter, the length of the difference over the length of PyTorch's gradient; beside it the same for
PyTorch's own gradient in float32, as a measure of what that precision allows.
"""
import json
import math
import sys

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

precision = torch.float64


def tensor(array):
    value = torch.from_numpy(np.array(array))
    return value.to(precision) if value.is_floating_point() else value


def ints(value):
    return [int(i) for i in value.reshape(-1).tolist()]


def padded(x, pads, value=0.0):
    """Pads as ONNX orders them: all begins, then all ends."""
    half = len(pads) // 2
    flat = [size for axis in reversed(range(half)) for size in (pads[axis], pads[half + axis])]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(a, x, w, b=None):
    rank = w.dim() - 2
    x = padded(x, a.get("pads", [0] * 2 * rank))
    function = {1: F.conv1d, 2: F.conv2d}[rank]
    return function(x, w, b, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))


def conv_transpose(a, x, w, b=None):
    assert not any(a.get("pads", [])) and "output_padding" not in a and "output_shape" not in a
    return F.conv_transpose2d(x, w, b, a.get("strides", 1), 0, 0, a.get("group", 1), a.get("dilations", 1))


def pool(a, x, average):
    assert not a.get("ceil_mode", 0)
    pads = a.get("pads", [0, 0, 0, 0])
    if average:
        assert not any(pads) or a.get("count_include_pad", 0)
        return F.avg_pool2d(padded(x, pads), a["kernel_shape"], a.get("strides", 1))
    return F.max_pool2d(padded(x, pads, -math.inf), a["kernel_shape"], a.get("strides", 1))


def batch_norm(a, training, x, scale, bias, mean, variance):
    return F.batch_norm(x, mean.clone(), variance.clone(), scale, bias, training, 0.1, a.get("epsilon", 1e-5))


def gemm(a, x, y, c=None):
    x, y = x.T if a.get("transA", 0) else x, y.T if a.get("transB", 0) else y
    product = a.get("alpha", 1.0) * (x @ y)
    return product if c is None else product + a.get("beta", 1.0) * c


def reshape(a, x, shape):
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(ints(shape))]
    return x.reshape(sizes)


def slices(a, x, starts, ends, axes=None, steps=None):
    axes = list(range(len(starts))) if axes is None else ints(axes)
    for k, axis in enumerate(axes):
        step = 1 if steps is None else int(steps[k])
        begin, end, _ = slice(int(starts[k]), int(ends[k]), step).indices(x.shape[axis])
        x = x.index_select(axis, torch.arange(begin, end, step))
    return x


def cast(a, x):
    kind = helper.tensor_dtype_to_np_dtype(a["to"])
    return x.to(DOUBLE if kind.kind == "f" else torch.from_numpy(np.zeros(1, kind)).dtype)


def axes_of(a, x, given):
    return ints(given) if given is not None else a.get("axes") or list(range(x.dim()))


def divide(x, y):
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def unsqueeze(a, x, axes=None):
    rank = x.dim() + len(axes_of(a, x, axes))
    for axis in sorted(i % rank for i in axes_of(a, x, axes)):
        x = x.unsqueeze(axis)
    return x


def squeeze(a, x, axes=None):
    chosen = [i % x.dim() for i in axes_of(a, x, axes)]
    return x.reshape([size for i, size in enumerate(x.shape) if i not in chosen or size != 1])


def resize(a, x, *rest):
    assert a["mode"] == b"nearest" and a["coordinate_transformation_mode"] == b"asymmetric" and a["nearest_mode"] == b"floor"
    sizes = ints(rest[2]) if len(rest) > 2 else [int(size * scale) for size, scale in zip(x.shape, rest[1].tolist())]
    return F.interpolate(x, size=sizes[2:], mode="nearest")


def gather(a, x, index):
    axis = a.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.reshape(-1).long())
    return picked.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1:]])


def split(a, x, sizes=None):
    axis, count = a.get("axis", 0), a["count"]
    return torch.split(x, x.shape[axis] // count if sizes is None else ints(sizes), axis)


def constant_of_shape(a, shape):
    value = tensor(numpy_helper.to_array(a["value"])) if "value" in a else torch.zeros(1, dtype=DOUBLE)
    return value.expand(ints(shape)).clone()


def layer_norm(a, x, scale, bias=None):
    axis = a.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, a.get("epsilon", 1e-5))


def reduced(function):
    def run(a, x, axes=None):
        return function(x, axes_of(a, x, axes), bool(a.get("keepdims", 1)))
    return run


def plain(function):
    return lambda a, *inputs: function(*inputs)


def many(function):
    def run(a, first, *others):
        for other in others:
            first = function(first, other)
        return first
    return run


OPERATORS = {
    "Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": plain(torch.matmul),
    "AveragePool": lambda a, x: pool(a, x, True), "MaxPool": lambda a, x: pool(a, x, False),
    "GlobalAveragePool": plain(lambda x: x.mean(list(range(2, x.dim())), True)),
    "GlobalMaxPool": plain(lambda x: x.amax(list(range(2, x.dim())), True)),
    "LayerNormalization": layer_norm, "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Relu": plain(torch.relu), "Sigmoid": plain(torch.sigmoid), "Tanh": plain(torch.tanh), "Erf": plain(torch.erf),
    "Exp": plain(torch.exp), "Sqrt": plain(torch.sqrt), "Sin": plain(torch.sin), "Cos": plain(torch.cos),
    "Reciprocal": plain(torch.reciprocal), "PRelu": plain(lambda x, s: F.prelu(x, s.reshape(-1))),
    "Clip": plain(lambda x, low=None, high=None: torch.clamp(x, low, high)), "Pow": plain(torch.pow),
    "Add": plain(torch.add), "Sub": plain(torch.sub), "Mul": plain(torch.mul), "Div": plain(divide),
    "Max": many(torch.maximum), "Min": many(torch.minimum), "Sum": many(torch.add), "Equal": plain(torch.eq),
    "Where": plain(torch.where), "Identity": plain(lambda x: x), "Cast": cast, "Reshape": reshape,
    "Flatten": lambda a, x: x.reshape(math.prod(x.shape[:a.get("axis", 1)]), -1),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(reversed(range(x.dim()))))),
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]), "Slice": slices, "Gather": gather, "Split": split,
    "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Resize": resize, "ConstantOfShape": constant_of_shape,
    "Expand": plain(lambda x, shape: x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(ints(shape))))),
    "Pad": lambda a, x, pads, value=None: padded(x, ints(pads), 0.0 if value is None else float(value)),
    "Shape": plain(lambda x: torch.tensor(x.shape)),
    "ReduceSum": reduced(torch.sum), "ReduceMean": reduced(torch.mean), "ReduceMax": reduced(torch.amax),
}


def run(model, values, wanted, training):
    """Adds the value of every node; constants among `wanted` become leaves that learn."""
    def learn(name, value):
        values[name] = value.requires_grad_() if name in wanted else value

    for initializer in model.graph.initializer:
        learn(initializer.name, tensor(numpy_helper.to_array(initializer)))
    for node in model.graph.node:
        a = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Constant":
            learn(node.output[0], tensor(numpy_helper.to_array(a["value"])))
            continue
        inputs = [values[name] if name else None for name in node.input]
        if node.op_type == "BatchNormalization":
            result = batch_norm(a, training, *inputs)
        else:
            result = OPERATORS[node.op_type]({**a, "count": len(node.output)}, *inputs)
        outputs = result if isinstance(result, (tuple, list)) else [result]
        values.update(zip(node.output, outputs))


def gradients_of(job, arrays):
    """The loss and its gradient per parameter, in the precision that is set."""
    values = {name: tensor(arrays[key]) for name, key in job["feeds"]}
    wanted = [name for name, _ in job["gradients"]]
    run(onnx.load(job["model"]), values, set(wanted), job["batchStatistics"])
    target = tensor(arrays["target"])
    if job["loss"] == "cross-entropy":
        scores = values[job["output"]]
        loss = -(target * torch.log_softmax(scores, 1)).sum() / scores.shape[0]
    else:
        loss = (sum((values[name] * tensor(arrays[key])).sum() for name, key in job["projection"]) - target) ** 2
    loss.sum().backward()
    grads = [values[name].grad if values[name].grad is not None else torch.zeros_like(values[name]) for name in wanted]
    return float(loss), [grad.to(torch.float64) for grad in grads]


def main():
    global precision
    job = json.load(sys.stdin)
    arrays = np.load(job["arrays"])
    loss, own = gradients_of(job, arrays)
    least = job["least"] * math.sqrt(sum(float(g.square().sum()) for g in own))
    given = [tensor(arrays[key]) for _, key in job["gradients"]]
    precision = torch.float32
    single = gradients_of(job, arrays)[1]

    def errors(others):
        return [float((other - grad).norm()) / max(float(grad.norm()), least) for other, grad in zip(others, own)]

    print(json.dumps({"loss": loss, "errors": errors(given), "single": errors(single)}))


main()
