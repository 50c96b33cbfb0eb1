import { describe, expect, it } from 'vitest';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { Builder } from '../testing/flow-models.js';
import { layerFloors, type FloorMarks } from './floors.js';

/** Twelve equal layers in a row. */
function layers(): ReturnType<typeof findLayers> {
  const b = new Builder();
  let x: Value = b.input('x', [4]);
  for (let i = 0; i < 12; i++) x = b.op('MatMul', [x, b.weight([4, 4])]);
  return findLayers(new Graph(b.done(x)));
}

const LAYERS = layers();
const NAMES = LAYERS.map((layer) => layer.name);
const OPTIONS = { minBits: 2, maxBits: 8, edgeBits: 8, attentionBits: 3, gradientBits: 4 };

function floorsOf(marks: FloorMarks, options = OPTIONS): unknown[] {
  return [...layerFloors(LAYERS, marks, options).values()];
}

const marked = (...at: number[]): Set<string> => new Set(at.map((i) => NAMES[i]!));

describe('layerFloors', () => {
  it('is the lowest width where no rule applies', () => {
    expect(floorsOf({})).toEqual(NAMES.map(() => ({ bits: 2 })));
  });

  it('gives each rule its width, and the highest one where several apply', () => {
    const floors = floorsOf({
      edges: marked(0),
      attention: marked(1, 2),
      steep: marked(2, 3, 4),
      strong: marked(4),
    });
    expect(floors.slice(0, 6)).toEqual([
      { bits: 8, reason: 'first or last layer' },
      { bits: 3, reason: 'attention' },
      { bits: 4, reason: 'gradient' },
      { bits: 4, reason: 'gradient' },
      { bits: 6, reason: 'flow' },
      { bits: 2 },
    ]);
  });

  it('stays within the widths of the run', () => {
    expect(floorsOf({ steep: marked(0), strong: marked(1) }, { ...OPTIONS, maxBits: 3 }).slice(0, 2)).toEqual([
      { bits: 3, reason: 'gradient' },
      { bits: 3, reason: 'flow' },
    ]);
    expect(floorsOf({ steep: marked(0) }, { ...OPTIONS, minBits: 5 })[0]).toEqual({ bits: 5 });
  });
});
