/** How weights start: the initialisations that the papers of the architectures name. */
import type { RandomStream } from '../data/random.js';

/** What an initialisation knows of a parameter. */
export interface ParameterShape {
  /** Elements. */
  readonly count: number;
  /** Inputs that one output sums over. */
  readonly fanIn: number;
  /** Outputs that one input reaches. */
  readonly fanOut: number;
}

/** Values of a parameter in storage order. */
export type Init = (shape: ParameterShape, random: RandomStream) => Float32Array;

export const zeros: Init = ({ count }) => new Float32Array(count);

export const ones: Init = ({ count }) => new Float32Array(count).fill(1);

/** Every element the same. */
export function constant(value: number): Init {
  return ({ count }) => new Float32Array(count).fill(value);
}

/** N(mean, deviation^2). */
export function normal(deviation: number, mean = 0): Init {
  return ({ count }, random) => normals(count, random, deviation, mean);
}

/** N(0, deviation^2) without what lies beyond two deviations, as in BERT, ViT, Swin and ConvNeXt. */
export function truncatedNormal(deviation: number): Init {
  return ({ count }, random) => {
    const values = normals(count, random, deviation);
    const limit = 2 * deviation;
    for (let i = 0; i < count; i++) {
      while (Math.abs(values[i]!) > limit) values[i] = random.normal() * deviation;
    }
    return values;
  };
}

/** N(0, 2 / fan): keeps the variance through a ReLU (He et al. 2015, Delving Deep into Rectifiers). */
export function kaimingNormal(fan: 'in' | 'out' = 'out'): Init {
  return ({ count, fanIn, fanOut }, random) => normals(count, random, Math.sqrt(2 / (fan === 'in' ? fanIn : fanOut)));
}

/** U(-b, b) with b = sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010), for tanh and linear layers. */
export const xavierUniform: Init = ({ count, fanIn, fanOut }, random) =>
  uniforms(count, random, Math.sqrt(6 / (fanIn + fanOut)));

/** U(-b, b) with b = 1 / sqrt(fan in) (LeCun et al. 1998, Efficient BackProp): the usual start of class heads. */
export const lecunUniform: Init = ({ count, fanIn }, random) => uniforms(count, random, 1 / Math.sqrt(fanIn));

function uniforms(count: number, random: RandomStream, bound: number): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = (2 * random.float() - 1) * bound;
  return values;
}

/** Both deviates of every Box-Muller pair: large models have 10^8 weights to draw. */
function normals(count: number, random: RandomStream, deviation: number, mean = 0): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - random.float()));
    const angle = 2 * Math.PI * random.float();
    values[i] = mean + radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = mean + radius * Math.sin(angle);
  }
  return values;
}
