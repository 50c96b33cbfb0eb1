/** What is said about the course of a training: positions, the best point, the rows of tables, the last sentence. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { trainingHistory, trainReport } from '../testing/reports.js';
import type { TrainReport } from './report.js';
import { courseOf, courseTable, endSentence, thinnedCourse, trainingTitle } from './training.js';

function reportWith(training: Partial<TrainReport['training']>, overrides: Partial<TrainReport> = {}): TrainReport {
  return trainReport({ ...overrides, training: { ...trainReport().training, ...training } });
}

/** Two whole epochs and half of the third, which is the best. */
const inside: TrainReport['history'] = [
  ...trainingHistory(2),
  { epoch: 2, step: 250, loss: 1, score: 0.95, learningRate: 0.0001, seconds: 21 },
];

describe('the course', () => {
  it('counts whole epochs and parts of one, and marks exactly one best point', () => {
    const report = reportWith({ bestEpoch: 2 }, { history: inside });
    const course = courseOf(report);
    expect(course.map(({ position }) => position)).toEqual([1, 2, 2.5]);
    expect(course.map(({ best }) => best)).toEqual([false, false, true]);
    expect(courseTable(report).rows[2]).toEqual(['2.5', '250', '1.000', '95.00 %', '0.0001', '21 s', 'best']);
  });

  it('takes the earlier of two equal scores, as the training does', () => {
    const tied = inside.map((point) => ({ ...point, score: 0.5 }));
    const course = courseOf(reportWith({ bestEpoch: 2 }, { history: tied }));
    expect(course.map(({ best }) => best)).toEqual([false, true, false]);
  });

  it('takes the lowest loss for the best', () => {
    const course = courseOf(reportWith({ bestEpoch: 2, metric: 'loss' }, { history: inside }));
    expect(course.map(({ best }) => best)).toEqual([false, true, false]);
  });

  it('copes with training that ended inside the first epoch', () => {
    const history = [{ ...inside[2], epoch: 0, step: 40 }];
    const report = reportWith({ epochs: 0, steps: 40, bestEpoch: 0, stopped: 'time' }, { history });
    expect(courseOf(report)).toMatchObject([{ position: 0, best: true }]);
    expect(trainingTitle(report)).toBe('adamw, 40 updates, seed 7');
    expect(endSentence(report)).toMatch(
      /^Stopped when the time was up, after 40 updates; the weights after 40 updates/,
    );
  });

  it('is thinned to the first, the best, the last and others in order', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 4, max: 20 }), fc.nat(), (epochs, rows, at) => {
        const bestEpoch = 1 + (at % epochs);
        const course = courseOf(reportWith({ bestEpoch }, { history: trainingHistory(epochs) }));
        const shown = thinnedCourse(course, rows).map(({ epoch }) => epoch);
        expect(shown.length).toBeLessThanOrEqual(rows);
        expect(shown.length).toBeGreaterThanOrEqual(Math.min(rows - 1, epochs));
        expect(shown).toEqual([...new Set(shown)].sort((a, b) => a - b));
        for (const epoch of [1, bestEpoch, epochs]) expect(shown).toContain(epoch);
      }),
    );
  });
});

describe('the last sentence', () => {
  it.each([
    [
      'epochs',
      /^Stopped after 30 epochs; the weights of epoch 27 were written \(91\.97 % top-1 on VAL\); 1,234 samples\/s\.$/,
    ],
    ['steps', /^Stopped after 3,000 updates; /],
    ['time', /^Stopped when the time was up, after 30 epochs; /],
    ['patience', /^Stopped after 30 epochs, when VAL no longer improved; /],
  ] as const)('for %s', (stopped, sentence) => {
    expect(endSentence(reportWith({ stopped }))).toMatch(sentence);
  });

  it('says no more than is known', () => {
    expect(endSentence(reportWith({ samplesPerSecond: undefined }, { history: [] }))).toBe(
      'Stopped after 30 epochs; the weights of epoch 27 were written.',
    );
    expect(trainingTitle(reportWith({ epochs: 1 }, { settings: undefined }))).toBe('1 epoch, seed 7');
  });

  it('gives scores in the unit of their metric', () => {
    expect(endSentence(reportWith({ metric: 'sqnrDb' }))).toContain('0.9 dB output SQNR on VAL');
  });
});
