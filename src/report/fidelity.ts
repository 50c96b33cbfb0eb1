/** What the reports say about how much of a teacher a student has, independent of the medium. */
import { baseName, formatMetric, formatShare, significant } from './format.js';
import type { EvaluateReport, Fidelity, Geometry } from './report.js';

/** A figure with what it says; a figure of either model has the teacher's beside the student's. */
export interface FidelityRow {
  readonly label: string;
  readonly value: string;
  readonly teacher?: string;
  readonly explanation: string;
}

/** What was measured, answers first; a figure that was not is left out. */
export function fidelityRows(fidelity: Fidelity): FidelityRow[] {
  return [...answerRows(fidelity), ...sampleRows(fidelity), ...insideRows(fidelity), ...geometryRows(fidelity)];
}

/** The fidelity of every file that was held against a teacher, with a title. */
export function fidelitiesOf({ files, teacher }: EvaluateReport): { title: string; fidelity: Fidelity }[] {
  const to = teacher === undefined ? '' : ` to ${baseName(teacher)}`;
  return files.flatMap(({ path, fidelity }) =>
    fidelity === undefined ? [] : [{ title: `Fidelity of ${baseName(path)}${to}`, fidelity }],
  );
}

/** On how many samples of what split. */
export function fidelityCaption({ split, samples, probed }: Fidelity): string {
  const inside = probed === undefined ? '' : `; values inside the models on ${probed.toLocaleString('en-US')} of them`;
  return `On ${samples.toLocaleString('en-US')} samples of ${split.toUpperCase()}${inside}.`;
}

function answerRows({
  measure,
  divergence,
  cosine,
  agreement,
  agreementWhenRight,
  confidence,
}: Fidelity): FidelityRow[] {
  const isKl = measure === 'kl';
  return [
    ...shareRow('same class as the teacher', agreement, 'Share of all samples.'),
    ...shareRow(
      'same class where the teacher is right',
      agreementWhenRight,
      'Share of the samples that the teacher gets right.',
    ),
    ...shareRow(
      'equal confidence',
      confidence,
      '1 less the difference of the mean probabilities that the two give the true class.',
    ),
    {
      label: isKl ? 'KL divergence' : 'relative error',
      value: significant(divergence, 3) + (isKl ? ' nats' : ''),
      explanation: isKl
        ? "Of the student's class probabilities from the teacher's, mean over samples; 0 where they are equal."
        : "Squared difference of the outputs, relative to the energy of the teacher's; 0 where they are equal.",
    },
    ...numberRow('cosine', cosine, "Of the outputs with the teacher's, mean over samples; 1 where they point one way."),
  ];
}

const ERRORS = {
  reconstruction: ['reconstruction error', 'Mean squared difference of the reconstruction from the input.'],
  noise: ['noise error', 'Mean squared difference of the noise that is told from the noise that was added.'],
  target: ['target error', 'Mean squared difference of the output from its target.'],
} as const;

function sampleRows({ error, frechet }: Fidelity): FidelityRow[] {
  const rows: FidelityRow[] = [];
  if (error) {
    const [label, explanation] = ERRORS[error.of];
    rows.push({
      ...{ label, explanation },
      ...{ value: significant(error.student, 3), teacher: significant(error.teacher, 3) },
    });
  }
  if (!frechet) return rows;
  const { features, samples, studentToTeacher, studentToReal, teacherToReal } = frechet;
  const how = `On ${samples.toLocaleString('en-US')} samples each, by features of ${baseName(features)}.`;
  if (studentToReal !== undefined && teacherToReal !== undefined)
    rows.push({
      ...{ label: 'Frechet distance to the data', value: significant(studentToReal, 3) },
      ...{ teacher: significant(teacherToReal, 3), explanation: how },
    });
  rows.push({
    ...{ label: 'Frechet distance to the teacher', value: significant(studentToTeacher, 3) },
    explanation: `Of its samples from the teacher's. ${how}`,
  });
  return rows;
}

function insideRows({ cka, informationKept }: Fidelity): FidelityRow[] {
  return [
    ...numberRow(
      'CKA of the last features',
      cka,
      'Whether the same samples are alike in both, 0 to 1; not changed by rotation and scale.',
    ),
    ...numberRow(
      'information kept',
      informationKept,
      "R² of a linear prediction of the teacher's last features from the student's, on samples that it was not fitted on.",
    ),
  ];
}

function geometryRows({ geometry }: Fidelity): FidelityRow[] {
  if (geometry === undefined) return [];
  const row = (label: string, show: (of: Geometry) => string | undefined, explanation: string): FidelityRow[] => {
    const [student, teacher] = [show(geometry.student), show(geometry.teacher)];
    if (student === undefined || teacher === undefined) return [];
    return [{ label, value: student, teacher, explanation }];
  };
  return [
    ...row('last features', ({ features }) => features.toLocaleString('en-US'), 'Values in front of the last layer.'),
    ...row(
      'effective rank',
      ({ effectiveRank }) => significant(effectiveRank, 3),
      'Directions that the features spread over, of the entropy of their singular values.',
    ),
    ...row('top 10 directions', ({ topShare }) => formatShare(topShare), 'Share of the variance in the ten largest.'),
    ...row(
      'diversity',
      ({ diversity }) => significant(diversity, 3),
      'Mean distance of two samples whose features have norm 1, 0 to 2.',
    ),
    ...row(
      'separability',
      ({ separability }) => (separability === undefined ? undefined : significant(separability, 3)),
      'Scatter between the classes relative to that within.',
    ),
  ];
}

function shareRow(label: string, value: number | undefined, explanation: string): FidelityRow[] {
  return value === undefined ? [] : [{ label, value: formatMetric({ name: 'agreement', value }), explanation }];
}

function numberRow(label: string, value: number | undefined, explanation: string): FidelityRow[] {
  return value === undefined ? [] : [{ label, value: value.toFixed(3), explanation }];
}
