/** The distillation methods by name, FAD first: what each adds to the loss of the student. */
import { answersOnly, attentionTransfer, contrastive, featureHints, plain, relational } from './baselines.js';
import { flowAligned } from './fad.js';
import { generative, withPrior } from './generative.js';
import type { Lesson, LessonRequest } from './lesson.js';
import { contrastiveWithBank } from './memory-bank.js';
import { topScores } from './top-scores.js';

export interface DistillationMethod {
  readonly name: string;
  readonly summary: string;
  /** Whether layers of the two networks are held against each other. */
  readonly mapped: boolean;
  readonly lesson: (request: LessonRequest) => Lesson;
}

export const DISTILLATION_METHODS: readonly DistillationMethod[] = [
  {
    name: 'fad',
    summary: 'flow-aligned: answers, and the flow of the layers by adaptive weights',
    mapped: true,
    lesson: flowAligned,
  },
  { name: 'kd', summary: 'the answers of the teacher (Hinton et al. 2015)', mapped: false, lesson: answersOnly },
  {
    name: 'features',
    summary: 'answers, and representations through learned maps (FitNets)',
    mapped: true,
    lesson: featureHints,
  },
  {
    name: 'attention',
    summary: 'answers, and where representations are large (attention transfer)',
    mapped: true,
    lesson: attentionTransfer,
  },
  {
    name: 'relations',
    summary: 'answers, and how the samples of a batch lie to each other',
    mapped: true,
    lesson: relational,
  },
  {
    name: 'crd-lite',
    summary: 'answers, and features told apart from those of other samples of the batch (CRD)',
    mapped: false,
    lesson: contrastive,
  },
  {
    name: 'crd',
    summary: 'answers, and features told apart from those of 4096 samples that a memory bank remembers (CRD)',
    mapped: false,
    lesson: contrastiveWithBank,
  },
  {
    name: 'topkd',
    summary: 'answers, and the 5 highest and lowest scores of the teacher, raised and held by angles (TopKD)',
    mapped: false,
    lesson: topScores,
  },
  {
    name: 'generative',
    summary: 'for VAEs, generators and diffusion models: the losses that they are trained by, and the teacher',
    mapped: false,
    lesson: generative,
  },
  { name: 'plain', summary: 'nothing: the student learns alone', mapped: false, lesson: plain },
];

/** The lesson of a method, with what belongs to the task whatever the method. Errors as `method.lesson`. */
export function lessonBy(method: DistillationMethod, request: LessonRequest): Lesson {
  const lesson = method.lesson(request);
  return request.generation?.kind === 'vae' && lesson.main === 'task' ? withPrior(lesson, request) : lesson;
}

export function findDistillationMethod(name: string): DistillationMethod | undefined {
  return DISTILLATION_METHODS.find((method) => method.name === name);
}
