/** Terminal tables: width, alignment, colours, absent values. */
import { describe, expect, it } from 'vitest';
import {
  distillReport,
  evaluateReport,
  inspectReport,
  profileReport,
  pruneReport,
  quantizeReport,
  quantizedLayers,
  pruningSteps,
  trainReport,
} from '../testing/reports.js';
import type { DistillReport, PruneReport } from './report.js';
import { reportToTable } from './table.js';

const ANSI = /\u001b\[/; // eslint-disable-line no-control-regex
const longName = `/stage1/${'very_long_block_name/'.repeat(12)}Conv`;

/** Every name long, every list longer than the table shows. */
function longPruneReport(): PruneReport {
  const { groups, removed } = pruneReport();
  return pruneReport({
    model: longName,
    groups: Array.from({ length: 30 }, () => ({ ...groups[1], layers: [longName, longName] })),
    removed: Array.from({ length: 30 }, () => ({ ...removed[0], name: longName, layers: [longName] })),
    steps: pruningSteps(120).map((step) => ({ ...step, units: 12_345, branches: [longName] })),
  });
}

function longDistillReport(): DistillReport {
  const pair = { student: longName, teacher: longName, cka: 0.123456, weight: 1.23456e-7 };
  return distillReport({ student: longName, teacher: longName, mapping: Array.from({ length: 90 }, () => pair) });
}

describe('reportToTable', () => {
  it('shows before, after and the change', () => {
    const text = reportToTable(quantizeReport());
    expect(text).toMatch(/file size +1 MB +125 kB +8\.00x smaller/);
    expect(text).toMatch(/top-1 +91\.73 % +91\.23 % +−0\.50 pp/);
    expect(text).toMatch(/latency, batch 1 +2\.00 ms +1\.00 ms +2\.00x faster/);
    expect(text).toContain('wrote out.onnx');
  });

  it('leaves out what was not measured', () => {
    const text = reportToTable(quantizeReport({ before: { bytes: 10 }, after: { bytes: 5 }, sweep: undefined }));
    expect(text).toContain('file size');
    expect(text).not.toMatch(/latency|top-1|gzip|MACs|parameters/);
  });

  it('says that a budget was missed', () => {
    const budget = { unit: 'bytes', requested: 100_000, achieved: 125_000, met: false } as const;
    expect(reportToTable(quantizeReport({ budget }))).toContain('Budget NOT met: file size 125 kB, asked for 100 kB.');
  });

  it('fits 100 columns with long names and has no trailing spaces', () => {
    const reports = [
      quantizeReport({ model: longName }),
      evaluateReport(),
      profileReport(),
      inspectReport(),
      trainReport({ model: longName }),
      longPruneReport(),
      longDistillReport(),
    ];
    const [, evaluate, profile, inspect] = reports;
    if (evaluate.command === 'evaluate') evaluate.files[0].path = longName;
    if (profile.command === 'profile') profile.layers[0].name = longName;
    if (inspect.command === 'inspect') {
      inspect.model.rows[0].name = longName;
      inspect.model.removable!.groups[0].layers = [longName, longName];
      inspect.model.removable!.groups[0].members[0].initializer = longName;
      inspect.model.removable!.fixed[1].node = longName;
      inspect.model.unsupported = [{ node: longName, op: 'Loop', reason: 'x '.repeat(200) }];
    }
    for (const report of reports) {
      for (const line of reportToTable(report).split('\n')) {
        expect(line.length, `${report.command}: ${line}`).toBeLessThanOrEqual(100);
        expect(line).toBe(line.trimEnd());
      }
    }
  });

  it('has gradients, and the agreement with and without them, where they were computed', () => {
    const sensitivityCheck = { kendallTau: 0.4, withoutGradient: -0.123, layers: 16 };
    const layers = profileReport().layers.map((layer, i) => ({ ...layer, ...(i > 0 && { gradient: 0.0125 * i }) }));
    const text = reportToTable({ ...profileReport(), layers, sensitivityCheck });
    expect(text).toMatch(/ change {2}gradient {2}KL 2b/);
    expect(text).toMatch(/ 0\.025 .*\n\nKendall tau .* 0\.40, -0\.12 without the\s+gradient term \(16 layers\)\./);
    expect(reportToTable(profileReport())).not.toMatch(/gradient|Kendall/);
    expect(reportToTable(quantizeReport({ sensitivityCheck: { kendallTau: 0.4, layers: 16 } }))).toMatch(
      /measured divergence: 0\.40 \(16\s+layers\)/,
    );
  });

  it('colours only when asked', () => {
    expect(reportToTable(quantizeReport())).not.toMatch(ANSI);
    expect(reportToTable(quantizeReport(), { colour: true })).toMatch(ANSI);
  });

  it('does not pass control characters of names on', () => {
    const layers = quantizedLayers(1).map((layer) => ({ ...layer, name: '\u001b[2Jevil' }));
    const profile = { ...profileReport(), layers };
    expect(reportToTable(profile)).not.toMatch(ANSI);
    expect(reportToTable({ ...quantizeReport(), output: '\u001b[2J' })).not.toMatch(ANSI);
  });

  it('shows what was trained, what changed, the course and how it ended', () => {
    const text = reportToTable(trainReport());
    expect(text).toMatch(/^adamw, 30 epochs, seed 7 {2}in\.onnx/);
    expect(text).toMatch(/top-1 +91\.23 % +91\.73 % +\+0\.50 pp/);
    expect(text).toMatch(/\n +1 +100 +2\.300 +42\.00 % +0\.000997 +8\.5 s\n/);
    expect(text).toMatch(/\n +27 +2,700 .* best\n/);
    expect(text).toMatch(/\n +30 +3,000 /);
    expect(text).toMatch(
      /Stopped after 30 epochs; the weights of epoch 27 were written \(91\.97 % top-1 on VAL\);\s1,234/,
    );
    expect(text).toContain('wrote out.onnx');
  });

  it('has one column for a model that was trained from random weights', () => {
    const text = reportToTable(trainReport({ before: undefined }));
    expect(text).toMatch(/\n +measured\n/);
    expect(text).toMatch(/top-1 +91\.73 %\n/);
    expect(text).not.toMatch(/before|change/);
  });

  it('keeps the sentence of a training inside the terminal', () => {
    for (const line of reportToTable(trainReport(), { columns: 70 }).split('\n'))
      expect(line.length).toBeLessThanOrEqual(70);
  });

  it('lists the units that can be removed, and why others stay', () => {
    const text = reportToTable(inspectReport());
    expect(text).toMatch(/conv1 \+ conv2 +filters +16 +28 +27\.6 k +w1\[0\] and 2 more/);
    expect(text).toMatch(/w4 +inputs +2 +9 +w4\[1\]/);
    expect(text).toMatch(/head +Gemm +all 10 +output of the model/);
    expect(text).toMatch(/conv5 +Conv +2 of 8 +norm5: normalizes over it/);
    const report = inspectReport();
    report.model.removable = { groups: [], fixed: [] };
    expect(reportToTable(report)).toContain('No units can be removed.');
    expect(reportToTable(report)).not.toContain('not removable');
  });

  it('lists what inspect found', () => {
    const text = reportToTable(inspectReport());
    expect(text).toMatch(/conv1 +Conv +16x3x3x3 +448 +442 k +1\.79 kB/);
    expect(text).toMatch(/loop1 +Loop +weights inside a loop body/);
    expect(text).toContain('batch x 3 x 32 x 32');
  });
});
