/**
 * HAQ-lite: widths searched for by trying them out, as HAQ does (Wang et al. 2019). HAQ's agent is DDPG and its reward the accuracy
 * after a short fine-tuning; here vectors of widths are drawn by the cross-entropy method (Rubinstein 1999) and judged by the
 * divergence of the rounded model's answers on samples of CALIB, without fine-tuning.
 */
import { randomStream, seedOf, shuffle, type RandomStream } from '../../data/random.js';
import { refuseInfeasible } from '../allocate.js';
import { throwIfAborted } from '../../errors.js';
import { fromMatrix } from '../../onnx/layers.js';
import { uniformCodes } from '../format.js';
import type { CodeBudget, QuantizationMethod } from '../method.js';
import { dequantize } from '../round-layer.js';
import { bytesOf, openWidthStudy, roundedTo, smallestInstead, widthChoices, type WidthChoice } from '../widths.js';
import { withWholeProbe } from '../whole-probe.js';

/** Vectors that are tried: so many at a time, of which the best shape the next ones, so many times. */
const [POPULATION, ELITE, GENERATIONS] = [16, 4, 10];
/** Share of what was believed before in what is believed after a generation. */
const MEMORY = 0.3;
/** Spread of the first belief around the average width, in bits, and the least probability of any width. */
const SPREAD = 1.5;
const LEAST = 0.01;
/** Samples on which a vector is judged. */
const JUDGED_ON = 64;

export const haqLite: QuantizationMethod = {
  name: 'haq-lite',
  summary: 'per-layer bits by a seeded search of 160 tries, packed weights',
  activations: 'static',
  async prepare(context) {
    const study = await openWidthStudy(context);
    const { units, rounder } = study;
    const { engine, model, scores, settings, control } = context;
    const batch = await context.probeBatch(JUDGED_ON, POPULATION * GENERATIONS);
    const request = { engine, model, batch, scores, layers: units.map(({ layer }) => layer) };
    const weightsAt = units.map(({ layer }) => {
      const known = new Map<number, Float32Array>();
      return (bits: number): Float32Array => {
        const values =
          known.get(bits) ?? fromMatrix(layer, dequantize(layer, rounder.quick(layer, uniformCodes(bits))));
        known.set(bits, values);
        return values;
      };
    });
    return {
      async quantize(budget) {
        const choices = widthChoices(study, budget);
        const params = units.map(({ layer }) => layer.params);
        const bits =
          smallestInstead(choices, budget) ??
          (budget.rough
            ? startingWidths(choices, params, budget)
            : await withWholeProbe(request, (probe) =>
                searchWidths(
                  choices,
                  params,
                  budget,
                  (widths) => probe(widths.map((b, i) => weightsAt[i]!(b))),
                  settings.seed,
                  (done) => {
                    throwIfAborted(control.signal);
                    control.onProgress?.({ stage: 'search widths', done, total: POPULATION * GENERATIONS });
                  },
                ),
              ));
        return roundedTo(study, bits.map(uniformCodes), () => ({}));
      },
    };
  },
};

/** The even choice: as wide as the average that the bytes allow. */
function startingWidths(
  choices: readonly WidthChoice[],
  params: readonly number[],
  budget: Pick<CodeBudget, 'codeBytes'>,
): number[] {
  const average = averageOf(params, budget);
  const even = choices.map(({ choices: widths }) => nearestOf(widths, average));
  return within(choices, even, budget.codeBytes, randomStream(0));
}

function averageOf(params: readonly number[], { codeBytes }: Pick<CodeBudget, 'codeBytes'>): number {
  return (
    (8 * codeBytes) /
    Math.max(
      1,
      params.reduce((a, b) => a + b, 0),
    )
  );
}

function nearestOf(widths: readonly number[], wanted: number): number {
  return widths.reduce((best, b) => (Math.abs(b - wanted) < Math.abs(best - wanted) ? b : best));
}

/**
 * Cross-entropy method over the widths of all layers.
 * @param judge lower is better @param onTry called before every try
 * @returns the best vector that was tried: the even one, if none was better
 * @throws FlowCompressError `infeasible` when the lowest widths exceed the bytes
 */
export async function searchWidths(
  choices: readonly WidthChoice[],
  params: readonly number[],
  budget: Pick<CodeBudget, 'codeBytes'>,
  judge: (bits: readonly number[]) => Promise<number>,
  seed: number,
  onTry: (done: number) => void = () => undefined,
): Promise<number[]> {
  refuseInfeasible(choices, budget.codeBytes);
  const random = randomStream(seedOf(seed, 5003));
  const average = averageOf(params, budget);
  let belief = choices.map(({ choices: widths }) =>
    shares(widths.map((b) => Math.exp(-(((b - average) / SPREAD) ** 2) / 2) + LEAST)),
  );
  const known = new Map<string, number>();
  const valued = async (bits: readonly number[]): Promise<number> => {
    const key = bits.join();
    const value = known.get(key) ?? (await judge(bits));
    known.set(key, value);
    return value;
  };
  let tries = 0;
  let best = startingWidths(choices, params, budget);
  onTry(tries++);
  let least = await valued(best);
  for (let generation = 0; generation < GENERATIONS; generation++) {
    const tried: { bits: number[]; value: number }[] = [];
    for (let i = 0; i < POPULATION && tries < POPULATION * GENERATIONS; i++) {
      onTry(tries++);
      const drawn = choices.map(({ choices: widths }, l) => draw(widths, belief[l]!, random));
      const bits = within(choices, drawn, budget.codeBytes, random);
      tried.push({ bits, value: await valued(bits) });
    }
    const elite = tried.sort((a, b) => a.value - b.value).slice(0, ELITE);
    if (elite[0] && elite[0].value < least) ({ bits: best, value: least } = elite[0]);
    belief = choices.map(({ choices: widths }, l) =>
      shares(
        widths.map((b, k) => {
          const found = elite.filter(({ bits }) => bits[l] === b).length / Math.max(1, elite.length);
          return MEMORY * belief[l]![k]! + (1 - MEMORY) * found + LEAST;
        }),
      ),
    );
  }
  return best;
}

function shares(values: readonly number[]): number[] {
  const sum = values.reduce((a, b) => a + b, 0);
  return values.map((v) => v / sum);
}

function draw(widths: readonly number[], belief: readonly number[], random: RandomStream): number {
  let rest = random.float();
  for (const [k, share] of belief.entries()) {
    rest -= share;
    if (rest < 0) return widths[k]!;
  }
  return widths.at(-1)!;
}

/** Lowers bits in turn until the bytes hold, as HAQ does, then raises in turn what there is room for; the turns are random. */
function within(
  choices: readonly WidthChoice[],
  drawn: readonly number[],
  codeBytes: number,
  random: RandomStream,
): number[] {
  const bits = [...drawn];
  const turns = shuffle(
    choices.map((_, l) => l),
    random,
  );
  let spent = bytesOf(choices, bits);
  const move = (l: number, by: 1 | -1): boolean => {
    const { choices: widths, cost } = choices[l]!;
    const next = widths[widths.indexOf(bits[l]!) + by];
    if (next === undefined) return false;
    const change = cost(next) - cost(bits[l]!);
    if (by > 0 && spent + change > codeBytes) return false;
    bits[l] = next;
    spent += change;
    return true;
  };
  for (let moved = true; spent > codeBytes && moved;) {
    moved = false;
    for (const l of turns) if (spent > codeBytes && move(l, -1)) moved = true;
  }
  for (let moved = true; moved;) {
    moved = false;
    for (const l of turns) if (move(l, 1)) moved = true;
  }
  return bits;
}
