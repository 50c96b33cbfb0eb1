import { describe, expect, it } from 'vitest';
import { floatAttribute } from '../attributes.js';
import { rewrite } from '../graph.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { shareNodes } from './share-nodes.js';

describe('shareNodes', () => {
  it('merges equal nodes, and those that become equal by it', () => {
    const model = tinyModel({
      inputs: [info('x', [2])],
      outputs: [info('y', [2])],
      nodes: [
        op('Exp x -> a'),
        op('Exp x -> b'),
        op('LeakyRelu a -> c', [floatAttribute('alpha', 0.1)]),
        op('LeakyRelu b -> d', [floatAttribute('alpha', 0.1)]),
        op('LeakyRelu b -> e', [floatAttribute('alpha', 0.2)]),
        op('Sum c d e -> y'),
      ],
    });
    let merged = 0;
    const shared = rewrite(model, (graph) => (merged = shareNodes(graph)));
    expect(merged).toBe(2);
    expect(shared.graph!.node.map((node) => node.opType).sort()).toEqual(['Exp', 'LeakyRelu', 'LeakyRelu', 'Sum']);
    expect(shared.graph!.node.find((node) => node.opType === 'Sum')!.input).toEqual(['c', 'c', 'e']);
  });

  it('leaves outputs of the model, random numbers and different operands alone', () => {
    const model = tinyModel({
      inputs: [info('x', [2]), info('z', [2])],
      outputs: [info('y', [2]), info('w', [2]), info('s', [2])],
      nodes: [
        op('Exp x -> y'),
        op('Exp x -> w'),
        op('RandomNormalLike x -> r'),
        op('RandomNormalLike x -> q'),
        op('Sub x z -> a'),
        op('Sub z x -> b'),
        op('Sum r q a b -> s'),
      ],
    });
    expect(rewrite(model, (graph) => expect(shareNodes(graph)).toBe(0)).graph!.node).toHaveLength(7);
  });
});
