/** Lowest widths of layers, fixed before the allocation: what must not fall below, and why. */
import type { WeightLayer } from '../onnx/layers.js';

export interface FloorOptions {
  /** Lowest width of any layer. */
  readonly minBits: number;
  readonly maxBits: number;
  /** Width of the first convolution, the class head and embeddings. */
  readonly edgeBits: number;
  /** Lowest width of the projections of attention blocks. */
  readonly attentionBits: number;
  /** Lowest width of layers with a steep loss. */
  readonly gradientBits: number;
}

/** Names of the layers to which a rule applies. */
export interface FloorMarks {
  /** First and last layers. */
  readonly edges?: ReadonlySet<string>;
  /** Projections of attention. */
  readonly attention?: ReadonlySet<string>;
  /** Layers whose gradient is far above the others'. */
  readonly steep?: ReadonlySet<string>;
  /** Layers that carry most of the flow, which the published method keeps at 6 bits. */
  readonly strong?: ReadonlySet<string>;
}

export interface LayerFloor {
  readonly bits: number;
  readonly reason?: string;
}

/**
 * Floors by layer name. First layers (fed by a model input) and last layers (feeding a model output) hold few weights
 * and hurt most; embeddings are read by lookup: both by the edge rule, which no `edges` switch off. Layers with more than a tenth of all weights are exempt from the
 * edge rule, because an 8-bit floor there would spend the whole budget.
 */
export function layerFloors(
  layers: readonly WeightLayer[],
  { edges, attention, steep, strong }: FloorMarks,
  options: FloorOptions,
): Map<string, LayerFloor> {
  const total = layers.reduce((sum, l) => sum + l.params, 0);
  const floors = new Map<string, LayerFloor>();
  for (const layer of layers) {
    let floor: LayerFloor = { bits: options.minBits };
    const raise = (bits: number, reason: string): void => {
      if (bits > floor.bits) floor = { bits: Math.min(bits, options.maxBits), reason };
    };
    if (attention?.has(layer.name)) raise(options.attentionBits, 'attention');
    if (steep?.has(layer.name)) raise(options.gradientBits, 'gradient');
    if (strong?.has(layer.name)) raise(STRONG_BITS, 'flow');
    if (edges && layer.params <= LARGE_SHARE * total) {
      if (layer.op === 'Gather') raise(options.edgeBits, 'embedding');
      else if (edges.has(layer.name)) raise(options.edgeBits, 'first or last layer');
    }
    floors.set(layer.name, floor);
  }
  return floors;
}

const LARGE_SHARE = 0.1;
const STRONG_BITS = 6;

/** Names of layers that a model input reaches, or that reach a model output, without passing another weight layer. */
export function edgeLayers(
  layers: readonly WeightLayer[],
  inputs: ReadonlySet<string>,
  outputs: ReadonlySet<string>,
): Set<string> {
  const weighted = new Set(layers.map((l) => l.node));
  const edges = new Set<string>();
  for (const layer of layers) {
    if (reachesInput(layer, inputs, weighted) || reachesOutput(layer, outputs, weighted)) edges.add(layer.name);
  }
  return edges;
}

type Node = WeightLayer['node'];

function reachesInput(layer: WeightLayer, inputs: ReadonlySet<string>, weighted: ReadonlySet<Node>): boolean {
  const pending = [layer.input];
  const seen = new Set(pending);
  for (let value = pending.pop(); value; value = pending.pop()) {
    if (inputs.has(value.name)) return true;
    const producer = value.producer;
    if (!producer || weighted.has(producer)) continue;
    for (const input of producer.inputs) {
      if (input && !seen.has(input)) {
        seen.add(input);
        pending.push(input);
      }
    }
  }
  return false;
}

function reachesOutput(layer: WeightLayer, outputs: ReadonlySet<string>, weighted: ReadonlySet<Node>): boolean {
  const pending = [layer.output];
  const seen = new Set(pending);
  for (let value = pending.pop(); value; value = pending.pop()) {
    if (outputs.has(value.name)) return true;
    for (const use of value.uses) {
      if (weighted.has(use.node)) continue;
      for (const output of use.node.outputs) {
        if (output && !seen.has(output)) {
          seen.add(output);
          pending.push(output);
        }
      }
    }
  }
  return false;
}
