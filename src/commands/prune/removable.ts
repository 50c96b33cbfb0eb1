/** Dependency groups of a model without data, as `inspect` shows them. */
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../../onnx/graph.js';
import { declaredDims } from '../../onnx/value-info.js';
import { costModel } from '../../pruning/cost.js';
import { dependencyGroups, type Dependencies } from '../../pruning/groups.js';
import { findProjections } from '../../pruning/projections.js';
import { removableBranches } from '../../pruning/branches.js';
import { unitCosts } from '../../pruning/unit-costs.js';
import type { RemovableUnits } from '../../report/report.js';
import type { Engine, Feeds } from '../../runtime/engine.js';
import { guessFeeds } from '../../runtime/made-up-feeds.js';
import { traceDims, traceShapes, type TracedValues } from '../../runtime/trace.js';
import { prepareModel, PRUNABLE_FORM, type PreparationOptions } from '../prepare.js';

export interface PrunableModel {
  /** What units are removed from. */
  readonly model: ModelProto;
  readonly shapes: Awaited<ReturnType<typeof traceDims>>;
  /** Rows in the batch of `shapes`. */
  readonly rows: number;
  /** One sentence per rewrite that was left out. */
  readonly warnings: readonly string[];
}

/** Rows where the batch is open: an axis of length 1 could be confused with others. */
const ROWS = 2;

/**
 * A model in the form in which dependency groups are looked for, which computes the same.
 * @param feedsFor feeds of that many samples
 */
export async function prunableModel(
  engine: Engine,
  original: ModelProto,
  feedsFor: (rows: number) => Feeds,
  options: Omit<PreparationOptions, 'passes'> = {},
): Promise<PrunableModel> {
  const { model, warnings } = await prepareModel(engine, original, feedsFor, { ...options, passes: PRUNABLE_FORM });
  const rows = options.fixedBatch ?? ROWS;
  return { model, shapes: await traceDims(engine, model, feedsFor(rows)), rows, warnings };
}

/** Groups and what stays, on made-up inputs. Errors as the model itself does not run. */
export async function removableUnits(
  engine: Engine,
  original: ModelProto,
  { signal, warnings }: { readonly signal?: AbortSignal; readonly warnings: string[] },
): Promise<RemovableUnits> {
  const unprepared = new Graph(original);
  const prepared = await prunableModel(engine, original, (rows) => guessFeeds(unprepared, rows).feeds, {
    ...{ signal, fixedBatch: declaredRows(unprepared) },
  });
  warnings.push(...prepared.warnings);
  const graph = new Graph(prepared.model);
  const dependencies = dependencyGroups(graph, prepared.shapes);
  const costs = unitCosts(graph, prepared.shapes, dependencies, prepared.rows);
  const shapes = await traceShapes(engine, prepared.model, guessFeeds(unprepared, prepared.rows).feeds);
  return { ...describe(dependencies, costs), ...layersIn(graph, shapes, dependencies, prepared.rows) };
}

/** What can go whole, and what not. */
function layersIn(
  graph: Graph,
  shapes: TracedValues,
  dependencies: Dependencies,
  rows: number,
): Pick<RemovableUnits, 'layers' | 'kept'> {
  const { projections, kept } = findProjections(graph, shapes, rows);
  const total = costModel(graph, shapes, dependencies, rows);
  const none = new Uint8Array(dependencies.units.classOf.length);
  const whole = total(none);
  return {
    layers: [...removableBranches(graph, shapes), ...projections].map((unit) => {
      const left = total(none, unit.nodes, unit.kind === 'projection' ? [unit] : []);
      const macs = whole.macs === undefined || left.macs === undefined ? undefined : whole.macs - left.macs;
      return {
        name: unit.name,
        layers: [...unit.layers, ...(unit.kind === 'projection' ? [unit.layer] : [])],
        params: whole.params - left.params,
        ...(macs !== undefined && { macs: Math.round(macs) }),
      };
    }),
    kept: kept.map((line) => ({ ...line })),
  };
}

/** The rows that an input declares. */
function declaredRows(graph: Graph): number | undefined {
  for (const input of graph.inputs) {
    const rows = graph.isFed(input) ? declaredDims(input.info)?.[0] : undefined;
    if (typeof rows === 'number' && rows > 0) return rows;
  }
  return undefined;
}

function describe({ groups, fixed }: Dependencies, costs: ReturnType<typeof unitCosts>): RemovableUnits {
  return {
    groups: groups.map(({ index, kind, layers, members, units }) => ({
      ...{ layers: [...layers], kind, units: units.length, params: costs[index].params },
      ...(costs[index].macs !== undefined && { macs: Math.round(costs[index].macs) }),
      members: members.map((member) => ({ ...member })),
    })),
    fixed: fixed.map((line) => ({ ...line })),
  };
}
