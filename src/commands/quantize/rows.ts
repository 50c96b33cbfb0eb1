/** The layer rows of a quantize report. */
import { Graph } from '../../onnx/graph.js';
import { macCounter } from '../../onnx/macs.js';
import type { LayerFinding, QuantizationOutcome } from '../../quantization/method.js';
import { formatOf, storedBytes } from '../../quantization/format.js';
import type { QuantizedLayer } from '../../report/report.js';
import type { ExecutionChoice } from './execution.js';
import type { PreparedStudy } from './study.js';

/** One row per weight layer, in topological order; layers that stayed in float have 32 bits. */
export function layerRows(
  study: PreparedStudy,
  outcome: QuantizationOutcome,
  choice: ExecutionChoice,
): QuantizedLayer[] {
  const findings = new Map(outcome.findings.map((finding) => [finding.name, finding]));
  const counter = macCounter(new Graph(study.model), study.shapes, study.rows);
  return study.layers.map((layer, i): QuantizedLayer => {
    const finding: LayerFinding | undefined = findings.get(layer.name);
    const weights = outcome.weights.get(layer.name);
    const biasBytes = layer.biasSlot ? layer.channels * 4 : 0;
    const bits = weights?.grid.bits ?? 32;
    const macs = counter.ofNode(layer.node);
    const bytes = weights
      ? storedBytes(layer.params, formatOf(weights.grid)) + layer.channels * 4 + biasBytes
      : layer.params * 4 + biasBytes;
    return {
      name: layer.name,
      op: layer.op,
      params: layer.params,
      ...(macs !== undefined && { macs: Math.round(macs) }),
      bits,
      ...(weights && { format: formatOf(weights.grid).kind }),
      execution: choice.int8.has(layer.output.name) ? 'int8' : 'float',
      bytes,
      bytesBefore: layer.params * 4 + biasBytes,
      depth: study.layers.length > 1 ? i / (study.layers.length - 1) : 0,
      ...(finding?.sensitivity !== undefined && { sensitivity: finding.sensitivity }),
      ...(finding?.flow !== undefined && { flow: finding.flow }),
      ...(finding?.gradient !== undefined && { gradient: finding.gradient }),
      ...(finding?.flowChange !== undefined && { flowChange: finding.flowChange }),
      ...(finding?.divergence && { kl: { ...finding.divergence } }),
      ...(finding?.sqnrDb !== undefined && { sqnrDb: finding.sqnrDb }),
    };
  });
}
