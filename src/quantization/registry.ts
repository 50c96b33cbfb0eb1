/** Every quantization method by name, FAAQ first. A new method is one file and one line here. */
import { dynamicInt8 } from './baselines/dynamic-int8.js';
import { haqLite } from './baselines/haq-lite.js';
import { hawq } from './baselines/hawq.js';
import { int8Qat, staticInt8 } from './baselines/static-int8.js';
import { uniform } from './baselines/uniform.js';
import { faaq } from './faaq.js';
import type { QuantizationMethod } from './method.js';

export const QUANTIZATION_METHODS: readonly QuantizationMethod[] = [
  faaq,
  hawq,
  haqLite,
  uniform,
  staticInt8,
  int8Qat,
  dynamicInt8,
];

export function findMethod(name: string): QuantizationMethod | undefined {
  return QUANTIZATION_METHODS.find((method) => method.name === name);
}
