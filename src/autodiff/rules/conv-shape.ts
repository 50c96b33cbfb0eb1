/** What is known of a convolution before it runs, and which form of its gradients is taken for it. */
import { canBlock, wholeBlocks } from '../../onnx/blocked.js';
import type { ConvGeometry } from '../../onnx/conv-geometry.js';

/** Of a convolution X [N, Cin, input...] -> Y [N, Cout, output...] with W [Cout, Cin / groups, kernel...]. */
export interface ConvShape extends ConvGeometry {
  /** Spatial dims of X. */
  readonly input: readonly number[];
  readonly inChannels: number;
  readonly outChannels: number;
  readonly groups: number;
  /** N; undefined where the batch varies. */
  readonly samples?: number | undefined;
  /** Elements of a block of ONNX Runtime's blocked layout; undefined where that is not to be used. */
  readonly block?: number | undefined;
}

/** In the blocked layout, with a batch of known size. */
export type BlockedShape = ConvShape & { readonly block: number; readonly samples: number };

/**
 * Gradient in X:
 * - `conv-transpose`: ConvTranspose of dY; goes for every geometry;
 * - `flipped-conv`: Conv of dY with W turned by 180 degrees, input and output channels exchanged; stride 1;
 * - `matmul`: W' dY; kernels of one element, stride 1;
 * - `blocked`: `flipped-conv` in the blocked layout of ONNX Runtime; two axes, one group or one
 *   channel per group;
 * - `phases`: for strides, a convolution like `blocked` per position within a stride, laid side by side.
 */
export type InputForm = 'conv-transpose' | 'flipped-conv' | 'matmul' | 'blocked' | 'phases';

/**
 * Gradient in W. Products are per sample and then summed over the batch, or (`flat`) sum over the batch themselves,
 * after channels were brought before samples:
 * - `taps`, `taps-flat`: for every kernel position the strided slice of X that it meets, times dY;
 * - `columns`, `columns-flat`: the same slices stacked to one matrix, times dY;
 * - `shifts`: positions along the last axis move X, those along the others dY, which takes fewer copies; stride 1;
 * - `runs`: like `columns-flat`, but the slices are contiguous in a padded grid that X and dY share; stride 1;
 * - `conv`: Conv with dY for its kernel, samples in the place of channels;
 * - `products`: element-wise products with the slices, summed; one input channel per group;
 * - `blocked`: like `conv` in the blocked layout of ONNX Runtime; two axes, columns not dilated, one group or one channel
 *   per group.
 */
export type WeightForm =
  'taps' | 'taps-flat' | 'columns' | 'columns-flat' | 'shifts' | 'runs' | 'conv' | 'products' | 'blocked';

export interface ConvForms {
  readonly input: InputForm;
  readonly weight: WeightForm;
}

/** In which form the gradients of a convolution are computed. */
export type FormsFor = (shape: ConvShape) => ConvForms;

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

function isDense({ strides }: ConvShape): boolean {
  return strides.every((stride) => stride === 1);
}

/** One kernel element, stride 1, no padding: a matrix product over channels. */
export function isPointwise(shape: ConvShape): boolean {
  return (
    isDense(shape) && product(shape.kernel) === 1 && [...shape.padBegin, ...shape.padEnd].every((pad) => pad === 0)
  );
}

/** Two axes, and one group or one channel per group, of numbers that ONNX Runtime can bring into blocks. */
function hasBlocks({ kernel, groups, inChannels, outChannels, block }: ConvShape): boolean {
  if (block === undefined || kernel.length !== 2 || !canBlock(outChannels)) return false;
  return groups === 1 || (groups === inChannels && groups === outChannels && groups >= block);
}

/** Whether the blocked form of the weight's gradient goes for a geometry. */
export function isBlockable(shape: ConvShape): shape is BlockedShape {
  const { dilations, groups, inChannels, block, samples } = shape;
  if (!hasBlocks(shape) || block === undefined || samples === undefined) return false;
  if (inChannels >= block && !canBlock(inChannels)) return false;
  // Samples stand where channels do.
  const rows = groups === 1 ? samples : (samples * wholeBlocks(inChannels, block)) / block;
  return dilations[1] === 1 && (rows < block || rows % block === 0);
}

/** Along one axis, how the positions s q + r of X are made of dY. */
export interface Phase {
  /** First element of the kernel that they meet; the others follow a stride apart. */
  readonly first: number;
  readonly taps: number;
  /** Padding of dY. */
  readonly begin: number;
  readonly end: number;
}

/**
 * With j = s q + r + pad, dX[s q + r] = sum over t of W[k + s t] dY[q + floor((r + pad) / s) - t], where k = (r + pad) mod s.
 * @returns by r; undefined where a phase meets no element, or dY would have to be cut
 */
export function phasesOf(shape: ConvShape, axis: number): Phase[] | undefined {
  const [stride, kernel, pad] = [shape.strides[axis]!, shape.kernel[axis]!, shape.padBegin[axis]!];
  const [input, output] = [shape.input[axis]!, shape.output[axis]!];
  const phases = Array.from({ length: stride }, (_, r) => {
    const first = (r + pad) % stride;
    const taps = Math.ceil((kernel - first) / stride);
    const begin = taps - 1 - Math.floor((r + pad) / stride);
    return { first, taps, begin, end: Math.ceil(input / stride) - output + taps - 1 - begin };
  });
  return phases.every(({ taps, begin, end }) => taps > 0 && begin >= 0 && end >= 0) ? phases : undefined;
}

/** Whether every phase of a strided geometry is a convolution of dY. */
function hasPhases(shape: ConvShape): boolean {
  const { strides, dilations } = shape;
  return (
    strides.some((stride) => stride > 1) &&
    dilations.every((dilation) => dilation === 1) &&
    strides.every((_, axis) => phasesOf(shape, axis) !== undefined)
  );
}

/** Whether the gradient in the input is made of blocked convolutions a stride apart. */
export function isPhased(shape: ConvShape): shape is BlockedShape {
  return hasBlocks(shape) && canBlock(shape.inChannels) && shape.samples !== undefined && hasPhases(shape);
}

/** Forms that are right for a geometry, the one that always is first. */
export function inputForms(shape: ConvShape): InputForm[] {
  const { kernel, dilations, padBegin, padEnd } = shape;
  const fits = kernel.every((k, i) => Math.max(padBegin[i]!, padEnd[i]!) <= (k - 1) * dilations[i]!);
  return [
    'conv-transpose',
    ...(isDense(shape) && fits ? (['flipped-conv'] as const) : []),
    ...(isPointwise(shape) ? (['matmul'] as const) : []),
    ...(isDense(shape) && fits && hasBlocks(shape) ? (['blocked'] as const) : []),
    ...(isPhased(shape) ? (['phases'] as const) : []),
  ];
}

/** Forms that are right for a geometry, the one that always is first. */
export function weightForms(shape: ConvShape): WeightForm[] {
  return [
    ...(['taps', 'taps-flat', 'columns', 'columns-flat', 'conv'] as const),
    ...(isDense(shape) && !isPointwise(shape) ? (['shifts', 'runs'] as const) : []),
    ...(shape.inChannels === shape.groups ? (['products'] as const) : []),
    ...(isBlockable(shape) ? (['blocked'] as const) : []),
  ];
}

/**
 * The one place where forms are chosen. Defaults from times in ONNX Runtime 1.30 with 2 threads on a machine at work;
 * bench/conv-gradients.ts measures them anew.
 */
export function chooseForms(shape: ConvShape): ConvForms {
  return { input: chooseInput(shape), weight: chooseWeight(shape) };
}

function chooseInput(shape: ConvShape): InputForm {
  const forms = inputForms(shape);
  if (forms.includes('blocked') && shape.inChannels >= 8) return 'blocked';
  if (forms.includes('phases')) return 'phases';
  if (forms.includes('matmul')) return 'matmul';
  // The few rows of such a product leave most of the flipped convolution idle.
  if (shape.inChannels / shape.groups < 8 && shape.groups === 1) return 'conv-transpose';
  return forms.includes('flipped-conv') ? 'flipped-conv' : 'conv-transpose';
}

function chooseWeight(shape: ConvShape): WeightForm {
  // Of few positions, a product per sample is all overhead.
  if (isPointwise(shape)) return product(shape.output) >= 256 ? 'taps' : 'taps-flat';
  const forms = weightForms(shape);
  if (forms.includes('blocked')) return 'blocked';
  // Strided, a single element of the kernel meets few of X, all of which other forms carry along.
  if (product(shape.kernel) === 1) return 'columns';
  if (forms.includes('products') && shape.groups > 1) return 'conv';
  if (shape.inChannels / shape.groups < 8) return 'columns';
  return forms.includes('shifts') ? 'shifts' : 'columns';
}
