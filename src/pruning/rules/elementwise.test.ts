/** Element-wise operators, each between two convolutions. */
import { describe, it } from 'vitest';
import { stringAttribute } from '../../onnx/attributes.js';
import { checkBetween, positive, scalar, type BetweenCase } from '../../testing/between-convs.js';
import { op, weights } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
  { name: 'Relu', body: [op('Relu h -> z')], units: [8] },
  { name: 'Sigmoid: not 0 at 0, but the next layer has zeros', body: [op('Sigmoid h -> z')], units: [8] },
  { name: 'division by what would be 0', body: [op('Div h h -> z')], units: [], why: /not finite/ },
  { name: 'division by a stored vector', body: [op('Div h d -> z')], stored: [positive('d', [8, 1, 1])], units: [8] },
  { name: 'Log of what would be 0', body: [op('Log h -> z')], units: [], why: /not finite/ },
  { name: 'x to a power', body: [op('Pow h two -> z')], stored: [scalar('two', 2)], units: [8] },
  {
    name: 'Clip and PRelu',
    body: [op('Clip h low -> c'), op('PRelu c slope -> z')],
    stored: [scalar('low', -0.2), weights('slope', [8, 1, 1], 4)],
    units: [8],
  },
  { name: 'an added vector', body: [op('Add h a -> z')], stored: [weights('a', [1, 8, 1, 1], 4)], units: [8] },
  {
    name: 'Where',
    body: [op('Greater h zero -> c'), op('Where c h s -> z')],
    stored: [scalar('zero', 0), weights('s', [8, 1, 1], 6)],
    units: [8],
  },
  {
    name: 'an operator without a rule',
    body: [op('Einsum h -> z', [stringAttribute('equation', 'ncij->ncij')])],
    units: [],
    why: /no rule for Einsum/,
  },
];

describe('elementwise', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
