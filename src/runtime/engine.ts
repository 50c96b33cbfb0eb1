/**
 * What the library needs from an inference engine. `src/node/` implements it on onnxruntime-node; a browser build can
 * implement it on onnxruntime-web. Nothing here imports a platform.
 */

/** Element types that travel between JavaScript and the engine. */
export type HostType =
  | 'float32'
  | 'float64'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'bool'
  | 'float16';

export type HostData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** A dense tensor in JavaScript memory: row-major `data` of product(dims) elements (bool as 0/1 in a Uint8Array, float16 as bits in a Uint16Array). */
export interface HostTensor {
  readonly type: HostType;
  readonly dims: readonly number[];
  readonly data: HostData;
}

export type Feeds = Record<string, HostTensor>;

/** Name, element type and shape of a model input or output; -1 or a symbol stands for a dynamic dimension. */
export interface ValueSignature {
  readonly name: string;
  readonly type: HostType;
  readonly dims: readonly (number | string)[];
}

export interface SessionOptions {
  /** Intra-op threads; the engine's own default when absent. */
  threads?: number;
  /** Level of graph optimisation; 'all' is what deployments use. */
  optimization?: 'disabled' | 'basic' | 'extended' | 'all';
  /** File to which the engine writes its optimised graph (native engines only). */
  optimizedModelPath?: string;
  /**
   * Lay out the memory of a whole run as one block, by what the first run has shown (the engine's default). Without it values of
   * graphs with long lives, as in training, take half as much.
   */
  memoryPattern?: boolean;
  /** Free-form engine keys such as `session.x64quantprecision`. */
  config?: Record<string, string>;
}

export interface Session {
  readonly inputs: readonly ValueSignature[];
  readonly outputs: readonly ValueSignature[];
  /** Runs the graph once. Only the outputs named in `fetch` are returned (all of them by default). */
  run(feeds: Feeds, fetch?: readonly string[]): Promise<Record<string, HostTensor>>;
  /** Frees the native memory; the session must not be used afterwards. */
  release(): Promise<void>;
}

export interface Engine {
  /** Name of the execution provider, as reports print it. */
  readonly provider: 'cpu' | 'wasm' | 'webgpu';
  /** Engine and version, for example `onnxruntime-node 1.30.0`. */
  readonly version: string;
  /**
   * Compiles a model. `model` is a path (native engines; needed for external data) or the bytes of a ModelProto.
   * @throws FlowCompressError `bad-input` with the engine's own message when the model is rejected.
   */
  createSession(model: string | Uint8Array, options?: SessionOptions): Promise<Session>;
}
