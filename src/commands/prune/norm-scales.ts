/** Scales of batch normalizations for `prune`, read from the model as it was given: in the form that is pruned they are folded. */
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import { layerUnits } from '../../pruning/layer-units.js';
import { normScales } from '../../pruning/norm-scales.js';
import { removalOrders } from '../../pruning/removal-order.js';
import { dependenciesOf } from '../../pruning/step.js';
import type { PruneOptions } from './options.js';
import { prepareModel, PRUNABLE_FORM } from '../prepare.js';
import type { PruningStudy } from './study.js';
import type { Workspace } from '../workspace.js';

/**
 * As `normScales`, of the original. Groups that have none keep their units; a warning names them.
 * @throws FlowCompressError `bad-input` when no group has any
 */
export async function normScalesFor(
  { engine, opened, feedsFor, fixedBatch }: Workspace,
  { original }: PruningStudy,
  { seed }: PruneOptions,
  warnings: string[],
): Promise<Map<string, Float64Array>> {
  const { model } = await prepareModel(engine, opened.model, feedsFor, { fixedBatch, passes: PRUNABLE_FORM });
  const scales = normScales(new Graph(model), await dependenciesOf(engine, model, feedsFor, fixedBatch));
  const dependencies = await dependenciesOf(engine, original.model, feedsFor, fixedBatch);
  const graph = new Graph(original.model);
  const orders = removalOrders({
    ...{ graph, dependencies, layers: layerUnits(graph, dependencies), grams: new Map(), normScales: scales },
    ...{ score: 'bn-scale', order: 'lowest', seed },
  });
  const groups = dependencies.groups.filter(({ kind }) => kind !== 'inputs');
  const untold = groups.filter(({ index }) => !orders[index]);
  if (untold.length === groups.length)
    throw new FlowCompressError(
      'bad-input',
      'No batch normalization in the model tells what its filters are worth: most exporters fold them into the convolutions.',
      {
        node: opened.name,
        hint: 'Export it with its BatchNormalization nodes (PyTorch: in eval mode, with dynamo=False and training=TrainingMode.PRESERVE), or choose another --score, such as l2.',
      },
    );
  if (untold.length > 0) {
    const names = untold.map(({ layers }) => layers[0]).join(', ');
    warnings.push(
      `${String(untold.length)} of ${String(groups.length)} groups of filters have no batch normalization and keep their widths: ${names}.`,
    );
  }
  return scales;
}
