import { describe, expect, it } from 'vitest';
import { distillReport, evaluateReport, pruneReport, trainReport } from '../testing/reports.js';
import type { Report } from '../report/report.js';
import { benchTimes } from '../report/bench.js';
import { latenciesOf } from '../report/summary.js';
import { rankedRows, resultsOf } from './results.js';
import type { SweepPlan, TrialOutcome } from './sweep-folder.js';
import { makeTrial, referenceTo } from './trial.js';
import type { Trial } from './trial.js';

const trial = (method: string, seed: number, reduce: string): Trial =>
  makeTrial('prune', { models: ['/nets/net.onnx'], options: { method, seed, reduce }, labels: { reduce } });

function results(known: readonly (readonly [Trial, Report | string | undefined])[]) {
  const plan: SweepPlan = {
    ...{ format: 2, version: '0', queue: 'q', commands: {}, lease: 60, inputs: {} },
    trials: known.map(([one]) => one),
  };
  const outcomes = new Map<string, TrialOutcome>();
  for (const [{ id }, what] of known) {
    const ran = { id, worker: 'w', seconds: 1, lost: 0 };
    if (typeof what === 'string') outcomes.set(id, { ...ran, error: { code: what, message: `${what}!` } });
    else if (what) outcomes.set(id, { ...ran, report: what });
  }
  return resultsOf(plan, outcomes);
}

/** A pruning whose top-1 is told by the seed. */
function pruned(seed: number): Report {
  const report = pruneReport();
  const metric = { ...report.after.metric!, value: 0.9 - 0.01 * seed };
  return { ...report, after: { ...report.after, metric } };
}

describe('the results of a sweep', () => {
  it('put runs that differ in the seed alone into one row', () => {
    const { rows } = results([
      [trial('idap', 0, '0.5'), pruned(0)],
      [trial('idap', 2, '0.5'), pruned(2)],
      [trial('idap', 0, '0.7'), pruned(1)],
      [trial('l1', 0, '0.5'), pruned(0)],
    ]);
    expect(rows.map(({ model, method, options, seeds }) => [model, method, options['reduce'], seeds])).toEqual([
      ['net.onnx', 'idap', '0.5', 2],
      ['net.onnx', 'idap', '0.7', 1],
      ['net.onnx', 'l1', '0.5', 1],
    ]);
    const { after } = rows[0]!.metric!;
    expect(after.mean).toBeCloseTo(0.89, 9);
    expect([after.least, after.most]).toEqual([0.88, 0.9]);
    expect(rows[0]!.macs!.mean).toBeCloseTo(pruneReport().after.macs! / pruneReport().before.macs!, 9);
  });

  it('tell how long the stages of a run took, as means', () => {
    const timed = (seed: number, ...stages: [string, number][]): readonly [Trial, Report] => [
      trial('idap', seed, '0.5'),
      { ...pruneReport(), stages: stages.map(([name, seconds]) => ({ name, seconds })) },
    ];
    const { rows } = results([timed(0, ['open', 1], ['cut', 4]), timed(1, ['open', 3], ['learn', 5])]);
    expect(rows[0]!.stages).toEqual([
      { name: 'open', seconds: 2 },
      { name: 'cut', seconds: 2 },
      { name: 'learn', seconds: 2.5 },
    ]);
    expect(benchTimes({ rows })!.rows[0]![2]).toBe('learn 2.5 s, open 2.0 s, cut 2.0 s');
  });

  it('call a model that a trial wrote as the one that it comes from, whatever its seed', () => {
    const made = [0, 1].map((seed) => makeTrial('train', { models: ['lenet5'], options: { seed }, labels: {} }));
    const cut = made.map((source, seed) =>
      makeTrial('prune', { models: [referenceTo(source)], options: { method: 'l1', seed }, labels: { method: 'L1' } }),
    );
    const small = makeTrial('distill', {
      ...{ models: [], labels: {} },
      options: { teacher: referenceTo(cut[0]!), student: 'teacher', method: 'kd' },
    });
    const { rows } = results([
      ...made.map((one) => [one, trainReport()] as const),
      ...cut.map((one, seed) => [one, pruned(seed)] as const),
      [small, distillReport()],
    ]);
    expect(rows.map(({ model, method, options, seeds }) => [model, method, options, seeds])).toEqual([
      ['lenet5', 'train', {}, 2],
      ['lenet5', 'L1', {}, 2],
      ['lenet5', 'kd', {}, 1],
    ]);
  });

  it('have VAL, parameters and every batch of both files, and can stand the best on VAL first', () => {
    const report = pruneReport();
    const val = (value: number) => ({ name: 'top1', value, split: 'val' as const, samples: 10 });
    const withVal = (value: number): Report => ({
      ...report,
      before: { ...report.before, val: val(0.9) },
      after: { ...report.after, val: val(value) },
    });
    const { rows } = results([
      [trial('l1', 0, '0.7'), withVal(0.5)],
      [trial('idap', 0, '0.7'), withVal(0.7)],
      [makeTrial('prune', { models: ['/b.onnx'], options: { method: 'l1' }, labels: {} }), withVal(0.9)],
      [trial('obc', 0, '0.7'), withVal(0.6)],
    ]);
    expect(rows[0]!.val).toMatchObject({ before: { mean: 0.9 }, after: { mean: 0.5 } });
    expect(rows[0]!.params).toMatchObject({
      before: { mean: report.before.params! },
      after: { mean: report.after.params! },
    });
    expect(rows[0]!.latencies!.map(({ batch, before, after }) => [batch, before?.mean, after.mean])).toEqual(
      latenciesOf(report.after).map(({ batch, medianMs }) => [
        batch,
        latenciesOf(report.before).find((one) => one.batch === batch)?.medianMs,
        medianMs,
      ]),
    );
    expect(rankedRows(rows).map(({ model, method }) => [model, method])).toEqual([
      ['net.onnx', 'idap'],
      ['net.onnx', 'obc'],
      ['net.onnx', 'l1'],
      ['b.onnx', 'l1'],
    ]);
  });

  it('say what failed and what is still to come', () => {
    const { rows, failed, warnings, trials } = results([
      [trial('idap', 0, '0.5'), pruned(0)],
      [trial('l1', 0, '0.5'), 'infeasible'],
      [trial('l2', 0, '0.5'), undefined],
    ]);
    expect(rows.map(({ method }) => method)).toEqual(['idap']);
    expect(failed).toMatchObject([{ code: 'infeasible', message: 'infeasible!' }]);
    expect(trials).toEqual({ planned: 3, done: 1 });
    expect(warnings).toEqual([expect.stringMatching(/infeasible!$/), '1 of 3 trials have no result yet.']);
  });

  it('have the course of every pruning from the original to the model that was written', () => {
    const report = pruneReport();
    const { curves } = results([[trial('idap', 3, '0.5'), report]]);
    const [course] = curves!;
    expect(course).toMatchObject({
      kind: 'pruning',
      method: 'idap',
      seed: 3,
      metric: 'top1',
      options: { reduce: '0.5' },
    });
    const accepted = report.steps.filter(({ accepted: is }) => is);
    expect(course!.points).toHaveLength(1 + accepted.length);
    expect(course!.points[0]).toEqual({ at: 1, score: report.original.top1 });
    expect(course!.points.at(-1)).toEqual({
      at: accepted.at(-1)!.macs! / report.before.macs!,
      score: report.recovery?.after.top1 ?? accepted.at(-1)!.recovered?.top1,
    });
  });

  it('have courses of trainings, and rows of models that were nothing before', () => {
    const student = makeTrial('distill', { models: [], options: { student: 'resnet8', method: 'kd' }, labels: {} });
    const taught = results([[student, distillReport()]]);
    expect(taught.rows).toMatchObject([{ model: 'resnet8', method: 'kd' }]);
    expect(taught.curves![0]!.points).toHaveLength(distillReport().history.length);
    const fresh = { ...trainReport(), before: undefined };
    const trained = results([[makeTrial('train', { models: ['lenet'], options: {}, labels: {} }), fresh]]);
    expect(trained.rows).toMatchObject([{ model: 'lenet', method: 'train' }]);
    expect(trained.rows[0]!.bytes.before).toBeUndefined();
  });

  it('of files are the last one beside the first', () => {
    const report = evaluateReport();
    const { rows } = results([[makeTrial('evaluate', { models: ['a', 'b'], options: {}, labels: {} }), report]]);
    expect(rows[0]!.bytes.before!.mean).toBe(report.files[0]!.bytes);
    expect(rows[0]!.bytes.after.mean).toBe(report.files.at(-1)!.bytes);
  });
});
