/** The list of all architectures. A new one is a file of its own and one line here. */
import type { Architecture } from './architecture.js';
import { BERTS } from './bert.js';
import { CONVNEXT_T } from './convnext.js';
import { DCGANS } from './dcgan.js';
import { DENSENET_121 } from './densenet.js';
import { EFFICIENTNET_B0 } from './efficientnet.js';
import { GPTS } from './gpt.js';
import { INCEPTION_V3 } from './inception.js';
import { LENETS } from './lenet.js';
import { MOBILENETS } from './mobilenet.js';
import { RESNETS } from './resnet.js';
import { SHUFFLENET_V2 } from './shufflenet.js';
import { SIMPLE_CNN } from './simple-cnn.js';
import { SWIN_T } from './swin.js';
import { UNET } from './unet.js';
import { VAES } from './vae.js';
import { VGGS } from './vgg.js';
import { VITS } from './vit.js';

export const ARCHITECTURES: readonly Architecture[] = [
  ...LENETS,
  SIMPLE_CNN,
  ...RESNETS,
  ...VGGS,
  DENSENET_121,
  ...MOBILENETS,
  EFFICIENTNET_B0,
  SHUFFLENET_V2,
  CONVNEXT_T,
  INCEPTION_V3,
  ...VITS,
  SWIN_T,
  ...BERTS,
  ...GPTS,
  UNET,
  ...DCGANS,
  ...VAES,
];

export function findArchitecture(name: string): Architecture | undefined {
  return ARCHITECTURES.find((architecture) => architecture.name === name.toLowerCase());
}
