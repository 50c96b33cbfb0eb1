/** The report schema accepts what commands measure and refuses what nobody measured. */
import { describe, expect, it } from 'vitest';
import {
  distillReport,
  evaluateReport,
  inspectReport,
  profileReport,
  pruneReport,
  quantizeReport,
  top1,
  trainReport,
} from '../testing/reports.js';
import { reportToJson } from './json.js';
import { parseReport } from './report.js';

describe('report', () => {
  it.each([
    quantizeReport(),
    pruneReport(),
    evaluateReport(),
    profileReport(),
    inspectReport(),
    trainReport(),
    distillReport(),
  ])('$command survives JSON unchanged', (report) => {
    expect(parseReport(JSON.parse(reportToJson(report)))).toEqual(report);
  });

  it('has the keys that scripts rely on', () => {
    const parsed: unknown = JSON.parse(reportToJson(quantizeReport()));
    expect(parsed).toMatchObject({
      command: 'quantize',
      method: 'faaq',
      seed: 7,
      target: 'cpu',
      output: 'out.onnx',
      before: {
        bytes: 1_000_000,
        metric: { name: 'top1', value: 0.9173, split: 'test', samples: 1000 },
        latency: { medianMs: 2, p90Ms: 2.2, batch: 1 },
      },
      layers: [
        { name: '/block0/conv/Conv', op: 'Conv', bits: 2, execution: 'int8', bytes: 100, sensitivity: 1 },
        {},
        {},
      ],
    });
  });

  it('accepts a measurement with nothing but bytes', () => {
    expect(parseReport(quantizeReport({ before: { bytes: 2 }, after: { bytes: 1 } }))).toMatchObject({
      after: { bytes: 1 },
    });
  });

  it('refuses NaN instead of printing null', () => {
    const report = quantizeReport({ after: { bytes: 1, metric: top1(Number.NaN) } });
    expect(() => reportToJson(report)).toThrow(/after\.metric\.value/);
  });

  it.each([
    [{ ...quantizeReport(), command: 'squash' }, /command/],
    [quantizeReport({ after: { bytes: -1 } }), /after\.bytes/],
    [{ ...profileReport(), layers: [{ name: 'a', op: 'Conv', kl: { four: 1 } }] }, /layers\.0\.kl/],
    [{ ...evaluateReport(), files: [] }, /files/],
    [pruneReport({ original: { divergence: -0.1 } }), /original\.divergence/],
    [pruneReport({ original: { divergence: 0, agreement: 1.5 } }), /original\.agreement/],
    [pruneReport({ steps: [{ ...pruneReport().steps[0]!, step: 0 }] }), /steps\.0\.step/],
    [{ ...pruneReport(), budget: { ...pruneReport().budget, of: 'bytes' } }, /budget\.of/],
    [{ ...trainReport(), training: { ...trainReport().training, stopped: 'bored' } }, /training\.stopped/],
    [distillReport({ mapping: [{ student: 'a', teacher: 'b', cka: 1.5, weight: 1 }] }), /mapping\.0\.cka/],
    [distillReport({ fidelity: { ...distillReport().fidelity!, agreement: 2 } }), /fidelity\.agreement/],
    [null, /Not a report/],
  ])('refuses %#', (value, message) => {
    expect(() => parseReport(value)).toThrow(message);
  });

  it('keeps fields that this version does not know when it prints', () => {
    expect(reportToJson(Object.assign(quantizeReport(), { extra: 1 }))).toContain('"extra": 1');
  });
});
