/**
 * Distillation of models that make samples: variational autoencoders, generators, diffusion models. No labels: what outputs should
 * be follows from the data (the input itself, the noise that was added) or from the teacher alone.
 */
import { FlowCompressError } from '../errors.js';
import { Graph, type Value } from '../onnx/graph.js';
import { concat, formula, reduce, reshape, slice } from '../onnx/ops.js';
import type { Loss } from '../training/losses.js';
import { withAnswers, type Learn } from './baselines.js';
import type { Lesson, LessonControl, LessonRequest, Factors, Term } from './lesson.js';

/** Of the KL divergence of the latent distribution from the standard normal one (beta), beside the reconstruction. */
const PRIOR = 1;
/** Of the KL divergence of the teacher's latent distribution from the student's. */
const POSTERIOR = 1;
/** Of the adversarial loss beside the L1 distance; hidden units of the discriminator, and the slope of its leaky ReLU. */
const ADVERSARIAL = 0.001;
const HIDDEN = 128;
const LEAK = 0.2;

/**
 * - VAE: reconstruction + KL(q || N(0, 1)) + KL(q_T || q_S) + output error;
 * - diffusion: noise error + error to the teacher's noise;
 * - generator: |G_S(z) - G_T(z)|_1 + adversarial loss against a discriminator that learns to tell the two apart.
 *
 * Errors of outputs are relative to the energy of the batch's targets. KL(q || N(0, 1)) is spread over the elements of a
 * reconstruction, whose error is a mean over them too; KL(q_T || q_S) over those of the latent vector.
 * @throws FlowCompressError `bad-input` where nothing says how the models make samples
 */
export function generative(request: LessonRequest): Lesson {
  switch (request.generation?.kind) {
    case 'vae':
      return autoencoder(request);
    case 'diffusion':
      return withAnswers(request, () => ({ terms: [], factors: [] }), { task: 1, answers: 1 });
    case 'generator':
      return generator(request);
    default:
      throw new FlowCompressError('bad-input', 'Nothing says how the models make samples.', {
        hint: 'A VAE has outputs named reconstruction, mean and log_variance, or --outputs names them in this order; a diffusion model needs --diffusion; a generator --data noise:N.',
      });
  }
}

function autoencoder(request: LessonRequest): Lesson {
  const { student, teacher } = request;
  const first = <T extends { readonly answers: readonly string[] }>(side: T): T => ({
    ...side,
    answers: side.answers.slice(0, 1),
  });
  const outputOnly = { ...request, student: first(student), teacher: first(teacher) };
  return withAnswers(
    outputOnly,
    (own, theirs) => {
      const term: Term = {
        ...{ name: 'posterior', answer: latent(theirs, teacher.answers).name, kept: true },
        hint: { value: latent(own, student.answers).name, loss: posteriorDivergence },
      };
      return { terms: [term], factors: [POSTERIOR] };
    },
    { task: 1, answers: 1 },
  );
}

/** Means and log-variances, [N, 2 L]. */
function latent(graph: Graph, [, mean, logVariance]: readonly string[]): Value {
  return concat(graph, [graph.mustGet(mean!), graph.mustGet(logVariance!)], 1);
}

function halves(graph: Graph, x: Value): [mean: Value, logVariance: Value] {
  const rows = reshape(graph, x, [0, 2, -1]);
  const part = (at: number): Value => reshape(graph, slice(graph, rows, [1], [at], [at + 1], [1]), [0, -1]);
  return [part(0), part(1)];
}

/**
 * KL(N(mu, s^2) || N(0, 1)) / elements = 1/2 sum (mu^2 + s^2 - 1 - ln s^2) / elements of [N, 2 L]; targets are not read.
 * @param elements of a reconstruction
 */
export function priorDivergence(elements: number): Loss {
  return ({ graph, output }) => {
    const op = formula(graph);
    const [mean, log] = halves(graph, output);
    const terms = op('Sub', op('Sub', op('Add', op('Mul', mean, mean), op('Exp', log)), 1), log);
    return op('Mul', reduce(graph, 'ReduceSum', terms, [1]), 0.5 / elements);
  };
}

/** KL(target || output) / L of normal distributions with L independent elements, [N, 2 L]: means, then log-variances. */
export const posteriorDivergence: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  const [mean, log] = halves(graph, output);
  const [theirMean, theirLog] = halves(graph, target);
  const apart = op('Sub', theirMean, mean);
  const scaled = op('Div', op('Mul', apart, apart), op('Exp', log));
  const spread = op('Sub', theirLog, log);
  const terms = op('Sub', op('Sub', op('Add', op('Exp', spread), scaled), 1), spread);
  return op('Mul', reduce(graph, 'ReduceMean', terms, [1]), 0.5);
};

/**
 * Adds KL(q || N(0, 1)), which belongs to the task of a VAE whatever the method, behind the terms of a lesson: it counts as the
 * reconstruction does.
 */
export function withPrior(lesson: Lesson, request: LessonRequest): Lesson {
  const graph = new Graph(lesson.student);
  const value = latent(graph, request.student.answers).name;
  const term: Term = { name: 'prior', hint: { value, loss: priorDivergence(elements(request)) } };
  const also = ({ main, terms }: Factors): Factors => ({ main, terms: [...terms, PRIOR * main] });
  const { control } = lesson;
  const wrapped: LessonControl = {
    ...control,
    factors: (share) => also(control.factors(share)),
    ...(control.probes && {
      probes: (steps) => {
        const found = control.probes!(steps);
        return found && { task: also(found.task), part: also(found.part) };
      },
    }),
  };
  return { ...lesson, student: graph.toModel(), terms: [...lesson.terms, term], control: wrapped };
}

/** The main loss, which VAL goes by, is watched and does not count. */
function generator(request: LessonRequest): Lesson {
  return withAnswers(
    request,
    (_own, _theirs, learn) => {
      const [value, answer] = [request.student.answers[0]!, request.teacher.answers[0]!];
      const width = elements(request);
      const parts = discriminator(learn, width);
      const terms: Term[] = [
        { name: 'distance', hint: { value, loss: 'l1' }, answer, kept: true },
        {
          ...{ name: 'adversarial', answer, kept: true },
          hint: { value, loss: adversarial(parts), reads: Object.values(parts) },
        },
      ];
      return { terms, factors: [1, ADVERSARIAL] };
    },
    { task: 0, answers: 0 },
  );
}

function elements({ answerDims }: LessonRequest): number {
  return answerDims.slice(1).reduce((a, b) => a * b, 1);
}

interface Discriminator {
  readonly inner: string;
  readonly outer: string;
}

/** Weights of a perceptron without biases, which the zero mean of what it tells apart does not need. */
function discriminator(learn: Learn, width: number): Discriminator {
  return {
    inner: learn('discriminator 1', [width, HIDDEN], width).name,
    outer: learn('discriminator 2', [HIDDEN, 1], HIDDEN).name,
  };
}

/** Round has no slope: x rounded to multiples of 2^-20 stands still for gradients. */
const FINE = 2 ** 20;

/**
 * -ln D(target) - ln(1 - D(output)), by which the discriminator's weights learn, and -ln D(output), by which the output does
 * (Goodfellow et al. 2014): each stands still for the gradients of the other.
 */
export function adversarial({ inner, outer }: Discriminator): Loss {
  return ({ graph, output, target }) => {
    const op = formula(graph);
    const stopped = (x: Value): Value => op('Div', graph.insertOp('Round', [op('Mul', x, FINE)]), FINE);
    const weights = [graph.mustGet(inner), graph.mustGet(outer)] as const;
    const logit = (x: Value, [first, second]: readonly [Value, Value]): Value => {
      const hidden = graph.insertOp('MatMul', [reshape(graph, x, [0, -1]), first]);
      const bent = op('Max', hidden, op('Mul', hidden, LEAK));
      return reshape(graph, graph.insertOp('MatMul', [bent, second]), [-1]);
    };
    const learning = op(
      'Add',
      op('Softplus', op('Neg', logit(target, weights))),
      op('Softplus', logit(stopped(output), weights)),
    );
    const fooling = op('Softplus', op('Neg', logit(output, [stopped(weights[0]), stopped(weights[1])])));
    return op('Add', learning, fooling);
  };
}
