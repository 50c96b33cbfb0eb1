/** How much every pair of layers counts in flow alignment: by the teacher's flow, by what is still to learn, by the stage of a curriculum. */

/** Slope of the flow along the depth beside its size. */
const SLOPE = 0.1;

/**
 * w_l = D_l / sum D + 0.1 (D_{l+1} - D_l), the last difference taken backwards; raised by the least one where that is negative;
 * sum 1.
 * @param flows of the teacher's layers, in topological order, [L]
 */
export function layerWeights(flows: readonly number[]): number[] {
  const sum = flows.reduce((a, b) => a + b, 0);
  const last = flows.length - 1;
  const raw = flows.map((flow, l) => {
    const slope = last === 0 ? 0 : l < last ? flows[l + 1]! - flow : flow - flows[l - 1]!;
    return (sum > 0 ? flow / sum : 1 / flows.length) + SLOPE * slope;
  });
  const least = Math.min(0, ...raw);
  return normalised(raw.map((w) => w - least));
}

/** Flow above mean + deviations of the teacher makes a layer critical; its error must be larger than this to count. */
const LEAST_ERROR = 0.1;
const LEAST_LAYERS = 2;

/**
 * 1 for pairs whose teacher's flow is critical (above mean + standard deviation, two at least) and whose relative error
 * |D^T - D^S| / D^T is more than 0.1; for all with an error where there is none of them.
 * @param teacher flows by pair @param student the same
 */
export function selected(teacher: readonly number[], student: readonly number[]): number[] {
  const mean = teacher.reduce((a, b) => a + b, 0) / teacher.length;
  const deviation = Math.sqrt(teacher.reduce((sum, d) => sum + (d - mean) ** 2, 0) / teacher.length);
  const ranked = teacher.map((_, l) => l).sort((a, b) => teacher[b]! - teacher[a]! || a - b);
  const above = ranked.filter((l) => teacher[l]! > mean + deviation);
  const critical = new Set(above.length >= LEAST_LAYERS ? above : ranked.slice(0, LEAST_LAYERS));
  const errors = teacher.map((d, l) => Math.abs(d - student[l]!) / (d + 1e-6));
  const mask = errors.map((error, l) => (critical.has(l) && error > LEAST_ERROR ? 1 : 0));
  return mask.some((m) => m > 0) ? mask : errors.map((error) => (error > 0 ? 1 : 0));
}

/** Stages of the curriculum, along the student's depth, and what layers of earlier ones go on to count. */
const STAGES = 4;
const EARLIER = 0.5;
/** Share of the training that the stages take together; then all layers count. */
const STAGED = 0.5;

/**
 * Layers of the student in stage k of 4, s in [(k-1)/4, k/4), count fully, those of earlier stages half; the whole is weighed
 * by k/4. Behind half of the training all count.
 * @param depths of the student's layers, by pair @param share of the training that lies behind
 */
export function curriculum(depths: readonly number[], share: number): { mask: number[]; strength: number } {
  if (share >= STAGED) return { mask: depths.map(() => 1), strength: 1 };
  const stage = Math.min(STAGES - 1, Math.floor((share / STAGED) * STAGES));
  const mask = depths.map((s) => {
    const own = Math.min(STAGES - 1, Math.floor(s * STAGES));
    return own === stage ? 1 : own < stage ? EARLIER : 0;
  });
  return { mask, strength: (stage + 1) / STAGES };
}

/** With sum 1, where there is anything. */
export function normalised(weights: readonly number[]): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => (sum > 0 ? w / sum : 0));
}

/**
 * alpha = 1/2, beta = D_S / (2 (D_T + D_S)), gamma = D_T / (2 (D_T + D_S)): what task, answers and flow count, from the means of
 * the flows over the depth.
 */
export function adaptiveWeights(teacher: number, student: number): { task: number; answers: number; flow: number } {
  const sum = teacher + student;
  if (!(sum > 0)) return { task: 0.5, answers: 0.25, flow: 0.25 };
  return { task: 0.5, answers: student / (2 * sum), flow: teacher / (2 * sum) };
}
