/** What is known about deployment targets before anything is measured on the machine at hand. */

export type TargetName = 'cpu' | 'wasm' | 'webgpu';

/** Classes of operators whose int8 and float kernels compare differently. */
export type OperatorClass =
  | 'conv'
  | 'pointwise-conv'
  /** Fewer than 16 input or output channels. */
  | 'small-conv'
  | 'grouped-conv'
  | 'depthwise-conv'
  | 'matmul'
  /** Fewer than 4 rows. */
  | 'matvec'
  | 'elementwise'
  | 'pool'
  | 'move';

/** Speed of a target's kernels. Times are in microseconds. */
export interface KernelTable {
  /** Time of a call, whatever its size. */
  readonly perCall: number;
  /** Float work per microsecond: multiply-accumulates of operators with weights, output elements of the others. */
  readonly floatRate: Readonly<Record<OperatorClass, number>>;
  /** Time of the int8 kernel as a multiple of the float kernel's. */
  readonly int8Time: Readonly<Record<OperatorClass, number>>;
  /** Conversion of a tensor between float and uint8; `imageRate` with the change of layout that images need. Elements per microsecond. */
  readonly border: { readonly perCall: number; readonly rate: number; readonly imageRate: number };
}

export interface Target {
  readonly name: TargetName;
  /** Absent where no int8 kernel is worth its borders: everything runs in float, from packed weights. */
  readonly int8?: KernelTable;
}

/**
 * Defaults. cpu: measured with onnxruntime 1.30 on one core with AVX-512 VNNI (image classifiers of 16 to 1024 channels, a
 * small transformer, 2048-wide layers; grouped convolutions are a guess). wasm: anchored at three measurements of
 * onnxruntime-web's SIMD build (a 3x3 convolution 10.6 to 5.0 ms, a MatMul of 128 rows 45 to 19 ms, one row faster in
 * float), the rest in the proportions of cpu. They stand in where a machine has not been measured; where the engine
 * at hand allows it, what ships is chosen by timing whole files.
 */
export const TARGETS: Readonly<Record<TargetName, Target>> = {
  cpu: {
    name: 'cpu',
    int8: {
      perCall: 3,
      floatRate: {
        conv: 50_000,
        'pointwise-conv': 45_000,
        'small-conv': 16_000,
        'grouped-conv': 15_000,
        'depthwise-conv': 8_000,
        matmul: 50_000,
        matvec: 3_600,
        elementwise: 5_000,
        pool: 900,
        move: 2_500,
      },
      int8Time: {
        conv: 0.45,
        'pointwise-conv': 0.25,
        'small-conv': 1.3,
        'grouped-conv': 1,
        'depthwise-conv': 0.75,
        matmul: 0.45,
        matvec: 0.3,
        elementwise: 1,
        pool: 0.5,
        move: 0.4,
      },
      border: { perCall: 5, rate: 4_000, imageRate: 1_600 },
    },
  },
  wasm: {
    name: 'wasm',
    int8: {
      perCall: 5,
      floatRate: {
        conv: 6_000,
        'pointwise-conv': 6_000,
        'small-conv': 4_000,
        'grouped-conv': 3_000,
        'depthwise-conv': 1_500,
        matmul: 12_000,
        matvec: 2_500,
        elementwise: 400,
        pool: 400,
        move: 600,
      },
      int8Time: {
        conv: 0.5,
        'pointwise-conv': 0.5,
        'small-conv': 0.7,
        'grouped-conv': 1,
        'depthwise-conv': 1.6,
        matmul: 0.45,
        matvec: 1.3,
        elementwise: 1,
        pool: 0.7,
        move: 0.4,
      },
      border: { perCall: 5, rate: 500, imageRate: 250 },
    },
  },
  webgpu: { name: 'webgpu' },
};
