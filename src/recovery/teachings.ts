/** What a compressed model is taught while it learns from the original, by name. */

export interface Teaching {
  readonly name: TeachingName;
  readonly summary: string;
  /** What scores are divided by before they are compared, when nothing else is asked for. */
  readonly temperature: number;
  /** The distillation method whose loss it takes; undefined where it is that of recovery itself. */
  readonly method?: string;
}

export const TEACHING_NAMES = ['hints', 'answers', 'labels', 'kd', 'fad', 'crd'] as const;
export type TeachingName = (typeof TEACHING_NAMES)[number];

export const TEACHINGS: readonly Teaching[] = [
  { name: 'hints', summary: "the original's answers, and values inside it in the same places", temperature: 1 },
  { name: 'answers', summary: "the original's answers alone", temperature: 1 },
  { name: 'labels', summary: 'the labels alone', temperature: 1, method: 'plain' },
  { name: 'kd', summary: 'labels and answers (Hinton et al. 2015)', temperature: 4, method: 'kd' },
  {
    name: 'fad',
    summary: 'labels, answers, and the flow of blocks or layers (FAD)',
    ...{ temperature: 4, method: 'fad' },
  },
  {
    name: 'crd',
    summary: 'labels, answers, and features told apart from those of other samples (CRD)',
    ...{ temperature: 4, method: 'crd' },
  },
];

/** What hints count when nothing is said. */
export const HINT_WEIGHT = 100;

export function findTeaching(name: TeachingName): Teaching {
  return TEACHINGS.find((teaching) => teaching.name === name)!;
}
