/** `inspect`: what is in a model file, layer by layer, and what compression would leave alone. Needs no data. */
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import { gzipBytes } from '../node/model-file.js';
import { nameOf, type ModelInput } from '../node/model-input.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { dataTypeName } from '../onnx/dtypes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { describeLayers, listUnsupported, quantizationSummary } from '../onnx/inventory.js';
import { macCounter, valuesForMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import { declaredDims } from '../onnx/value-info.js';
import type { InspectReport, RemovableUnits } from '../report/report.js';
import type { Engine } from '../runtime/engine.js';
import { traceValues, type TracedValues } from '../runtime/trace.js';
import { guessFeeds } from '../runtime/made-up-feeds.js';
import { type InspectOptions, inspectOptionsSchema } from './inspect-options.js';
import { parseOptions } from './parse-options.js';
import { removableUnits } from './prune/removable.js';
import { startRun } from './run-info.js';
import { openCheckedModel } from './workspace.js';

/**
 * Reads a model and runs it once on made-up values to learn the shapes inside. Where that run is not possible the report
 * has no shapes and MACs, and a warning says why.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, bytes, or a model
 * @throws FlowCompressError `bad-input` or `unsupported` when the file is no well-formed model, `io`, `aborted`
 */
export async function inspectModel(
  input: ModelInput,
  options: Partial<InspectOptions> = {},
): Promise<{ report: InspectReport }> {
  const clock = startRun();
  const { groups } = parseOptions(inspectOptionsSchema, options);
  const { signal, onProgress } = options;
  const report = (done: number, detail?: string): void => onProgress?.({ stage: 'inspect', done, total: 3, detail });
  const path = nameOf(input);
  report(0, path);
  const opened = await openCheckedModel(input, { signal });
  const { model } = opened;
  const graph = new Graph(model);
  const compressed = await gzipBytes(opened.content, { signal });
  throwIfAborted(signal);
  report(1, 'running it once');
  const engine = nodeEngine();
  const warnings: string[] = [];
  const traced = await traceMadeUp(engine, graph, model, warnings);
  throwIfAborted(signal);
  report(2, 'describing the layers');
  const counter = traced && macCounter(graph, traced.values, traced.rows);
  const macs = counter?.total();
  const rows = describeLayers(graph).map(({ node, output, ...row }) => {
    const own = counter?.ofNode(node);
    const dims = traced?.values.get(output.name)?.dims ?? declaredDims(output.info);
    return { ...row, ...(dims && { outputDims: [...dims] }), ...(own !== undefined && { macs: Math.round(own) }) };
  });
  const unsupported = listUnsupported(graph);
  const quantized = quantizationSummary(graph);
  if (quantized !== undefined) warnings.push(quantized);
  if (counter && macs === undefined) {
    warnings.push('The MACs are not known: work inside loops, functions or unknown operators is not counted.');
  }
  if (groups && !traced) warnings.push('What can be removed is not known without shapes.');
  const removable = groups && traced ? await findRemovable(engine, model, { signal, warnings }) : undefined;
  report(3);
  const producer = [model.producerName, model.producerVersion].filter((part) => part !== '').join(' ');
  return {
    report: {
      command: 'inspect',
      ...clock.info(engine),
      ...(warnings.length > 0 && { warnings }),
      model: {
        path,
        inputs: graph.inputs.filter((value) => graph.isFed(value)).map(describeValue),
        outputs: graph.outputs.map(describeValue),
        opset: graph.opset(),
        irVersion: graph.irVersion,
        ...(producer !== '' && { producer }),
        nodes: graph.nodeCount,
        params: parameterCount(model),
        ...(macs !== undefined && { macs }),
        bytes: opened.bytes,
        gzipBytes: compressed,
        rows,
        ...(removable && { removable }),
        ...(unsupported.length > 0 && { unsupported }),
      },
    },
  };
}

function describeValue(value: Value): { name: string; type: string; dims: (number | string)[] } {
  const type = value.info?.type?.value;
  const name = type?.case === 'tensorType' ? dataTypeName(type.value.elemType) : (type?.case ?? 'unknown');
  return { name: value.name, type: name, dims: declaredDims(value.info) ?? [] };
}

/** Undefined, with a warning, where the model does not run on several made-up samples. */
async function findRemovable(
  ...[engine, model, control]: Parameters<typeof removableUnits>
): Promise<RemovableUnits | undefined> {
  try {
    return await removableUnits(engine, model, control);
  } catch (error) {
    if (!(error instanceof FlowCompressError) || error.code === 'aborted') throw error;
    control.warnings.push(`What can be removed is not known: ${messageOf(error)}`);
    return undefined;
  }
}

/** Shapes from one run on made-up values; undefined, with a warning, where the model does not run on them. */
async function traceMadeUp(
  engine: Engine,
  graph: Graph,
  model: Parameters<typeof traceValues>[1],
  warnings: string[],
): Promise<{ values: TracedValues; rows: number } | undefined> {
  try {
    const { feeds, rows, assumptions } = guessFeeds(graph);
    const wanted = valuesForMacs(graph);
    for (const layer of describeLayers(graph)) wanted.add(layer.output.name);
    const values = await traceValues(engine, model, feeds, wanted);
    if (assumptions.length > 0) {
      warnings.push(`Shapes and MACs are for ${assumptions.join(', ')}: the model leaves these sizes open.`);
    }
    return { values, rows };
  } catch (error) {
    if (!(error instanceof FlowCompressError) || error.code === 'aborted') throw error;
    warnings.push(`Shapes and MACs are not known: the model does not run on made-up values (${messageOf(error)})`);
    return undefined;
  }
}
