/** Conv and ConvTranspose: one loop per output, channel and kernel position. */
import { convGeometry } from '../../../onnx/conv-geometry.js';
import type { Node } from '../../../onnx/graph.js';
import { array, at, build, forEachIndex, stridesOf, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

const convolution: ReferenceOperator = ([x, w, bias], node) => {
  const { kernel, strides, dilations, padBegin, output } = convGeometry(node, x!.dims, w!.dims);
  const [batch, outChannels, perGroup] = [x!.dims[0]!, w!.dims[0]!, w!.dims[1]!];
  const outPerGroup = outChannels / node.int('group', 1);
  const y = build([batch, outChannels, ...output], ([n, co, ...position]) => {
    let sum = bias ? bias.data[co!]! : 0;
    const first = Math.floor(co! / outPerGroup) * perGroup;
    forEachIndex([perGroup, ...kernel], ([ci, ...tap]) => {
      const from = position.map((p, i) => p * strides[i]! + tap[i]! * dilations[i]! - padBegin[i]!);
      if (from.every((p, i) => p >= 0 && p < x!.dims[i + 2]!))
        sum += at(x!, [n!, first + ci!, ...from]) * at(w!, [co!, ci!, ...tap]);
    });
    return sum;
  });
  return [y];
};

const transposedConvolution: ReferenceOperator = ([x, w, bias], node) => {
  const { kernel, strides, dilations, padBegin, output } = transposedGeometry(node, x!, w!);
  const [batch, inChannels, perGroup] = [x!.dims[0]!, w!.dims[0]!, w!.dims[1]!];
  const groups = node.int('group', 1);
  const dims = [batch, perGroup * groups, ...output];
  const y = array(dims);
  const steps = stridesOf(dims);
  forEachIndex(x!.dims, ([n, ci, ...position], flat) => {
    const first = Math.floor(ci! / (inChannels / groups)) * perGroup;
    forEachIndex([perGroup, ...kernel], ([co, ...tap]) => {
      const to = position.map((p, i) => p * strides[i]! + tap[i]! * dilations[i]! - padBegin[i]!);
      if (!to.every((p, i) => p >= 0 && p < output[i]!)) return;
      const offset = [n!, first + co!, ...to].reduce((sum, i, axis) => sum + i * steps[axis]!, 0);
      y.data[offset]! += x!.data[flat]! * at(w!, [ci!, co!, ...tap]);
    });
  });
  return [bias ? build(dims, (index) => at(y, index) + bias.data[index[1]!]!) : y];
};

/** Padding and output size as the operator's documentation derives one from the other. */
function transposedGeometry(
  node: Node,
  x: NdArray,
  w: NdArray,
): Record<'kernel' | 'strides' | 'dilations' | 'padBegin' | 'output', number[]> {
  const kernel = w.dims.slice(2);
  const input = x.dims.slice(2);
  const strides = node.ints('strides') ?? kernel.map(() => 1);
  const dilations = node.ints('dilations') ?? kernel.map(() => 1);
  const extra = node.ints('output_padding') ?? kernel.map(() => 0);
  const autoPad = node.string('auto_pad', 'NOTSET');
  const full = input.map((n, i) => strides[i]! * (n - 1) + extra[i]! + (kernel[i]! - 1) * dilations[i]! + 1);
  const same = autoPad.startsWith('SAME');
  const asked = node.ints('output_shape') ?? (same ? input.map((n, i) => n * strides[i]!) : undefined);
  if (asked) {
    const total = full.map((n, i) => Math.max(0, n - asked[i]!));
    const padBegin = total.map((t) => (autoPad === 'SAME_UPPER' ? Math.floor(t / 2) : Math.ceil(t / 2)));
    return { kernel, strides, dilations, padBegin, output: asked };
  }
  const pads = (autoPad === 'VALID' ? undefined : node.ints('pads')) ?? kernel.flatMap(() => [0, 0]);
  const output = full.map((n, i) => n - pads[i]! - pads[i + kernel.length]!);
  return { kernel, strides, dilations, padBegin: pads.slice(0, kernel.length), output };
}

export const conv: Readonly<Record<string, ReferenceOperator>> = {
  Conv: convolution,
  ConvTranspose: transposedConvolution,
};
