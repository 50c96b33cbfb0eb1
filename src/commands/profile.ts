/** `profile`: information flow, sensitivity and measured divergence of every layer; the model is not changed. */
import { flowProfile, type FlowProfile } from '../flow/profile.js';
import { nameOf, type ModelInput } from '../node/model-input.js';
import { Graph } from '../onnx/graph.js';
import { macCounter } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import type { RunControl } from '../progress.js';
import type { DivergenceModel } from '../quantization/divergence-model.js';
import { gradientNorms } from '../quantization/gradient-norms.js';
import { openKlProbe } from '../quantization/kl-probe.js';
import { measureDivergence } from '../quantization/measure-divergence.js';
import type { QuantizationSettings } from '../quantization/method.js';
import { LayerRounder } from '../quantization/rounder.js';
import { agreementWith, flowSensitivity } from '../quantization/sensitivity.js';
import { gatherStatistics } from '../quantization/statistics.js';
import { weightUnits } from '../quantization/units.js';
import type { ProfiledLayer, ProfileReport } from '../report/report.js';
import { DEFAULTS } from './options.js';
import { parseOptions } from './parse-options.js';
import { type ProfileOptions, profileOptionsSchema } from './profile-options.js';
import { QUANTIZE_DEFAULTS } from './quantize/options.js';
import { prepareStudy, quantizationContext, type PreparedStudy } from './quantize/study.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { openWorkspace } from './workspace.js';

/** Options of `profileModel`: `data` is needed, everything else has a default. */
export type ProfileInput = Pick<ProfileOptions, 'data'> & Partial<ProfileOptions>;

/** Widths that are measured when none are named. */
const WIDTHS: readonly number[] = [2, 3, 4, 6, 8];

/**
 * Profiles a model over CALIB.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, bytes, or a model
 * @throws FlowCompressError `bad-input`, `unsupported`, `io` or `aborted`
 */
export async function profileModel(input: ModelInput, options: ProfileInput): Promise<{ report: ProfileReport }> {
  const clock = startRun();
  const settings = parseOptions(profileOptionsSchema, options);
  const given: RunControl = { signal: options.signal, onProgress: options.onProgress };
  const widths = [...new Set(settings.widths ?? WIDTHS)].sort((a, b) => a - b);
  const workspace = await clock.stage('open', () => openWorkspace(input, settings, given));
  const warnings = [...workspace.notes];
  try {
    const run = await openRun('profile', workspace, settings, given);
    const finished = await finishedReport(run, 'profile');
    if (finished) return { report: finished };
    const control = logged(given, run);
    const study = await clock.stage('prepare', () => prepareStudy(workspace, control));
    warnings.push(...study.warnings);
    const { engine, working } = workspace;
    const flow = await clock.stage('flow', () =>
      flowProfile(
        engine,
        study.model,
        study.shapes,
        () => workspace.batch(working.calib),
        working.calib.size,
        {},
        control,
      ),
    );
    for (const { node, reason } of flow.untraced)
      warnings.push(`Attention at ${node} is not seen head by head: ${reason}.`);
    const { seed, sensitivityMode, gradientTerm } = settings;
    const probeSettings = { ...PROBE_SETTINGS, seed, sensitivityMode, gradientTerm };
    const context = quantizationContext(workspace, study, new Set(), probeSettings, control, (m) => warnings.push(m));
    const gradients = await clock.stage('gradients', () => gradientNorms(context));
    const measured = await clock.stage('measure divergence', async () => {
      const statistics = await gatherStatistics(context, { ranges: false, histograms: false, grams: true });
      const rounder = new LayerRounder(new Graph(study.model), statistics.grams, 'compensated');
      const batch = await context.probeBatch(PROBE_SETTINGS.probeSamples, study.layers.length * widths.length);
      const probe = await openKlProbe(engine, study.model, batch, study.shapes, workspace.scores);
      return measureDivergence(weightUnits(study.layers), rounder, probe, widths, control, run?.divergences);
    });
    const params = new Map(study.layers.map((layer) => [layer.name, layer.params]));
    const inputs = flow.layers.map((layer) => ({
      ...layer,
      params: params.get(layer.name) ?? 1,
      gradient: gradients.get(layer.name),
    }));
    const divergences = flow.layers.map((layer) => measured.get(layer.name)?.atLowestWidth);
    const agreement = agreementWith(divergences, inputs, settings);
    const notes = [...new Set(warnings)];
    const report: ProfileReport = {
      command: 'profile',
      seed: settings.seed,
      target: settings.target,
      model: nameOf(input),
      ...clock.info(engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: { widths, probeSamples: PROBE_SETTINGS.probeSamples, sensitivityMode, gradientTerm },
      before: { bytes: workspace.opened.bytes, params: parameterCount(workspace.opened.model) },
      layers: profiledLayers(study, flow, measured, flowSensitivity(inputs, settings), gradients),
      ...(agreement && { sensitivityCheck: agreement }),
    };
    await run?.finish(report);
    return { report };
  } finally {
    await workspace.close();
  }
}

const PROBE_SETTINGS: QuantizationSettings = {
  minBits: QUANTIZE_DEFAULTS.minBits,
  maxBits: QUANTIZE_DEFAULTS.maxBits,
  edgeBits: QUANTIZE_DEFAULTS.edgeBits,
  attentionBits: QUANTIZE_DEFAULTS.attentionBits,
  probeSamples: 64,
  gradientBits: QUANTIZE_DEFAULTS.gradientBits,
  sensitivity: 'measured',
  sensitivityMode: DEFAULTS.sensitivityMode,
  gradientTerm: DEFAULTS.gradientTerm,
  rounding: 'compensated',
  formats: ['uniform'],
  seed: 0,
};

function profiledLayers(
  study: PreparedStudy,
  flow: FlowProfile,
  measured: ReadonlyMap<string, DivergenceModel>,
  sensitivity: readonly number[],
  gradients: ReadonlyMap<string, number>,
): ProfiledLayer[] {
  const graph = new Graph(study.model);
  const counter = macCounter(graph, study.shapes, study.rows);
  const byName = new Map(study.layers.map((layer) => [layer.name, layer]));
  return flow.layers.map((layer, i): ProfiledLayer => {
    const weight = byName.get(layer.name);
    const macs = weight && counter.ofNode(weight.node);
    const kl = measured.get(layer.name)?.measured;
    const gradient = gradients.get(layer.name);
    return {
      name: layer.name,
      op: layer.op,
      ...(weight && { params: weight.params, bytes: weight.params * 4 }),
      ...(macs !== undefined && { macs: Math.round(macs) }),
      sensitivity: sensitivity[i]!,
      flow: layer.flow,
      ...(gradient !== undefined && { gradient }),
      ...(layer.flowChange !== undefined && { flowChange: layer.flowChange }),
      ...(kl && { kl: { ...kl } }),
      depth: layer.depth,
    };
  });
}
