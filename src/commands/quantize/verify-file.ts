/** Checks the model that is about to be written: what the engine makes of it, and that it computes what was planned. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { withTemporaryFolder } from '../../node/temporary-folder.js';
import { decodeModel } from '../../onnx/read.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { QuantizationOutcome } from '../../quantization/method.js';
import { CODEBOOK_FUNCTIONS, UNPACK_FUNCTIONS } from '../../quantization/pack.js';
import { simulate } from '../../quantization/simulate.js';
import { compareWithSimulation, countOperators, TOLERANCE } from '../../quantization/verify.js';
import type { Verification } from '../../report/report.js';
import type { ExecutionChoice } from './execution.js';
import type { PreparedStudy } from './study.js';
import type { Workspace } from '../workspace.js';

const CHECKED_SAMPLES = 8;
/** Times the error against the original that was planned, from which a written file is wrong. */
const NOISE_MARGIN = 1.25;

/**
 * @throws FlowCompressError `internal` when the outputs differ from the simulation's by more than kernels may
 */
export async function verifyFile(
  workspace: Workspace,
  study: PreparedStudy,
  outcome: QuantizationOutcome,
  choice: ExecutionChoice,
  model: ModelProto,
): Promise<Verification> {
  const { engine, fixedBatch, feedsFor } = workspace;
  const bytes = toBytes(model);
  const operators = await readBack(workspace, bytes);
  const undecoded = DECODING.reduce((sum, op) => sum + (operators[op] ?? 0), 0);
  const int8Layers = study.layers.filter((layer) => choice.int8.has(layer.output.name)).length;
  const fusedLayers = INTEGER_OPERATORS.reduce((sum, op) => sum + (operators[op] ?? 0), 0);
  const checks: NonNullable<Verification['checks']> = [
    {
      name: 'weights are decoded at load',
      passed: undecoded === 0,
      ...(undecoded > 0 && { detail: `${String(undecoded)} decoding operators are left to every run` }),
    },
  ];
  if (int8Layers > 0) {
    checks.push({
      name: 'int8 layers run on integer kernels',
      passed: fusedLayers >= int8Layers,
      detail: `${String(fusedLayers)} integer kernels for ${String(int8Layers)} layers`,
    });
  }
  const plan = choice.plan(outcome);
  if (!plan) return { fused: operators, checks };
  const simulation = simulate(study.model, plan);
  const samples = fixedBatch ?? CHECKED_SAMPLES;
  const batch = { feeds: feedsFor(samples), size: samples };
  const comparison = await compareWithSimulation(engine, bytes, simulation, batch);
  const tolerance = choice.int8.size > 0 ? TOLERANCE.int8 : TOLERANCE.float;
  if (comparison.relativeRms > tolerance) {
    // Some networks amplify every single rounding step of an int8 kernel: their file must then be no worse than planned.
    const planned = await compareWithSimulation(engine, toBytes(simulation), study.model, batch);
    const written = await compareWithSimulation(engine, bytes, study.model, batch);
    if (choice.int8.size === 0 || written.relativeRms > NOISE_MARGIN * planned.relativeRms) {
      throw new FlowCompressError(
        'internal',
        `The written file does not compute what was planned: its outputs differ from the simulation's by ${(100 * comparison.relativeRms).toFixed(1)} % (root mean square).`,
        { hint: 'Use --execution float and report this model.' },
      );
    }
    checks.push({
      name: 'outputs are as close to the original as the simulation',
      passed: true,
      detail: `relative RMS difference ${written.relativeRms.toExponential(1)}, planned ${planned.relativeRms.toExponential(1)}`,
    });
    return { maxAbsDiff: comparison.maxAbsDiff, samples, fused: operators, checks };
  }
  checks.push({
    name: 'outputs agree with the simulation',
    passed: true,
    detail: `relative RMS difference ${comparison.relativeRms.toExponential(1)}`,
  });
  return { maxAbsDiff: comparison.maxAbsDiff, samples, fused: operators, checks };
}

/** What decodes weights, as calls of functions or, in these, as operators. */
const DECODING = [...Object.values(UNPACK_FUNCTIONS), ...Object.values(CODEBOOK_FUNCTIONS), 'BitShift'];

/** Kernels that multiply integers. */
const INTEGER_OPERATORS = [
  'QLinearConv',
  'QLinearMatMul',
  'QGemm',
  'MatMulIntegerToFloat',
  'DynamicQuantizeMatMul',
  'ConvInteger',
  'MatMulInteger',
  'MatMulNBits',
];

/** Operators of the graph as the engine optimised it. */
async function readBack({ engine }: Workspace, bytes: Uint8Array): Promise<Record<string, number>> {
  return withTemporaryFolder(async (folder) => {
    const file = join(folder, 'optimized.onnx');
    const session = await engine.createSession(bytes, { optimizedModelPath: file });
    await session.release();
    return countOperators(decodeModel(await readFile(file), file));
  });
}
