/** The models of the accuracy figures, their peers, and what the files should reach. */
import type { PeerJob } from './peers.js';

export interface Target {
  /** Fraction of the test images, at least. */
  readonly top1: number;
  /** Bytes of the whole file, at most. */
  readonly bytes: number;
}

export interface FigureModel {
  readonly name: string;
  /** Below the folder of real models. */
  readonly model: string;
  /** By average width in bits. */
  readonly targets: Readonly<Record<string, Target>>;
  readonly peers: readonly (Pick<PeerJob, 'method' | 'preprocess' | 'transformer'> & { readonly label: string })[];
}

const STATIC = [
  { method: 'ort-static-minmax', label: 'onnxruntime static, min-max' },
  { method: 'ort-static-entropy', label: 'onnxruntime static, entropy' },
] as const;

/** Average widths that are shown. */
export const WIDTHS = [8, 4, 3, 2.5] as const;

export const FIGURE_MODELS: readonly FigureModel[] = [
  {
    name: 'resnet20',
    model: 'resnet-cifar10/resnet20.onnx',
    targets: {
      8: { top1: 0.9165, bytes: 305_000 },
      4: { top1: 0.9155, bytes: 175_000 },
      3: { top1: 0.911, bytes: 143_000 },
      2.5: { top1: 0.89, bytes: 125_000 },
    },
    peers: [...STATIC, { method: 'ort-dynamic', label: 'onnxruntime dynamic' }, { method: 'nncf', label: 'NNCF' }],
  },
  {
    name: 'resnet56',
    model: 'resnet-cifar10/resnet56.onnx',
    targets: {
      8: { top1: 0.9335, bytes: 940_000 },
      4: { top1: 0.932, bytes: 530_000 },
      3: { top1: 0.928, bytes: 420_000 },
      2.5: { top1: 0.91, bytes: 370_000 },
    },
    peers: [...STATIC, { method: 'ort-dynamic', label: 'onnxruntime dynamic' }, { method: 'nncf', label: 'NNCF' }],
  },
  {
    name: 'cifar-vit',
    model: 'cifar-vit/cifar-vit.onnx',
    targets: { 4: { top1: 0.764, bytes: 390_000 }, 3: { top1: 0.758, bytes: 315_000 } },
    peers: [
      ...STATIC.map((peer) => ({ ...peer, preprocess: 'optimize' as const })),
      { method: 'ort-dynamic', label: 'onnxruntime dynamic', preprocess: 'optimize' },
      { method: 'ort-matmul-nbits', label: 'onnxruntime MatMulNBits, 4 bits' },
      { method: 'nncf', label: 'NNCF', transformer: true },
    ],
  },
];
