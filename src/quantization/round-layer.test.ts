import { describe, expect, it } from 'vitest';
import type { Gram } from '../flow/gram-probe.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import { linearNet } from '../testing/tiny-net.js';
import { normals } from '../testing/tiny-models.js';
import { layerBases, roundLayer } from './round-layer.js';
import { uniformCodes } from './format.js';
import { roundHalfEven } from './grid.js';
import type { RoundingBasis } from './round.js';

const COLS = 12;
const ROWS = 40;

/** A linear layer with these rows, one per output. */
function layerOf(rows: readonly Float32Array[]): WeightLayer {
  const matrix = Array.from({ length: COLS }, (_, i) => rows.map((row) => row[i]!));
  return findLayers(new Graph(linearNet(matrix)))[0]!;
}

/** Inputs that have nothing to do with each other: errors of columns cannot make up for each other. */
function whiteGram(): Gram {
  const data = new Float64Array(COLS * COLS);
  for (let i = 0; i < COLS; i++) data[i * COLS + i] = 1;
  return { groups: 1, cols: COLS, data, mean: new Float64Array(COLS), count: COLS };
}

/** Even rows spread evenly over their range, odd rows with one weight far out, which is better clipped. */
function mixedRows(): Float32Array[] {
  return Array.from({ length: ROWS }, (_, r) => {
    const values = normals(COLS, 50 + r, 0.1);
    if (r % 2 === 1) return values.map((v, i) => (i === 0 ? 0.8 : v));
    return values.map((_v, i) => ((i % 2 === 0 ? 1 : -1) * (0.15 + 0.85 * ((i * 7 + r) % COLS))) / COLS);
  });
}

function energyAt(row: Float32Array, scale: number, { h }: RoundingBasis): number {
  // Two bits: levels -1.5, -0.5, 0.5, 1.5 times the scale.
  const level = (w: number): number => Math.min(1, Math.max(-2, roundHalfEven(w / scale - 0.5))) + 0.5;
  return row.reduce((sum, w) => sum + h[0]! * (w - scale * level(w)) ** 2, 0);
}

describe('roundLayer', () => {
  it('gives every row the clip that is best for it', () => {
    const rows = mixedRows();
    const layer = layerOf(rows);
    const [basis] = layerBases(whiteGram());
    const weights = Float32Array.from(rows.flatMap((row) => [...row]));
    const rounded = roundLayer(layer, weights, [basis!], uniformCodes(2), { search: 'full', refinements: 0 });
    const clips = rows.map((row, r) => (rounded.scales[r]! * 1.5) / Math.max(...row.map(Math.abs)));
    const tried = [...new Set(clips.map((clip) => clip.toFixed(2)))].map(Number);
    expect(tried).toHaveLength(2);
    rows.forEach((row, r) => {
      const peak = Math.max(...row.map(Math.abs));
      const energies = tried.map((clip) => energyAt(row, (peak * clip) / 1.5, basis!));
      expect(energyAt(row, rounded.scales[r]!, basis!)).toBeLessThanOrEqual(Math.min(...energies) * 1.0001);
    });
    const total = rows.reduce((sum, row, r) => sum + energyAt(row, rounded.scales[r]!, basis!), 0);
    expect(rounded.error).toBeCloseTo(total, 4);
  });
});
