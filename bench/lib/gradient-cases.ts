/** Real models whose gradients are checked, with made-up inputs in the range that each expects. */

export interface GradientCase {
  readonly name: string;
  /** Below the folder of real models. */
  readonly model: string;
  readonly batch: number;
  /** Float inputs are drawn evenly between these two numbers, or normal where they are left out. */
  readonly range?: readonly [number, number];
  /** Integer inputs are drawn from 0 to one below this. */
  readonly below?: number;
  /** The output with class scores, for the cross-entropy; all float outputs are projected otherwise. */
  readonly scores?: string;
  /** How many directions the parameters are moved along, tensors that follow each other together; one per tensor by default. */
  readonly groups?: number;
  /** Whether its batch normalization is also checked with the statistics of the batch. */
  readonly batchStatistics?: boolean;
}

export const GRADIENT_CASES: readonly GradientCase[] = [
  { name: 'resnet20', model: 'resnet-cifar10/resnet20.onnx', batch: 2, scores: 'logits', batchStatistics: true },
  { name: 'resnet56', model: 'resnet-cifar10/resnet56.onnx', batch: 2, scores: 'logits', batchStatistics: true },
  {
    ...{ name: 'resnet8', model: 'mlperf-tiny/resnet8_cifar10.onnx', batch: 2 },
    ...{ range: [0, 255], scores: 'output' },
  },
  {
    ...{ name: 'mobilenet-vww', model: 'mlperf-tiny/vww96_mobilenetv1_025.onnx', batch: 2 },
    ...{ range: [0, 1], scores: 'output' },
  },
  { name: 'autoencoder', model: 'mlperf-tiny/ad01_autoencoder.onnx', batch: 2 },
  { name: 'squeezenet1.1', model: 'squeezenet1.1/squeezenet1.1.onnx', batch: 1, scores: 'logits' },
  {
    ...{ name: 'mobilenet-v1-0.75', model: 'mobilenet_v1_0.75/mobilenet_v1_0.75_224.onnx', batch: 2 },
    ...{ range: [-1, 1], scores: 'logits', groups: 6, batchStatistics: true },
  },
  { name: 'cifar-vit', model: 'cifar-vit/cifar-vit.onnx', batch: 2, scores: 'logits' },
  {
    ...{ name: 'espnet', model: 'espnet-camvid/espnet_p2q8_camvid.onnx', batch: 1 },
    ...{ range: [-0.006, 0.008], groups: 4, batchStatistics: true },
  },
  { name: 'fastestdet', model: 'fastestdet/FastestDet.onnx', batch: 1, range: [0, 1], groups: 12 },
  { name: 'lenet', model: 'mnist-generative/lenet5_mnist.onnx', batch: 2, range: [0, 1] },
  { name: 'vae', model: 'mnist-generative/mnist_vae.onnx', batch: 2, range: [0, 1] },
  { name: 'vae-decoder', model: 'mnist-generative/mnist_vae_decoder.onnx', batch: 2 },
  { name: 'gan-generator', model: 'mnist-generative/mnist_gan_mlp_G.onnx', batch: 2 },
  { name: 'ddpm', model: 'mnist-generative/ddpm_mnist_eps.onnx', batch: 2 },
  { name: 'magika', model: 'magika/model.onnx', batch: 2, below: 257, scores: 'target_label' },
];
