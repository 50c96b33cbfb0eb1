/** Attributes that state the default of their operator are left out of the file. */
import { AttributeProto_AttributeType as Kind, type AttributeProto } from 'onnx-buf';
import type { Graph } from '../graph.js';

type Default = number | string | { every: number };

const WINDOW: Record<string, Default> = {
  auto_pad: 'NOTSET',
  dilations: { every: 1 },
  pads: { every: 0 },
  strides: { every: 1 },
};
const POOL: Record<string, Default> = { ...WINDOW, ceil_mode: 0, count_include_pad: 0, storage_order: 0 };
const REDUCTION: Record<string, Default> = { keepdims: 1, noop_with_empty_axes: 0 };

/** Defaults that hold at every opset from 13 on. */
const DEFAULTS = new Map<string, Record<string, Default>>([
  ['Conv', { ...WINDOW, group: 1 }],
  ['ConvTranspose', { ...WINDOW, group: 1, output_padding: { every: 0 } }],
  ['AveragePool', POOL],
  ['MaxPool', POOL],
  ['Gemm', { alpha: 1, beta: 1, transA: 0, transB: 0 }],
  ['Flatten', { axis: 1 }],
  ['Gather', { axis: 0 }],
  ['Split', { axis: 0 }],
  ['Softmax', { axis: -1 }],
  ['LogSoftmax', { axis: -1 }],
  ['Reshape', { allowzero: 0 }],
  ['LayerNormalization', { axis: -1, stash_type: 1 }],
  ['QuantizeLinear', { axis: 1, saturate: 1 }],
  ['DequantizeLinear', { axis: 1 }],
  ['Cast', { saturate: 1 }],
  ['Pad', { mode: 'constant' }],
  ...['Max', 'Mean', 'Min', 'Prod', 'Sum', 'SumSquare', 'L1', 'L2', 'LogSum', 'LogSumExp'].map(
    (name): [string, Record<string, Default>] => [`Reduce${name}`, REDUCTION],
  ),
]);

/** Runs in place and returns how many attributes went. Models below opset 13 are left alone. */
export function dropDefaultAttributes(graph: Graph): number {
  if (graph.opset() < 13) return 0;
  let dropped = 0;
  for (const node of graph.nodes) {
    const defaults = node.domain === '' ? DEFAULTS.get(node.opType) : undefined;
    if (!defaults) continue;
    for (const [name, attribute] of [...node.attributes]) {
      const known = Object.hasOwn(defaults, name) ? defaults[name] : undefined;
      if (known === undefined || !states(attribute, known)) continue;
      node.attributes.delete(name);
      dropped++;
    }
  }
  return dropped;
}

function states(attribute: AttributeProto, known: Default): boolean {
  if (attribute.refAttrName !== '') return false;
  if (typeof known === 'string') return new TextDecoder().decode(attribute.s) === known;
  if (typeof known === 'object') return attribute.ints.every((value) => value === BigInt(known.every));
  return attribute.type === Kind.FLOAT ? attribute.f === known : attribute.i === BigInt(known);
}
