/** The same network before it was trained: its weights drawn anew. */
import type { ModelProto } from 'onnx-buf';
import { randomStream, seedOf } from '../data/random.js';
import { DataType } from '../onnx/dtypes.js';
import { rewrite, type Graph, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { makeTensor } from '../onnx/tensor.js';
import { trainableParameters } from '../training/parameters.js';
import { constant, lecunUniform, normal, ones, zeros, type Init } from '../zoo/init.js';

/** Deviation of tables: positions, tokens. */
const TABLE = normal(0.02);
/** Slope below 0 of PRelu (He et al. 2015, Delving Deep into Rectifiers). */
const SLOPE = constant(0.25);
/** Inputs of normalizations by index: scale, shift and, with running statistics, mean and variance. */
const OF_NORMS: readonly (Init | undefined)[] = [undefined, ones, zeros, zeros, ones];

/**
 * Layers are uniform within 1 / sqrt(fan in), which keeps residual branches small where normalizations are folded away; biases and
 * shifts are 0, factors 1, normalizations as if nothing had run through them.
 */
export function renewed(model: ModelProto, seed: number): ModelProto {
  return rewrite(model, (graph) => {
    const fanIns = fanInsOf(graph);
    const trained = trainableParameters(graph);
    const statistics = statisticsOf(graph, new Set(trained.map(({ name }) => name)));
    for (const [i, { name, decays }] of [...trained, ...statistics].entries()) {
      const value = graph.mustGet(name);
      const dims = value.initializer!.dims.map(Number);
      const count = dims.reduce((a, b) => a * b, 1);
      const fanIn = fanIns.get(name);
      const init = fanIn === undefined ? initBeside(value, decays) : lecunUniform;
      const data = init({ count, fanIn: fanIn ?? 1, fanOut: 1 }, randomStream(seedOf(seed, i, 1301)));
      graph.setInitializer(value, makeTensor(name, DataType.FLOAT, dims, data));
    }
  });
}

/** Of layers that multiply; tables are looked up. */
function fanInsOf(graph: Graph): Map<string, number> {
  const layers = findLayers(graph).filter(({ op }) => op !== 'Gather');
  return new Map(layers.map(({ weight, cols }) => [weight.name, cols]));
}

/** Of a parameter that is no layer's weight. */
function initBeside({ uses }: Value, decays: boolean): Init {
  for (const { node, index } of uses) {
    if (node.opType.endsWith('Normalization')) return OF_NORMS[index] ?? zeros;
    if (node.opType === 'PRelu' && index === 1) return SLOPE;
    if (!decays && (node.opType === 'Mul' || node.opType === 'Div')) return ones;
  }
  return decays ? TABLE : zeros;
}

/** Running statistics, which do not train. */
function statisticsOf(graph: Graph, trained: ReadonlySet<string>): { name: string; decays: boolean }[] {
  const norms = graph.nodes.filter(({ opType }) => opType.endsWith('Normalization'));
  const values = norms.flatMap(({ inputs }) => inputs.slice(1, OF_NORMS.length));
  const names = new Set(values.flatMap((value) => (value?.initializer ? [value.name] : [])));
  return [...names].filter((name) => !trained.has(name)).map((name) => ({ name, decays: false }));
}
