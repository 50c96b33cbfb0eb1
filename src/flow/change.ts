/**
 * flowChange: how far a step of the network moves its tensor, relative to where it ends,
 * d = ||T_l - P T_{l-1}|| / (||T_l|| + 1e-6) per sample, then the mean. P is the identity between equal shapes and a ridge
 * map of channels otherwise. For a residual block y = x + F(x), d = ||F(x)|| / (||y|| + 1e-6): 0 means the block does
 * nothing. d has no unit and does not change with a common scale of the tensors.
 */
import type { Value } from '../onnx/graph.js';
import type { Probe } from '../runtime/probe.js';
import { notPerSample } from './activation-norms.js';
import type { ResidualBlock } from './blocks.js';
import type { FlowStep } from './change-plan.js';
import type { ChannelMap } from './channel-map.js';
import { mapped } from './path-tensor.js';
import { running, type Running } from './running.js';
import { rowsOfSamples, squaredNorms, sumPerSample } from './sample-axis.js';

/** Keeps d finite where a tensor vanishes. */
const EPSILON = 1e-6;

export interface ChangeProbe extends Probe {
  /** Mean flowChange over the finite samples; undefined when there was none. */
  result(): number | undefined;
}

/** flowChange of a residual block. */
export function blockChangeProbe(block: ResidualBlock): ChangeProbe {
  return changeProbe(block, (context) => [
    squaredNorms(context, block.branch.name),
    squaredNorms(context, block.output.name),
  ]);
}

/** flowChange between two tensors of equal shape. */
export function sameShapeProbe(step: FlowStep): ChangeProbe {
  return changeProbe({ name: step.layer }, (context) => {
    const { graph } = context;
    const difference = graph.insertOp('Sub', [graph.mustGet(step.to.name), graph.mustGet(step.from.name)]);
    const dims = context.shapes.get(step.to.name)!.dims.slice(1);
    return [sumPerSample(graph, { value: difference, dims }, 'ReduceSumSquare'), squaredNorms(context, step.to.name)];
  });
}

/** flowChange between two tensors of different shape, through the map that was fitted for them. */
export function mappedProbe(step: FlowStep, map: ChannelMap): ChangeProbe {
  return changeProbe({ name: step.layer }, (context) => {
    const { difference, dims } = mapped(context.graph, step, map);
    return [
      sumPerSample(context.graph, { value: difference, dims }, 'ReduceSumSquare'),
      squaredNorms(context, step.to.name),
    ];
  });
}

type Attach = (context: Parameters<Probe['attach']>[0]) => [difference: Value, end: Value];

function changeProbe(owner: { readonly name: string }, attach: Attach): ChangeProbe {
  const change: Running = running();
  return {
    attach,
    update(values, batch) {
      const [difference, end] = values.map((tensor) => rowsOfSamples(tensor, batch));
      if (!difference || !end) throw notPerSample(owner);
      for (let i = 0; i < end.length; i++) change.add(Math.sqrt(difference[i]!) / (Math.sqrt(end[i]!) + EPSILON));
    },
    result: () => (change.count > 0 ? change.mean : undefined),
  };
}
