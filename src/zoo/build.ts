/** From the name of an architecture and options to a model, or to its counts alone. */
import type { ModelProto } from 'onnx-buf';
import { macCounter } from '../onnx/macs.js';
import type { Architecture } from './architecture.js';
import { Net } from './net.js';
import { resolveSettings, type ZooOptions, type ZooSettings } from './options.js';

export interface NetworkCounts {
  /** Learned numbers; running statistics of BatchNormalization are not among them. */
  readonly params: number;
  /** Multiply-accumulates of one sample. */
  readonly macs: number;
}

export interface BuiltNetwork extends NetworkCounts {
  readonly model: ModelProto;
  /** What it was built with, defaults filled in. */
  readonly settings: ZooSettings;
}

/**
 * Builds an untrained model: float32, opset 17, input `input`, dynamic batch `N`. The same options give the same bytes.
 * @param nameOf how messages call an option
 * @throws FlowCompressError `bad-input` naming the option that the architecture does not have or cannot have so
 */
export function buildNetwork(
  architecture: Architecture,
  options: ZooOptions = {},
  nameOf?: (option: string) => string,
): BuiltNetwork {
  const settings = resolveSettings(architecture, options, nameOf);
  const net = new Net({ seed: settings.seed });
  architecture.build(net, settings);
  return { ...countsOf(net), model: net.toModel(), settings };
}

/** The counts of what `buildNetwork` would build, without drawing the weights. Errors as there. */
export function countNetwork(architecture: Architecture, options: ZooOptions = {}): NetworkCounts {
  const settings = resolveSettings(architecture, options);
  const net = new Net({ seed: settings.seed, hollow: true });
  architecture.build(net, settings);
  return countsOf(net);
}

function countsOf(net: Net): NetworkCounts {
  return { params: net.parameters, macs: macCounter(net.graph, net.shapes).total() ?? 0 };
}
