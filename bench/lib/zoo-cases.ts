/** Real models of many kinds, each with the data and the preprocessing that it expects. */
import { join } from 'node:path';
import type { Places } from './places.js';
import { byteSequences, croppedImages, digits, noised, normals, resizeSquares, saveArrays } from './zoo-data.js';

/** Flags of `--data`, `--test` and the preprocessing. */
export type DataFlags = readonly string[];

export interface ZooCase {
  readonly name: string;
  /** Below the folder of real models. */
  readonly model: string;
  /** Calibration samples; few for models with large inputs. */
  readonly samples: number;
  /** Makes or names the data. `folder` is temporary. Undefined where the data is not there. */
  readonly data: (places: { assets: string; cifar: Places['cifar']; folder: string }) => Promise<DataFlags | undefined>;
}

const COCO = 'coco-val128/images';
const IMAGENET_STATISTICS = ['--mean', '0.485,0.456,0.406', '--std', '0.229,0.224,0.225'];
/** x / 127.5 - 1. */
const SYMMETRIC = ['--mean', '0.5', '--std', '0.5'];

const folderOf =
  (path: string, ...flags: string[]): ZooCase['data'] =>
  ({ assets }) =>
    Promise.resolve(['--data', join(assets, path), ...flags]);

const cifar =
  (...flags: string[]): ZooCase['data'] =>
  ({ cifar: files }) =>
    // The smaller file: a tenth of it is the test, which is enough to see what broke.
    Promise.resolve(files && ['--data', files.test, ...flags]);

const imagenet =
  (...flags: string[]): ZooCase['data'] =>
  async ({ assets, folder }) => {
    const arrays = await croppedImages(join(assets, 'imagenet-sample-256'), 224, 200);
    return ['--data', saveArrays(folder, 'imagenet', { ...arrays }), ...flags];
  };

const vaeDecoder = 'mnist-generative/mnist_vae_decoder.onnx';
const digitImages = ({ assets }: { assets: string }): Promise<Float32Array> => digits(join(assets, vaeDecoder), 512);

export const ZOO: readonly ZooCase[] = [
  { name: 'resnet20', model: 'resnet-cifar10/resnet20.onnx', samples: 256, data: cifar(...IMAGENET_STATISTICS) },
  { name: 'resnet56', model: 'resnet-cifar10/resnet56.onnx', samples: 256, data: cifar(...IMAGENET_STATISTICS) },
  { name: 'cifar-vit', model: 'cifar-vit/cifar-vit.onnx', samples: 256, data: cifar(...IMAGENET_STATISTICS) },
  { name: 'resnet8', model: 'mlperf-tiny/resnet8_cifar10.onnx', samples: 256, data: cifar('--scale', 'none') },
  {
    name: 'mobilenet-vww',
    model: 'mlperf-tiny/vww96_mobilenetv1_025.onnx',
    samples: 64,
    data: folderOf(COCO, '--size', '96x96', '--scale', '1/255'),
  },
  {
    name: 'autoencoder',
    model: 'mlperf-tiny/ad01_autoencoder.onnx',
    samples: 256,
    data: ({ folder }) => Promise.resolve(['--data', saveArrays(folder, 'frames', { input: normals([640, 640], 1) })]),
  },
  {
    name: 'squeezenet1.1',
    model: 'squeezenet1.1/squeezenet1.1.onnx',
    samples: 64,
    data: imagenet(...IMAGENET_STATISTICS),
  },
  {
    name: 'mobilenet-v1-0.75',
    model: 'mobilenet_v1_0.75/mobilenet_v1_0.75_224.onnx',
    samples: 64,
    data: imagenet(...SYMMETRIC),
  },
  {
    name: 'fastestdet',
    model: 'fastestdet/FastestDet.onnx',
    samples: 64,
    data: folderOf(COCO, '--size', '352x352', '--color', 'bgr', '--scale', '1/255'),
  },
  {
    name: 'espnet',
    model: 'espnet-camvid/espnet_p2q8_camvid.onnx',
    samples: 16,
    // Means and deviations of the data set in pixel units, then one more division by 255; blue first.
    data: folderOf(
      'camvid/val',
      ...['--size', '360x480', '--color', 'bgr', '--scale', 'none'],
      ...['--mean', '110.331,108.409,105.033', '--std', '18392.13,18537.70,17827.10'],
    ),
  },
  {
    name: 'lenet',
    model: 'mnist-generative/lenet5_mnist.onnx',
    samples: 256,
    data: async (places) => {
      const image = resizeSquares(await digitImages(places), 28, 32);
      return ['--data', saveArrays(places.folder, 'lenet', { image })];
    },
  },
  {
    name: 'vae',
    model: 'mnist-generative/mnist_vae.onnx',
    samples: 256,
    data: async (places) => {
      const data = await digitImages(places);
      const image = { type: 'float32' as const, dims: [data.length / 784, 784], data };
      return ['--data', saveArrays(places.folder, 'vae', { image })];
    },
  },
  {
    name: 'vae-decoder',
    model: vaeDecoder,
    samples: 256,
    data: ({ folder }) => Promise.resolve(['--data', saveArrays(folder, 'z20', { z: normals([512, 20], 1) })]),
  },
  {
    name: 'gan-generator',
    model: 'mnist-generative/mnist_gan_mlp_G.onnx',
    samples: 256,
    data: ({ folder }) => Promise.resolve(['--data', saveArrays(folder, 'z64', { z: normals([512, 64], 1) })]),
  },
  {
    name: 'ddpm',
    model: 'mnist-generative/ddpm_mnist_eps.onnx',
    samples: 128,
    data: async (places) => {
      const arrays = noised(await digitImages(places));
      return ['--data', saveArrays(places.folder, 'ddpm', { ...arrays })];
    },
  },
  {
    name: 'magika',
    model: 'magika/model.onnx',
    samples: 64,
    data: ({ assets, folder }) => {
      const home = join(assets, 'magika');
      const { bytes, labels } = byteSequences(join(home, 'tests_data'), join(home, 'config.min.json'));
      return Promise.resolve(['--data', saveArrays(folder, 'magika', { bytes, labels })]);
    },
  },
  {
    name: 'style-starry-night',
    model: 'fast-style/starry-night.onnx',
    samples: 8,
    data: folderOf(COCO, '--size', '540x540', '--scale', 'none'),
  },
  {
    name: 'style-wheatfield',
    model: 'fast-style/wheatfield_with_crows.onnx',
    samples: 8,
    data: folderOf(COCO, '--size', '540x540', '--scale', 'none'),
  },
  {
    name: 'espcn-x3',
    model: 'espcn-x3/espcn_x3.onnx',
    samples: 16,
    data: folderOf('superres-set5-set14/Set14', '--size', '128', '--crop', '96', '--color', 'gray'),
  },
  {
    name: 'portrait-sinet',
    model: 'portrait-seg/SINet.onnx',
    samples: 16,
    data: folderOf(COCO, '--size', '320x320', '--color', 'bgr'),
  },
  {
    name: 'portrait-prisma',
    model: 'portrait-seg/prisma_nchw.onnx',
    samples: 16,
    data: folderOf(COCO, '--size', '256x256'),
  },
  {
    name: 'portrait-deeplab',
    model: 'portrait-seg/deeplab_dm05.onnx',
    samples: 8,
    data: folderOf(COCO, '--size', '513x513', ...SYMMETRIC),
  },
];
