/** The public face of the package on Node: the commands as functions, and the parts they are made of. */

// Commands: each takes a model (a path, bytes or a ModelProto) and options and returns a report.
export type { ModelInput } from './node/model-input.js';
export { inspectModel, inspectModel as inspect } from './commands/inspect.js';
export { evaluateModels, evaluateModels as evaluate, type EvaluateInput } from './commands/evaluate.js';
export { profileModel, profileModel as profile, type ProfileInput } from './commands/profile.js';
export { quantizeModel, quantizeModel as quantize, type QuantizeInput } from './commands/quantize/quantize.js';
export { pruneModel, pruneModel as prune, type PruneInput } from './commands/prune/prune.js';
export { compressModel, compressModel as compress, type CompressInput } from './commands/compress/compress.js';
export type { CompressOptions } from './commands/compress/options.js';
export { distillModel, distillModel as distill, type DistillInput } from './commands/distill/distill.js';
export { trainModel, trainModel as train, type TrainInput } from './commands/train/train.js';
export { DEFAULTS, type DataOptions } from './commands/options.js';
export type { InspectOptions } from './commands/inspect-options.js';
export type { EvaluateOptions } from './commands/evaluate-options.js';
export type { ProfileOptions } from './commands/profile-options.js';
export { QUANTIZATION_METHODS, QUANTIZE_DEFAULTS, type QuantizeOptions } from './commands/quantize/options.js';
export type { PruneOptions } from './commands/prune/options.js';
export type { TrainOptions } from './commands/train/options.js';
export type { DistillOptions } from './commands/distill/options.js';

// Errors and progress.
export { FlowCompressError, type ErrorCode, type ErrorDetails } from './errors.js';
export type { OnProgress, ProgressEvent, RunControl } from './progress.js';

// Reports: types, reading back, and rendering.
export { parseReport } from './report/report.js';
export type {
  CompressReport,
  DataSummary,
  DistillReport,
  EvaluateReport,
  Fidelity,
  InspectReport,
  Latency,
  Measurement,
  Metric,
  ProfileReport,
  PruneReport,
  QuantizedLayer,
  QuantizeReport,
  Report,
  Target,
  TrainReport,
} from './report/report.js';
export { reportToHtml } from './report/html.js';
export { reportToJson } from './report/json.js';
export { reportToMarkdown } from './report/markdown.js';
export { reportToTable } from './report/table.js';

// Model files.
export { gzipBytes, modelBytes, openModel, saveModel } from './node/model-file.js';
export type { OpenedModel, SavedModel, SaveOptions } from './node/model-file.js';
export { decodeModel } from './onnx/read.js';
export { toBytes } from './onnx/to-bytes.js';
export { validateModel } from './onnx/validate.js';

// Graphs: reading and rewriting models.
export { Graph, rewrite } from './onnx/graph.js';
export type { Node, NodeSpec, Use, Value } from './onnx/graph.js';
export { findLayers, type LayerOp, type WeightLayer } from './onnx/layers.js';
export { macCounter, modelMacs, type MacCounter, type Shapes } from './onnx/macs.js';
export { parameterCount } from './onnx/parameters.js';
export { makeTensor, readFloats, readInts, readTensor } from './onnx/tensor.js';
export { DataType } from './onnx/dtypes.js';

// Units that can be removed from a model, and their removal.
export { prunableModel, type PrunableModel } from './commands/prune/removable.js';
export { dependencyGroups } from './pruning/groups.js';
export type {
  Dependencies,
  DependencyGroup,
  FixedUnits,
  GroupKind,
  GroupMember,
  MemberRole,
} from './pruning/groups.js';
export { selectUnits, type GroupSelection, type Selection } from './pruning/selection.js';
export { cutUnits, maskedModel } from './pruning/cut.js';
export { checkCut } from './pruning/check-cut.js';

// Inference, accuracy and latency.
export { nodeEngine } from './node/onnxruntime.js';
export type { Engine, Feeds, HostTensor, HostType, Session, SessionOptions, ValueSignature } from './runtime/engine.js';
export { measureLatency, type LatencyOptions, type LatencyResult, type TimedSession } from './runtime/latency.js';
export { evaluateSession, evaluateSessions } from './runtime/metric.js';
export type { Evaluation, EvaluationOptions, MetricValue, Subject } from './runtime/metric.js';
export { measureFidelity, type FidelityRequest } from './distillation/fidelity.js';
export { traceDims, traceShapes, traceValues, type TracedValue, type TracedValues } from './runtime/trace.js';

// Data.
export { openDataset } from './node/data/open.js';
export { readPreprocessFile } from './node/data/preprocess-file.js';
export { batches, type BatchOptions } from './data/loader.js';
export { makeSplits, type SplitOptions, type Splits, type WorkingSplits } from './data/splits.js';
export { openTest, type SealedTest } from './data/sealed-test.js';
export { writeNpz } from './data/npz-write.js';
export type { Batch, Dataset, OpenedData } from './data/dataset.js';
export { parsePreprocessOptions, type PreprocessOptions } from './data/preprocess.js';
export { noisedInputs, parseSchedule, type NoisedInputs, type NoiseSchedule } from './data/noised.js';

// Samples of models that make them.
export { decoderOf, drawByDiffusion, drawFromNoise, type DrawOptions } from './generation/samples.js';
export { frechetDistance, gaussianOf, type Gaussian } from './generation/frechet.js';
