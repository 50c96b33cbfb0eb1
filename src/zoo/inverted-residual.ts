/** The inverted residual block of MobileNetV2, MobileNetV3 and EfficientNet: expand, filter per channel, project. */
import type { Value } from '../onnx/graph.js';
import {
  add,
  convNorm,
  squeezeExcite,
  type Activation,
  type NormOptions,
  type SqueezeExciteOptions,
} from './layers.js';
import type { Net } from './net.js';

export interface InvertedResidual {
  /** Side of the depthwise kernel. */
  readonly kernel: number;
  /** Channels between expansion and projection; no expansion where the input has as many. */
  readonly expanded: number;
  readonly outputs: number;
  readonly stride: number;
  readonly activation: Activation;
  readonly norm?: NormOptions;
  readonly squeezeExcite?: SqueezeExciteOptions;
}

/** Nodes `.expand`, `.depthwise`, `.se`, `.project`; the input is added where the shape stays. */
export function invertedResidual(net: Net, x: Value, name: string, block: InvertedResidual): Value {
  const { kernel, expanded, outputs, stride, activation, norm } = block;
  const inputs = net.dims(x)[1] ?? 0;
  let y = x;
  if (expanded !== inputs) y = convNorm(net, y, `${name}.expand`, expanded, { kernel: 1, activation, norm });
  y = convNorm(net, y, `${name}.depthwise`, expanded, { kernel, stride, groups: expanded, activation, norm });
  if (block.squeezeExcite) y = squeezeExcite(net, y, `${name}.se`, block.squeezeExcite);
  y = convNorm(net, y, `${name}.project`, outputs, { kernel: 1, norm });
  return stride === 1 && inputs === outputs ? add(net, x, y, `${name}.add`) : y;
}
