/** Resize by interpolation, and the exchange of depth for space. */
import { FlowCompressError } from '../../../errors.js';
import type { Node } from '../../../onnx/graph.js';
import { at, axisOf, build, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

/** A neighbour of a sampled position along one axis. */
interface Sample {
  readonly index: number;
  readonly weight: number;
}

/**
 * Position in the input of an output index. `scale` is exact where scales were given, else output over input. Rounded to
 * float32, as ONNX Runtime does: on the border between two elements that decides which is the nearest.
 */
function coordinate(mode: string, i: number, input: number, output: number, scale: number): number {
  const halfPixel = Math.fround(Math.fround((i + 0.5) / scale) - 0.5);
  switch (mode) {
    case 'half_pixel':
      return halfPixel;
    case 'pytorch_half_pixel':
      return output > 1 ? halfPixel : 0;
    case 'half_pixel_symmetric': {
      const adjustment = Math.fround(output / Math.fround(input * scale));
      return Math.fround(Math.fround((input / 2) * Math.fround(1 - adjustment)) + halfPixel);
    }
    case 'align_corners':
      return output > 1 ? Math.fround((i * (input - 1)) / (output - 1)) : 0;
    case 'asymmetric':
      return Math.fround(i / scale);
    default:
      throw new FlowCompressError('internal', `The reference knows no coordinates ${mode}.`);
  }
}

const ROUNDING: Readonly<Record<string, (x: number) => number>> = {
  round_prefer_floor: (x) => Math.ceil(x - 0.5),
  round_prefer_ceil: (x) => Math.floor(x + 0.5),
  floor: Math.floor,
  ceil: Math.ceil,
};

/** The cubic convolution kernel of parameter a. */
function cubic(a: number, distance: number): number {
  const d = Math.abs(distance);
  if (d <= 1) return (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1;
  return d < 2 ? a * d ** 3 - 5 * a * d ** 2 + 8 * a * d - 4 * a : 0;
}

/** Neighbours of position x, some of them possibly outside of the axis. */
function neighbours(node: Node, x: number): Sample[] {
  const mode = node.string('mode', 'nearest');
  const low = Math.floor(x);
  if (mode === 'nearest')
    return [{ index: ROUNDING[node.string('nearest_mode', 'round_prefer_floor')]!(x), weight: 1 }];
  if (mode === 'linear') return [0, 1].map((k) => ({ index: low + k, weight: 1 - Math.abs(x - low - k) }));
  const a = node.float('cubic_coeff_a', -0.75);
  return [-1, 0, 1, 2].map((k) => ({ index: low + k, weight: cubic(a, x - low - k) }));
}

function samples(node: Node, x: number, size: number): Sample[] {
  const found = neighbours(node, x);
  if (node.int('exclude_outside', 0) === 0 || node.string('mode', 'nearest') !== 'cubic')
    return found.map(({ index, weight }) => ({ index: Math.min(Math.max(index, 0), size - 1), weight }));
  const inside = found.filter(({ index }) => index >= 0 && index < size);
  const total = inside.reduce((sum, { weight }) => sum + weight, 0);
  return inside.map(({ index, weight }) => ({ index, weight: weight / total }));
}

const resizeOperator: ReferenceOperator = ([x, , scales, sizes], node) => {
  const rank = x!.dims.length;
  if (node.int('antialias', 0) || node.string('keep_aspect_ratio_policy', 'stretch') !== 'stretch')
    throw new FlowCompressError('internal', 'The reference resizes without antialias and aspect ratio policy.');
  const axes = (node.ints('axes') ?? x!.dims.map((_, i) => i)).map((axis) => axisOf(axis, rank));
  const bySizes = sizes !== undefined && sizes.data.length > 0;
  const output = [...x!.dims];
  const factors = x!.dims.map(() => 1);
  axes.forEach((axis, i) => {
    const size = x!.dims[axis]!;
    output[axis] = bySizes ? sizes.data[i]! : Math.floor(Math.fround(size * scales!.data[i]!));
    factors[axis] = bySizes ? Math.fround(output[axis] / size) : scales!.data[i]!;
  });
  const mode = node.string('coordinate_transformation_mode', 'half_pixel');
  let result: NdArray = x!;
  for (const axis of axes) {
    const [size, length, scale] = [x!.dims[axis]!, output[axis]!, factors[axis]!];
    if (length === size && scale === 1) continue;
    const from = result;
    result = build(from.dims.with(axis, length), (index) =>
      samples(node, coordinate(mode, index[axis]!, size, length, scale), size).reduce(
        (sum, sample) => sum + sample.weight * at(from, index.with(axis, sample.index)),
        0,
      ),
    );
  }
  return [result];
};

const depthToSpace: ReferenceOperator = ([x], node) => {
  const [n, c, h, w] = x!.dims as [number, number, number, number];
  const b = node.int('blocksize', 1);
  const depth = c / (b * b);
  const depthFirst = node.string('mode', 'DCR') === 'DCR';
  return [
    build([n, depth, h * b, w * b], ([i, k, y, z]) => {
      const block = (y! % b) * b + (z! % b);
      const channel = depthFirst ? block * depth + k! : k! * b * b + block;
      return at(x!, [i!, channel, Math.floor(y! / b), Math.floor(z! / b)]);
    }),
  ];
};

const spaceToDepth: ReferenceOperator = ([x], node) => {
  const [n, c, h, w] = x!.dims as [number, number, number, number];
  const b = node.int('blocksize', 1);
  return [
    build([n, c * b * b, h / b, w / b], ([i, channel, y, z]) => {
      const block = Math.floor(channel! / c);
      return at(x!, [i!, channel! % c, y! * b + Math.floor(block / b), z! * b + (block % b)]);
    }),
  ];
};

export const resize: Readonly<Record<string, ReferenceOperator>> = {
  Resize: resizeOperator,
  DepthToSpace: depthToSpace,
  SpaceToDepth: spaceToDepth,
};
