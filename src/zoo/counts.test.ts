/**
 * Parameters and multiply-accumulates against the published numbers. Counted are learned numbers, as torchvision and timm
 * count: scales and shifts of BatchNormalization are parameters, its running statistics are not.
 */
import { describe, expect, it } from 'vitest';
import { parameterCount } from '../onnx/parameters.js';
import { countNetwork } from './build.js';
import { Net } from './net.js';
import { resolveSettings, type ZooOptions } from './options.js';
import { ARCHITECTURES, findArchitecture } from './registry.js';

const counts = (name: string, options: ZooOptions = {}): ReturnType<typeof countNetwork> =>
  countNetwork(findArchitecture(name)!, options);

describe('parameters', () => {
  it.each<[string, number, string]>([
    ['resnet18', 11_689_512, 'torchvision'],
    ['resnet34', 21_797_672, 'torchvision'],
    ['resnet50', 25_557_032, 'torchvision'],
    ['resnet101', 44_549_160, 'torchvision'],
    ['resnet152', 60_192_808, 'torchvision'],
    ['vgg11', 132_863_336, 'torchvision'],
    ['vgg11-bn', 132_868_840, 'torchvision'],
    ['vgg13', 133_047_848, 'torchvision'],
    ['vgg13-bn', 133_053_736, 'torchvision'],
    ['vgg16', 138_357_544, 'torchvision'],
    ['vgg16-bn', 138_365_992, 'torchvision'],
    ['vgg19', 143_667_240, 'torchvision'],
    ['vgg19-bn', 143_678_248, 'torchvision'],
    ['densenet121', 7_978_856, 'torchvision'],
    ['mobilenet-v2', 3_504_872, 'torchvision'],
    ['mobilenet-v3-small', 2_542_856, 'torchvision'],
    ['mobilenet-v3-large', 5_483_032, 'torchvision'],
    ['efficientnet-b0', 5_288_548, 'torchvision'],
    ['shufflenet-v2', 2_278_604, 'torchvision'],
    ['convnext-t', 28_589_128, 'torchvision'],
    ['vit-ti', 5_717_416, 'timm'],
    ['vit-s', 22_050_664, 'timm'],
    ['vit-b', 86_567_656, 'torchvision'],
    ['swin-t', 28_288_354, 'torchvision'],
    // With the auxiliary head, which is not built here, 27,161,264.
    ['inception-v3', 27_161_264 - 3_326_696, 'torchvision'],
    // 32 x 32 inputs, C3 connected to all maps of S2, pooling without coefficients (the paper's 60,000 differ in all three).
    ['lenet5', 61_706, 'the usual LeNet-5'],
    // Option A; the paper rounds to 0.27, 0.46, 0.66, 0.85 and 1.7 million.
    ['resnet20', 269_722, 'the paper, table 6'],
    ['resnet32', 464_154, 'the paper, table 6'],
    ['resnet44', 658_586, 'the paper, table 6'],
    ['resnet56', 853_018, 'the paper, table 6'],
    ['resnet110', 1_727_962, 'the paper, table 6'],
    // Two token types of 768 (tiny: 128) less than the original, and a head of two classes more.
    ['bert-base', 109_482_240 - 2 * 768 + 2 * 769, 'bert-base-uncased'],
    ['bert-tiny', 4_385_920 - 2 * 128 + 2 * 129, 'google/bert_uncased_L-2_H-128_A-2'],
    // The head is the embedding table.
    ['gpt2', 124_439_808, 'gpt2'],
    ['dcgan-generator', 3_576_704, "PyTorch's DCGAN tutorial"],
    ['dcgan-discriminator', 2_765_568, "PyTorch's DCGAN tutorial"],
  ])('%s has %i, as %s', (name, params) => {
    expect(counts(name).params).toBe(params);
  });

  it.each<[string, ZooOptions, number]>([
    // chenyaofo/pytorch-cifar-models has 1x1 convolutions in the shortcuts.
    ['resnet20', { shortcut: 'conv' }, 272_474],
    ['resnet56', { shortcut: 'conv' }, 855_770],
    // demo/fashion-resnet.onnx, whose batch normalizations are kept.
    ['resnet14', { shortcut: 'conv', channels: 1, inputSize: 28 }, 174_970],
    // mateuszbuda/brain-segmentation-pytorch: 32 features, one class.
    ['unet', { width: 0.5, classes: 1 }, 7_763_041],
    // milesial/Pytorch-UNet: 64 features, one class.
    ['unet', { classes: 1 }, 31_037_633],
    // torchvision's mobilenet_v2(width_mult=0.5).
    ['mobilenet-v2', { width: 0.5 }, 1_968_680],
    // One encoder and one decoder of PyTorch's VAE example, 652,824 together.
    ['vae-encoder', {}, 652_824 - 322_784],
    ['vit-b', { patchSize: 32 }, 88_224_232],
  ])('%s with %j has %i', (name, options, params) => {
    expect(counts(name, options).params).toBe(params);
  });

  it('are the ones that the file has', () => {
    for (const architecture of ARCHITECTURES) {
      const net = new Net({ seed: 0, hollow: true });
      architecture.build(net, resolveSettings(architecture, {}));
      expect([architecture.name, parameterCount(net.toModel())]).toEqual([architecture.name, net.parameters]);
    }
  });
});

describe('multiply-accumulates', () => {
  it.each<[string, number]>([
    ['resnet20', 40.6e6],
    ['resnet56', 125.5e6],
    ['resnet18', 1.814e9],
    ['resnet50', 4.089e9],
    ['vgg16', 15.47e9],
    ['densenet121', 2.834e9],
    ['mobilenet-v2', 301e6],
    ['mobilenet-v3-small', 57e6],
    ['mobilenet-v3-large', 217e6],
    ['efficientnet-b0', 386e6],
    ['shufflenet-v2', 145e6],
    ['convnext-t', 4.456e9],
    ['inception-v3', 5.713e9],
    ['swin-t', 4.491e9],
    ['vit-b', 17.56e9],
  ])('%s has about %i', (name, macs) => {
    expect(Math.abs(counts(name).macs / macs - 1)).toBeLessThan(0.01);
  });
});
