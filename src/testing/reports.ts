/** Minimal reports for the tests of tables, pages and the command line. */
import type {
  BenchReport,
  CompressReport,
  DistillationPoint,
  DistillReport,
  EvaluateReport,
  Fidelity,
  FlowPoint,
  InspectReport,
  MappedLayer,
  Metric,
  ProfileReport,
  PrunedLayer,
  PruneReport,
  PruningStep,
  QuantizedLayer,
  QuantizeReport,
  RecoverySummary,
  Statistic,
  TrainingPoint,
  TrainReport,
} from '../report/report.js';

export function top1(value: number): Metric {
  return { name: 'top1', value, split: 'test', samples: 1000 };
}

export function quantizedLayers(count: number): QuantizedLayer[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `/block${i}/conv/Conv`,
    op: 'Conv',
    bits: 2 + (i % 7),
    execution: i % 5 === 4 ? 'float' : 'int8',
    bytes: 100 + i,
    bytesBefore: 400 + 4 * i,
    params: 100 + i,
    sensitivity: 1 / (i + 1),
    flow: 1 + i,
    flowChange: 0.5,
    kl: { '2': 0.1 / (i + 1), '4': 0.01 / (i + 1), '8': 0 },
    depth: count === 1 ? 0 : i / (count - 1),
  }));
}

export function quantizeReport(overrides: Partial<QuantizeReport> = {}): QuantizeReport {
  return {
    command: 'quantize',
    method: 'faaq',
    seed: 7,
    target: 'cpu',
    model: 'in.onnx',
    output: 'out.onnx',
    before: {
      bytes: 1_000_000,
      gzipBytes: 900_000,
      params: 250_000,
      macs: 40_000_000,
      metric: top1(0.9173),
      latency: { medianMs: 2, p90Ms: 2.2, batch: 1, threads: 2, provider: 'cpu' },
    },
    after: {
      bytes: 125_000,
      gzipBytes: 120_000,
      params: 250_000,
      macs: 40_000_000,
      metric: top1(0.9123),
      latency: { medianMs: 1, p90Ms: 1.2, batch: 1, threads: 2, provider: 'cpu' },
    },
    layers: quantizedLayers(3),
    sweep: [
      { bits: 2, bytes: 90_000, metric: top1(0.31) },
      { bits: 4, bytes: 125_000, metric: top1(0.9123) },
    ],
    seconds: 12.3,
    ...overrides,
  };
}

/** Ten evaluations, the ninth of which was the best. */
export function recoverySummary(overrides: Partial<RecoverySummary> = {}): RecoverySummary {
  const points = Array.from({ length: 10 }, (_, i) => ({
    ...{ step: 30 * (i + 1), loss: 0.06 - 0.003 * i, divergence: i === 9 ? 0.022 : 0.04 - 0.0025 * i },
    ...{ top1: 0.98 + 0.001 * i, learningRate: 3e-3 * (1 - i / 10), seconds: 20 * (i + 1) },
  }));
  return {
    ...{ steps: 300, seconds: 200, parameters: 270_000, measure: 'kl', bestStep: 270, points },
    ...{ before: { divergence: 0.0437, top1: 0.9788 }, after: { divergence: 0.02, top1: 0.988 } },
    ...overrides,
  };
}

/** Convs of a network that widens with its depth; every fifth is left whole and every seventh went with its branch. */
export function prunedLayers(count: number): PrunedLayer[] {
  return Array.from({ length: count }, (_, i) => {
    const width = 16 * 2 ** Math.floor((4 * i) / count);
    const left = i % 7 === 6 ? 0 : i % 5 === 4 ? width : Math.ceil(width * (0.4 + 0.05 * (i % 4)));
    return {
      name: `/block${i}/conv/Conv`,
      op: 'Conv',
      channels: { before: width, after: left },
      params: { before: 144 * width, after: 100 * left },
      macs: { before: 2_000_000 - 10_000 * i, after: left === 0 ? 0 : Math.floor((900_000 * left) / width) },
    };
  });
}

/** Steps of equal size down to half of the MACs; the one before the last was taken back. */
export function pruningSteps(count: number): PruningStep[] {
  return Array.from({ length: count }, (_, i) => {
    const gone = (0.5 * (i + 1)) / count;
    const accepted = i !== count - 2;
    const after = (loss: number): PruningStep['cut'] => ({
      ...{ divergence: loss, top1: 0.92 - 0.4 * loss, agreement: 0.99 - 0.4 * loss },
    });
    return {
      ...{ step: i + 1, units: 40 + i, branches: i === 1 ? ['/block6/Add'] : [], accepted },
      ...{ params: Math.round(250_000 * (1 - gone)), macs: Math.round(40_000_000 * (1 - 0.9 * gone)) },
      ...{ cut: after(0.3 + gone), refitted: after(0.05 + 0.2 * gone), aligned: after(0.03 + 0.15 * gone) },
      ...{ recovered: after((accepted ? 0.01 : 0.1) + 0.08 * gone), updates: 60, seconds: 12.5 + i },
    };
  });
}

/** Five steps with a recovery behind them: the budget was met, the drop kept to. */
export function pruneReport(overrides: Partial<PruneReport> = {}): PruneReport {
  const { before } = quantizeReport();
  const { points } = recoverySummary();
  return {
    command: 'prune',
    method: 'flow',
    seed: 7,
    target: 'cpu',
    model: 'in.onnx',
    output: 'out.onnx',
    settings: { steps: 5, recovery: 'full' },
    budget: { of: 'macs', requested: 0.45, achieved: 0.452, met: true },
    drop: { metric: 'top1', allowed: 0.01, measured: 0.0042, met: true },
    measure: 'kl',
    original: { divergence: 0, top1: 0.92 },
    before,
    after: {
      bytes: 500_000,
      gzipBytes: 450_000,
      params: 125_000,
      macs: 22_000_000,
      metric: top1(0.9123),
      latency: { medianMs: 1.25, p90Ms: 1.4, batch: 1, threads: 2, provider: 'cpu' },
    },
    groups: [
      { layers: ['/conv1/Conv', '/block0/conv2/Conv'], kind: 'filters', before: 16, after: 16 },
      { layers: ['/block0/conv1/Conv'], kind: 'filters', before: 16, after: 7 },
      { layers: ['/attn/qkv/MatMul'], kind: 'heads', before: 4, after: 3 },
      { layers: [], kind: 'inputs', before: 2048, after: 1024 },
    ],
    layers: prunedLayers(9),
    removed: [
      { name: '/block6/Add', layers: ['/block6/conv/Conv'], params: 9216, macs: 1_940_000, divergence: 0.0123 },
    ],
    steps: pruningSteps(5),
    recovery: recoverySummary({
      ...{ before: { divergence: 0.05, top1: 0.9 }, after: { divergence: 0.02, top1: 0.9158 } },
      points: points.map((point) => ({ ...point, top1: point.top1 && point.top1 - 0.0722 })),
    }),
    seconds: 270,
    ...overrides,
  };
}

/** Two cuts and the original planned, the first cut made: all limits kept to. */
export function compressReport(overrides: Partial<CompressReport> = {}): CompressReport {
  const { before, after } = quantizeReport();
  const quality = (loss: number): CompressReport['plan'][number]['quality'] => ({
    ...{ divergence: loss, top1: 0.92 - 0.2 * loss, agreement: 1 - 0.3 * loss },
  });
  const planned = (rung: number, bits: number, loss: number): CompressReport['plan'][number] => ({
    ...{ rung, params: 250_000 - 60_000 * rung, macs: 40_000_000 - 9_000_000 * rung, bits, bytes: 62_000 },
    ...{ speedup: 1.2 + 0.5 * rung, quality: quality(loss), fits: rung > 0, chosen: rung === 1 },
    ...(rung === 1 && { tried: 1 }),
  });
  return {
    command: 'compress',
    method: 'flow-compress',
    seed: 7,
    target: 'cpu',
    model: 'in.onnx',
    output: 'out.onnx',
    limits: {
      size: { requested: 62_500, achieved: 62_000, met: true },
      speed: { requested: 1.5, achieved: 1.71, met: true, batch: 32 },
      drop: { metric: 'top1', requested: 0.01, achieved: 0.004, met: true },
    },
    measure: 'kl',
    plan: [planned(0, 2.01, 0.8), planned(1, 3.2, 0.1), planned(2, 4.4, 0.15)],
    states: [
      { name: 'original', quality: quality(0), bytes: 1_000_000 },
      { name: 'cut', quality: quality(0.06), bytes: 760_000 },
      { name: 'learned', quality: quality(0.02), bytes: 760_000, updates: 150 },
      { name: 'quantized', quality: quality(0.05), bytes: 62_000 },
      { name: 'recovered', quality: quality(0.02), bytes: 62_000, updates: 150 },
    ],
    before,
    after: { ...after, bytes: 62_000 },
    groups: [{ layers: ['/block0/conv/Conv'], kind: 'filters', before: 16, after: 8 }],
    removed: [],
    layers: prunedLayers(8).map((layer, i) => ({
      ...layer,
      ...(layer.channels.after > 0 && {
        bits: 2 + (i % 3),
        execution: i % 2 === 0 ? ('int8' as const) : ('float' as const),
      }),
      bytes: { before: 4 * layer.params.before, after: Math.round(layer.params.after / 2) },
    })),
    learning: recoverySummary(),
    recovery: recoverySummary(),
    answers: {
      samples: 1000,
      classes: [
        { class: 0, samples: 600, agreement: 0.99, labelled: { samples: 590, before: 0.94, after: 0.935 } },
        {
          class: 1,
          name: 'shirt',
          samples: 400,
          agreement: 0.88,
          labelled: { samples: 410, before: 0.9, after: 0.87 },
        },
      ],
      worst: [
        {
          ...{ index: 1234, label: 1, divergence: 4.2 },
          ...{ original: { class: 1, probability: 0.98 }, compressed: { class: 0, probability: 0.71 } },
        },
      ],
    },
    seconds: 95,
    ...overrides,
  };
}

/** Epochs of 100 updates with the loss falling to a floor and the score rising, except in the last three. */
export function trainingHistory(epochs: number): TrainingPoint[] {
  return Array.from({ length: epochs }, (_, i) => ({
    epoch: i + 1,
    step: 100 * (i + 1),
    loss: 0.1 + 2.2 * 0.8 ** i,
    score: 0.92 - 0.5 * 0.75 ** i - (i > epochs - 4 ? 0.005 : 0),
    learningRate: 0.0005 * (1 + Math.cos((Math.PI * (i + 1)) / epochs)),
    seconds: 8.5 * (i + 1),
  }));
}

/** Thirty epochs, epoch 27 the best. */
export function trainReport(overrides: Partial<TrainReport> = {}): TrainReport {
  const { before } = quantizeReport();
  return {
    command: 'train',
    seed: 7,
    target: 'cpu',
    model: 'in.onnx',
    output: 'out.onnx',
    settings: { optimizer: 'adamw', learningRate: 0.001, augment: ['crop', 'flip'] },
    before: { ...before, metric: top1(0.9123) },
    after: { ...before, metric: top1(0.9173) },
    training: {
      ...{ parameters: 250_000, epochs: 30, steps: 3000, seconds: 255, samplesPerSecond: 1234.4 },
      ...{ stopped: 'epochs', metric: 'top1', bestEpoch: 27 },
    },
    history: trainingHistory(30),
    seconds: 270,
    ...overrides,
  };
}

/** The history of a training with three terms: one that falls over four decades, a flat one, and one that begins late. */
export function distillationHistory(epochs: number): DistillationPoint[] {
  return trainingHistory(epochs).map((point, i) => ({
    ...point,
    terms: {
      task: 0.2 + 1.9 * 0.85 ** i,
      answers: 4 * 0.73 ** i + 2e-4,
      ...(i >= Math.min(3, epochs - 2) && { flow: 0.02 + 0.001 * Math.cos(i) }),
    },
  }));
}

/** Layers at equal distances whose flow change falls with the depth, less so in the `bent` one. */
export function flowPoints(layers: number, bent: number): FlowPoint[] {
  return Array.from({ length: layers }, (_, i) => {
    const depth = layers === 1 ? 0.5 : i / (layers - 1);
    return { name: `/block${i}/conv/Conv`, depth, change: (1 - 0.6 * depth) * (0.8 + bent * (i % 3)) };
  });
}

/** Every layer of the student with the teacher's at the same depth; every fifth is not selected. */
export function layerMapping(student: number, teacher: number): MappedLayer[] {
  return Array.from({ length: student }, (_, i) => ({
    student: `/block${i}/conv/Conv`,
    teacher: `/block${student === 1 ? 0 : Math.round((i * (teacher - 1)) / (student - 1))}/conv/Conv`,
    ...{ cka: 0.9 - 0.4 / (i + 1), weight: i % 5 === 4 ? 0 : (2 * (i + 1)) / (student * (student + 1)) },
  }));
}

/** Everything that a fidelity can have. */
export function fidelityOf(overrides: Partial<Fidelity> = {}): Fidelity {
  return {
    ...{ split: 'test', samples: 10_000, measure: 'kl', divergence: 0.0812, agreement: 0.9431 },
    ...{ agreementWhenRight: 0.9612, confidence: 0.984, probed: 512, cka: 0.874, informationKept: -0.012 },
    geometry: {
      teacher: { features: 64, effectiveRank: 14.2, topShare: 0.937, diversity: 1.21, separability: 3.41 },
      student: { features: 32, effectiveRank: 11.3, topShare: 0.962, diversity: 1.17, separability: 2.87 },
    },
    ...overrides,
  };
}

/** Two methods at two goals, over three seeds and one. */
export function benchReport(overrides: Partial<BenchReport> = {}): BenchReport {
  const same = (mean: number): Statistic => ({ mean, least: mean, most: mean });
  return {
    ...{ command: 'bench', of: ['prune'], folder: 'runs/p', target: 'cpu', seconds: 12, spent: 12 },
    rows: [
      {
        ...{ model: 'net.onnx', method: 'idap', options: { reduce: '0.5' }, seeds: 3 },
        metric: { name: 'top1', before: same(0.93), after: { mean: 0.92, least: 0.915, most: 0.925 } },
        agreement: same(0.95),
        bytes: { before: same(1e6), after: { mean: 5e5, least: 4.8e5, most: 5.2e5 } },
        ...{ macs: same(0.5), latency: { mean: 0.55, least: 0.5, most: 0.6 }, updates: same(300), seconds: same(40) },
      },
      {
        ...{ model: 'net.onnx', method: 'l1', options: { reduce: '0.7' }, seeds: 1 },
        metric: { name: 'top1', before: same(0.93), after: same(0.88) },
        bytes: { before: same(1e6), after: same(3e5) },
        seconds: same(30),
      },
    ],
    ...overrides,
  };
}

/** A student of 9 layers that learned from a teacher of 17 for 30 epochs. */
export function distillReport(overrides: Partial<DistillReport> = {}): DistillReport {
  const { settings, training } = trainReport();
  const { before, after } = pruneReport();
  return {
    ...{ command: 'distill', method: 'fad', seed: 7, target: 'cpu' },
    ...{ teacher: 'models/teacher.onnx', student: 'models/student.onnx', output: 'out.onnx' },
    settings: { ...settings, temperature: 4 },
    before: { ...before, metric: top1(0.9339) },
    after: { ...after, metric: top1(0.9173) },
    training,
    history: distillationHistory(30),
    mapping: layerMapping(9, 17),
    flow: { teacher: flowPoints(17, 0.2), student: flowPoints(9, 0.1) },
    fidelity: fidelityOf(),
    stages: [
      { name: 'read', seconds: 1.5 },
      { name: 'train', seconds: 255 },
      { name: 'measure', seconds: 12.25 },
    ],
    seconds: 275,
    ...overrides,
  };
}

export function evaluateReport(): EvaluateReport {
  const { before, after } = quantizeReport();
  return {
    command: 'evaluate',
    target: 'cpu',
    seconds: 1,
    files: [
      { path: 'a/in.onnx', ...before },
      { path: 'b/out.onnx', ...after },
    ],
  };
}

export function profileReport(): ProfileReport {
  const layers = quantizedLayers(3).map(({ name, op, params, sensitivity, flow, kl }) => ({
    name,
    op,
    params,
    sensitivity,
    flow,
    kl,
  }));
  return { command: 'profile', target: 'cpu', seed: 0, seconds: 2, model: 'in.onnx', layers };
}

export function inspectReport(): InspectReport {
  return {
    command: 'inspect',
    seconds: 0.1,
    model: {
      path: 'in.onnx',
      inputs: [{ name: 'image', type: 'float32', dims: ['batch', 3, 32, 32] }],
      outputs: [{ name: 'logits', type: 'float32', dims: ['batch', 10] }],
      opset: 17,
      irVersion: 8,
      params: 448,
      bytes: 2000,
      rows: [{ name: 'conv1', op: 'Conv', weightDims: [16, 3, 3, 3], params: 448, macs: 442_368, bytes: 1792 }],
      removable: {
        groups: [
          {
            layers: ['conv1', 'conv2'],
            kind: 'filters',
            units: 16,
            params: 28,
            macs: 27_648,
            members: [
              { initializer: 'w1', axis: 0, role: 'producer', node: 'conv1', slices: 1 },
              { initializer: 'w2', axis: 1, role: 'consumer', node: 'conv3', slices: 1 },
              { initializer: 'norm.scale', axis: 0, role: 'scale', node: 'norm', slices: 1 },
            ],
          },
          {
            layers: [],
            kind: 'inputs',
            units: 2,
            params: 9,
            members: [{ initializer: 'w4', axis: 1, role: 'consumer', node: 'conv4', slices: 1 }],
          },
        ],
        fixed: [
          { layer: 'head', op: 'Gemm', count: 10, of: 10, reason: 'output of the model' },
          { layer: 'conv5', op: 'Conv', count: 2, of: 8, reason: 'normalizes over it', node: 'norm5' },
        ],
      },
      unsupported: [{ node: 'loop1', op: 'Loop', reason: 'weights inside a loop body' }],
    },
  };
}
