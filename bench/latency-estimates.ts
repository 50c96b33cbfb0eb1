/**
 * How well the time of a cut model is told before it is made: from its multiply-accumulates, from those of whole blocks of channels
 * (what `prune --of latency` prices cuts by), and from the operators' own times. The latter are profiled on copies of the model that
 * are narrowed everywhere alike, and interpolated over the work of each operator. Random cuts, timed in turns with the original.
 * Usage: node --import tsx bench/latency-estimates.ts --model FILE [--cuts 16] [--batch 32] [--threads 1] [--seed 1]
 *
 * `error` is the mean of |estimate / measured - 1| of the time as a share of the original's, `order` the share of pairs of cuts that the
 * estimate puts in the measured order.
 */
import { parseArgs } from 'node:util';
import type { ModelProto } from 'onnx-buf';
import { prepareModel, PRUNED_FORM } from '../src/commands/prepare.js';
import { randomStream } from '../src/data/random.js';
import { openModel } from '../src/node/model-file.js';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { nodeProfiler } from '../src/node/profiler.js';
import { Graph, type Node } from '../src/onnx/graph.js';
import { macCounter, type Shapes } from '../src/onnx/macs.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import { applyChoice } from '../src/pruning/apply-choice.js';
import { removableBranches } from '../src/pruning/branches.js';
import { costModel } from '../src/pruning/cost.js';
import { layerUnits } from '../src/pruning/layer-units.js';
import { findSites, GUARDS, takenBy, type Choice } from '../src/pruning/sites.js';
import { dependenciesOf } from '../src/pruning/step.js';
import { measureLatency, TIMED_TOGETHER } from '../src/runtime/latency.js';
import { layoutBlock } from '../src/runtime/layout-block.js';
import { guessFeeds } from '../src/runtime/made-up-feeds.js';
import { measureNodes } from '../src/runtime/op-times.js';
import { traceShapes } from '../src/runtime/trace.js';
import { markdownTable } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string' },
    cuts: { type: 'string', default: '16' },
    batch: { type: 'string', default: '32' },
    threads: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
  },
});
if (flags.model === undefined) throw new Error('--model FILE is needed.');

const threads = Number(flags.threads);
const batch = Number(flags.batch);
const engine = nodeEngine({ threads });
const profiler = nodeProfiler(threads);
const random = randomStream(Number(flags.seed));
const given = (await openModel(flags.model)).model;
const feedsFor = (rows: number) => guessFeeds(new Graph(given), rows).feeds;
const { model } = await prepareModel(engine, given, feedsFor, { passes: PRUNED_FORM });
const shapes = await traceShapes(engine, model, feedsFor(1));
const dependencies = await dependenciesOf(engine, model, feedsFor, undefined);
const graph = new Graph(model);
const block = (await layoutBlock(engine)) ?? GUARDS.align;
const sites = findSites(
  dependencies,
  dependencies.groups.map(({ units }) => ({ units: [...units] })),
  dependencies.groups.map(({ units }) => units.length),
  removableBranches(graph, shapes),
  { ...GUARDS, align: block },
  { filters: true, layers: true },
);
const base = {
  ...{ model, dependencies, sites, grams: new Map(), sums: new Map() },
  layers: layerUnits(graph, dependencies),
};

/** Every group at the width nearest to a share of its own. */
function atShare(share: number): Choice {
  const widths = sites.flatMap((site) => {
    if (site.kind !== 'width') return [];
    const off = (width: number): number => Math.abs(width - share * site.order.length);
    return [[site.group, site.widths.reduce((best, width) => (off(width) < off(best) ? width : best))] as const];
  });
  return { widths: new Map(widths), layers: new Set() };
}

function drawn(): Choice {
  return {
    widths: new Map(
      sites.flatMap((site) =>
        site.kind === 'width'
          ? [[site.group, site.widths[Math.floor(random.float() * site.widths.length)]!] as const]
          : [],
      ),
    ),
    layers: new Set(sites.flatMap((site) => (site.kind === 'layers' && random.float() < 0.2 ? [site.unit.name] : []))),
  };
}

/** By name of the result: multiply-accumulates of whole blocks, or elements of what has none. */
function workIn(one: Graph, known: Shapes): Map<string, number> {
  const counter = macCounter(one, known, 1);
  const whole = (channels: number): number => Math.ceil(channels / block) * block;
  return new Map(
    one.nodes.flatMap((node) => {
      const output = node.outputs[0];
      const elements = output && known.get(output.name)?.dims.reduce((a, b) => a * b, 1);
      if (!output || elements === undefined) return [];
      const macs = counter.ofNode(node) ?? 0;
      const dims = node.is('Conv')
        ? (known.get(node.inputs[1]!.name)?.dims ?? node.inputs[1]!.initializer?.dims.map(Number))
        : undefined;
      const filled = dims
        ? (whole(dims[0]!) / dims[0]!) * (node.int('group', 1) === 1 && dims[1]! > 4 ? whole(dims[1]!) / dims[1]! : 1)
        : 1;
      return [[output.name, macs > 0 ? macs * filled : elements] as const];
    }),
  );
}

/** A kernel that was timed, with the nodes in front of it that the engine made a part of it. */
function membersOf(one: Graph, timed: ReadonlyMap<string, number>): Map<string, string[]> {
  const members = new Map<string, string[]>();
  for (const node of one.nodes) {
    const name = node.outputs[0]?.name;
    if (name === undefined || !timed.has(name)) continue;
    const own: string[] = [];
    const visit = (each: Node): void => {
      own.push(each.outputs[0]!.name);
      for (const input of each.inputs) {
        const before = input?.producer;
        if (before && input.uses.size === 1 && !timed.has(input.name)) visit(before);
      }
    };
    visit(node);
    members.set(name, own);
  }
  return members;
}

const shares = [1, 0.75, 0.5, 0.25];
const points = new Map<string, { work: number; micros: number }[]>();
for (const share of shares) {
  const copy = applyChoice(base, atShare(share)).model;
  const one = new Graph(copy);
  const [times] = await measureNodes(profiler, copy, [feedsFor(batch)], 12);
  const work = workIn(one, await traceShapes(engine, copy, feedsFor(1)));
  for (const [name, own] of membersOf(one, times!.micros)) {
    const total = own.reduce((sum, each) => sum + (work.get(each) ?? 0), 0);
    points.set(name, [...(points.get(name) ?? []), { work: total, micros: times!.micros.get(name)! }]);
  }
}

function microsAt(name: string, work: number): number {
  const curve = [...(points.get(name) ?? [])].sort((a, b) => a.work - b.work);
  if (curve.length === 0) return 0;
  const above = curve.findIndex((point) => point.work >= work);
  if (above <= 0) {
    const near = above < 0 ? curve.at(-1)! : curve[0]!;
    return (near.micros * work) / near.work;
  }
  const [low, high] = [curve[above - 1]!, curve[above]!];
  return low.micros + ((work - low.work) / (high.work - low.work || 1)) * (high.micros - low.micros);
}

/** Sum over the kernels; those of a branch that is gone have no work. */
async function microsOf(one: ModelProto): Promise<number> {
  const cut = new Graph(one);
  const work = workIn(cut, await traceShapes(engine, one, feedsFor(1)));
  const names = membersOf(cut, new Map([...points.keys()].map((name) => [name, 1])));
  return [...names].reduce(
    (sum, [name, own]) =>
      sum +
      microsAt(
        name,
        own.reduce((total, each) => total + (work.get(each) ?? 0), 0),
      ),
    0,
  );
}

const total = costModel(graph, shapes, dependencies, 1, block);
const costOf = (choice: Choice) => {
  const { removed, gone, added } = takenBy(choice, sites, dependencies.units.classOf.length);
  return total(removed, gone, added);
};
const nothing: Choice = { widths: new Map(), layers: new Set() };
const whole = { ...costOf(nothing), micros: await microsOf(model) };
const rows: { measured: number; macs: number; blocked: number; operators: number }[] = [];
for (let i = 0; i < Number(flags.cuts); i++) {
  const choice = drawn();
  const cut = applyChoice(base, choice).model;
  const sessions = [];
  for (const one of [model, cut]) sessions.push(await engine.createSession(toBytes(one), { config: TIMED_TOGETHER }));
  const results = await measureLatency(
    sessions.map((session) => ({ session, feeds: feedsFor(batch) })),
    { runs: 30, maxSeconds: 8 },
  );
  for (const session of sessions) await session.release();
  const cost = costOf(choice);
  rows.push({
    measured: results[1]!.ratioToFirst,
    macs: cost.macs! / whole.macs!,
    blocked: cost.blocked! / whole.blocked!,
    operators: (await microsOf(cut)) / whole.micros,
  });
  const last = rows.at(-1)!;
  process.stderr.write(
    `${Object.entries(last)
      .map(([key, value]) => `${key} ${value.toFixed(3)}`)
      .join(', ')}\n`,
  );
}
const summary = (['macs', 'blocked', 'operators'] as const).map((key) => {
  const error = rows.reduce((sum, row) => sum + Math.abs(row[key] / row.measured - 1), 0) / rows.length;
  let [right, pairs] = [0, 0];
  for (const a of rows)
    for (const b of rows) {
      if (a.measured >= b.measured) continue;
      pairs++;
      if (a[key] < b[key]) right++;
    }
  return [key, `${(100 * error).toFixed(1)} %`, `${((100 * right) / pairs).toFixed(1)} %`];
});
console.log(markdownTable(['estimate', 'error', 'order'], summary));
