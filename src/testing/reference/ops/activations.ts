/** Activation functions. */
import { map, zip } from '../array.js';
import type { ReferenceOperator } from '../operator.js';
import type { Node } from '../../../onnx/graph.js';
import { erf } from './elementwise.js';

const activation =
  (f: (x: number, node: Node) => number): ReferenceOperator =>
  ([x], node) => [map(x!, (v) => f(v, node))];

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const softplus = (x: number): number => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0);
const hardSigmoid = (x: number, alpha: number, beta: number): number => Math.max(0, Math.min(1, alpha * x + beta));
const gelu = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));
const geluByTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** Constants of the Selu paper, as the operator's defaults give them. */
const SELU = { alpha: 1.67326319217681884765625, gamma: 1.05070102214813232421875 };

export const activations: Readonly<Record<string, ReferenceOperator>> = {
  Relu: activation((x) => Math.max(0, x)),
  LeakyRelu: activation((x, node) => (x < 0 ? node.float('alpha', 0.01) * x : x)),
  PRelu: ([x, slope]) => [zip((v, s) => (v < 0 ? s * v : v), x!, slope!)],
  Elu: activation((x, node) => (x < 0 ? node.float('alpha', 1) * Math.expm1(x) : x)),
  Selu: activation((x, node) => {
    const [alpha, gamma] = [node.float('alpha', SELU.alpha), node.float('gamma', SELU.gamma)];
    return x > 0 ? gamma * x : gamma * alpha * Math.expm1(x);
  }),
  Celu: activation((x, node) => {
    const alpha = node.float('alpha', 1);
    return Math.max(0, x) + Math.min(0, alpha * Math.expm1(x / alpha));
  }),
  ThresholdedRelu: activation((x, node) => (x > node.float('alpha', 1) ? x : 0)),
  Sigmoid: activation(sigmoid),
  HardSigmoid: activation((x, node) => hardSigmoid(x, node.float('alpha', 0.2), node.float('beta', 0.5))),
  HardSwish: activation((x) => x * hardSigmoid(x, 1 / 6, 0.5)),
  Tanh: activation(Math.tanh),
  Gelu: activation((x, node) => (node.string('approximate', 'none') === 'tanh' ? geluByTanh(x) : gelu(x))),
  Mish: activation((x) => x * Math.tanh(softplus(x))),
  Softplus: activation(softplus),
  Softsign: activation((x) => x / (1 + Math.abs(x))),
  Swish: activation((x, node) => x * sigmoid(node.float('alpha', 1) * x)),
  'com.microsoft:Gelu': activation(gelu),
  'com.microsoft:FastGelu': ([x, bias]) => [bias ? zip((v, b) => geluByTanh(v + b), x!, bias) : map(x!, geluByTanh)],
  'com.microsoft:BiasGelu': ([x, bias]) => [zip((v, b) => gelu(v + b), x!, bias!)],
  'com.microsoft:QuickGelu': activation((x, node) => x * sigmoid(node.float('alpha', 1.702) * x)),
};
