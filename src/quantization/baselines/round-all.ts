/** Round-to-nearest of every layer at one width, shared by the baselines. */
import { Graph } from '../../onnx/graph.js';
import { weightMatrix } from '../../onnx/layers.js';
import type { QuantizationContext, QuantizationOutcome } from '../method.js';
import { LayerRounder } from '../rounder.js';
import { roundLayerNearest } from '../round-layer.js';
import { weightUnits } from '../units.js';

export function roundAll(
  context: QuantizationContext,
  bits: number,
  searchClip: boolean,
): Pick<QuantizationOutcome, 'weights' | 'findings'> {
  const graph = new Graph(context.model);
  const rounder = new LayerRounder(graph, new Map(), 'nearest');
  const outcome: Pick<QuantizationOutcome, 'weights' | 'findings'> = { weights: new Map(), findings: [] };
  for (const unit of weightUnits(context.layers)) {
    const rounded = roundLayerNearest(unit.layer, weightMatrix(graph, unit.layer), bits, searchClip);
    const relative = rounder.relativeErrorOf(unit.layer, rounded);
    for (const { name } of unit.readers) {
      outcome.weights.set(name, rounded);
      outcome.findings.push({ name, bits, sqnrDb: relative > 0 ? -10 * Math.log10(relative) : undefined });
    }
  }
  return outcome;
}
