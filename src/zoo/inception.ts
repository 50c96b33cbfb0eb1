/** Inception-v3 (Szegedy et al. 2015, Rethinking the Inception Architecture), without the auxiliary head. */
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { concat, convNorm, dropout, linear, pool, pooledFeatures, type ConvOptions } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast, type ZooSettings } from './options.js';

const NORM = { epsilon: 1e-3 } as const;
const ROW: ConvOptions = { kernel: [1, 7] };
const COLUMN: ConvOptions = { kernel: [7, 1] };
const ONE: ConvOptions = { kernel: 1 };
const THREE: ConvOptions = { kernel: 3 };
const FIVE: ConvOptions = { kernel: 5 };
/** Halves the size without padding. */
const HALVING: ConvOptions = { kernel: 3, stride: 2, padding: 0 };

/** Layers of one branch: output channels and kernel. */
type Branch = readonly (readonly [channels: number, options: ConvOptions])[];

/** Builds blocks of one network; all channel counts are multiplied by the width. */
class Inception {
  constructor(
    private readonly net: Net,
    private readonly width: number,
  ) {}

  conv(x: Value, name: string, channels: number, options: ConvOptions): Value {
    return convNorm(this.net, x, name, scaled(channels, this.width), { ...options, norm: NORM, activation: 'relu' });
  }

  branch(x: Value, name: string, layers: Branch): Value {
    return layers.reduce((y, [channels, options], i) => this.conv(y, `${name}.${String(i)}`, channels, options), x);
  }

  /** Branches side by side, and pooling with a 1x1 convolution as the last one. */
  block(x: Value, name: string, branches: readonly Branch[], pooled: number): Value {
    const parts = branches.map((layers, i) => this.branch(x, `${name}.branch${String(i + 1)}`, layers));
    return concat(this.net, [...parts, this.pooling(x, name, pooled)], `${name}.concat`);
  }

  /** Branches that halve the size, and max pooling as the last one. */
  reduction(x: Value, name: string, branches: readonly Branch[]): Value {
    const parts = branches.map((layers, i) => this.branch(x, `${name}.branch${String(i + 1)}`, layers));
    const pooled = pool(this.net, x, `${name}.pool`, 'Max', { kernel: 3, stride: 2 });
    return concat(this.net, [...parts, pooled], `${name}.concat`);
  }

  /** Figure 7: the 3x3 convolutions are split into a row and a column side by side. */
  expanded(x: Value, name: string): Value {
    const fork = (y: Value, path: string): Value[] => [
      this.conv(y, `${path}.row`, 384, { kernel: [1, 3] }),
      this.conv(y, `${path}.column`, 384, { kernel: [3, 1] }),
    ];
    const parts = [
      this.branch(x, `${name}.branch1`, [[320, ONE]]),
      ...fork(this.branch(x, `${name}.branch2`, [[384, ONE]]), `${name}.branch2`),
      ...fork(
        this.branch(x, `${name}.branch3`, [
          [448, ONE],
          [384, THREE],
        ]),
        `${name}.branch3`,
      ),
      this.pooling(x, name, 192),
    ];
    return concat(this.net, parts, `${name}.concat`);
  }

  private pooling(x: Value, name: string, channels: number): Value {
    const averaged = pool(this.net, x, `${name}.pool`, 'Average', { kernel: 3, stride: 1, padding: 1 });
    return this.conv(averaged, `${name}.branch_pool`, channels, ONE);
  }
}

/** Figure 5: 5x5 as two 3x3 in one of the branches. */
const blockA: readonly Branch[] = [
  [[64, ONE]],
  [
    [48, ONE],
    [64, FIVE],
  ],
  [
    [64, ONE],
    [96, THREE],
    [96, THREE],
  ],
];

/** Figure 6 with n = 7; `inner` channels inside of the branches. */
const blockC = (inner: number): readonly Branch[] => [
  [[192, ONE]],
  [
    [inner, ONE],
    [inner, ROW],
    [192, COLUMN],
  ],
  [
    [inner, ONE],
    [inner, COLUMN],
    [inner, ROW],
    [inner, COLUMN],
    [192, ROW],
  ],
];

function inceptionV3(net: Net, settings: ZooSettings): void {
  const { inputSize, channels, classes, width } = settings;
  const blocks = new Inception(net, width);
  let x = net.input([channels, inputSize, inputSize]);
  x = blocks.branch(x, 'stem.a', [
    [32, HALVING],
    [32, { kernel: 3, padding: 0 }],
    [64, THREE],
  ]);
  x = pool(net, x, 'stem.a.pool', 'Max', { kernel: 3, stride: 2 });
  x = blocks.branch(x, 'stem.b', [
    [80, ONE],
    [192, { kernel: 3, padding: 0 }],
  ]);
  x = pool(net, x, 'stem.b.pool', 'Max', { kernel: 3, stride: 2 });
  for (const [name, pooled] of [
    ['mixed_5b', 32],
    ['mixed_5c', 64],
    ['mixed_5d', 64],
  ] as const)
    x = blocks.block(x, name, blockA, pooled);
  x = blocks.reduction(x, 'mixed_6a', [
    [[384, HALVING]],
    [
      [64, ONE],
      [96, THREE],
      [96, HALVING],
    ],
  ]);
  for (const [name, inner] of [
    ['mixed_6b', 128],
    ['mixed_6c', 160],
    ['mixed_6d', 160],
    ['mixed_6e', 192],
  ] as const)
    x = blocks.block(x, name, blockC(inner), 192);
  x = blocks.reduction(x, 'mixed_7a', [
    [
      [192, ONE],
      [320, HALVING],
    ],
    [
      [192, ONE],
      [192, ROW],
      [192, COLUMN],
      [192, HALVING],
    ],
  ]);
  for (const name of ['mixed_7b', 'mixed_7c']) x = blocks.expanded(x, name);
  x = dropout(net, pooledFeatures(net, x), 'dropout', settings.dropout);
  net.output(linear(net, x, 'fc', classes), 'logits');
}

export const INCEPTION_V3: Architecture = {
  name: 'inception-v3',
  summary: 'Inception-v3 without the auxiliary head',
  defaults: { classes: 1000, width: 1, inputSize: 299, channels: 3, dropout: 0.5 },
  check: sizeAtLeast(75),
  build: inceptionV3,
};
