/** The WebAssembly kernels of kernels/, and the memory that their arguments live in. */
import { KERNEL_BYTES } from './generated/kernel-bytes.js';

/** What kernels/index.ts exports. Arguments named as there; arrays are given by their address. */
interface Kernels {
  readonly memory: WebAssembly.Memory;
  choleskyFactor(n: number, a: number): number;
  roundBlock(
    n: number,
    upper: number,
    w: number,
    scales: number,
    codes: number,
    errors: number,
    energies: number,
    low: number,
    high: number,
    offset: number,
    levels: number,
    count: number,
  ): void;
  removeWeights(n: number, a: number, w: number, h: number, index: number, order: number, costs: number): void;
  symmetricProduct(n: number, h: number, x: number, out: number): void;
  refineBlock(
    n: number,
    h: number,
    w: number,
    scales: number,
    codes: number,
    hw: number,
    gradient: number,
    energies: number,
    low: number,
    high: number,
    offset: number,
    levels: number,
    count: number,
    rounds: number,
  ): void;
}

/** Arrays in the memory of the kernels: their `byteOffset` is the address to give. */
export interface KernelArrays {
  readonly kernels: Kernels;
  float32(length: number): Float32Array;
  float64(length: number): Float64Array;
}

const PAGE = 65536;
/** Vectors are loaded from addresses of any alignment, but fastest from these. */
const ALIGNMENT = 64;
/** Memory never shrinks: above this size it is given back by starting afresh when far less is wanted. */
const KEPT_BYTES = 64e6;

let compiled: WebAssembly.Module | undefined;
let current: Kernels | undefined;

/**
 * Memory for one computation. Arrays handed out before are no longer valid: kernels run to their end between two calls.
 * @param bytes room for all arrays, beside their alignment
 */
export function kernelArrays(bytes: number): KernelArrays {
  const needed = bytes + PAGE;
  if (current && current.memory.buffer.byteLength > KEPT_BYTES && needed < current.memory.buffer.byteLength / 4)
    current = undefined;
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(KERNEL_BYTES), (c) => c.charCodeAt(0)));
  const kernels = (current ??= new WebAssembly.Instance(compiled).exports as unknown as Kernels);
  const { memory } = kernels;
  if (memory.buffer.byteLength < needed) memory.grow(Math.ceil((needed - memory.buffer.byteLength) / PAGE));
  let next = ALIGNMENT;
  const take = (size: number): number => {
    const at = next;
    next = Math.ceil((at + size) / ALIGNMENT) * ALIGNMENT;
    return at;
  };
  return {
    kernels,
    float32: (length) => new Float32Array(memory.buffer, take(length * 4), length),
    float64: (length) => new Float64Array(memory.buffer, take(length * 8), length),
  };
}
