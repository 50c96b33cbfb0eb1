/** Which layer of the teacher a layer of the student is held against: several may share one, and none may overtake another. */
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';

export interface MappableLayer {
  readonly name: string;
  /** Position in the network: 0 first, 1 last. */
  readonly depth: number;
  /** What it is, such as its operator. */
  readonly kind: string;
}

export interface MappingInput {
  /** In topological order, as the student's. */
  readonly teacher: readonly MappableLayer[];
  readonly student: readonly MappableLayer[];
}

/** For every layer of the student, in order, the index of its layer of the teacher: non-decreasing. */
export type LayerMapping = readonly number[];

/** What a whole network of difference in depth costs, relative to features that have nothing in common. */
const DEPTH = 0.3;
/** What different kinds of layers cost. */
const KIND = 0.2;

/**
 * The teacher's layer at the nearest depth.
 * @throws FlowCompressError `unsupported` when either model has no layers
 */
export function mapByDepth({ teacher, student }: MappingInput): LayerMapping {
  return leastCostMap(
    teacher,
    student,
    teacher.map((t) => student.map((u) => Math.abs(t.depth - u.depth))),
  );
}

/**
 * The mapping of least total cost, sum over the student's layers of (1 - CKA) + 0.3 |s_l - s_m| + 0.2 [kinds differ].
 * @param cka linear CKA: `cka[l][m]` of teacher layer l and student layer m (`ckaMatrix`)
 * @throws FlowCompressError `unsupported` when either model has no layers, `internal` for a matrix of other dimensions
 */
export function mapByAssignment({
  teacher,
  student,
  cka,
}: MappingInput & { readonly cka: readonly (readonly number[])[] }): LayerMapping {
  if (cka.length !== teacher.length || cka.some((row) => row.length !== student.length))
    throw new FlowCompressError(
      'internal',
      `CKA must be given for ${String(teacher.length)} x ${String(student.length)} layers.`,
    );
  return leastCostMap(
    teacher,
    student,
    teacher.map((t, l) => student.map((u, m) => assignmentCost(t, u, cka[l][m]))),
  );
}

/** What it costs to hold a layer of the student against one of the teacher's. */
export function assignmentCost(teacher: MappableLayer, student: MappableLayer, cka: number): number {
  return 1 - cka + DEPTH * Math.abs(teacher.depth - student.depth) + (teacher.kind === student.kind ? 0 : KIND);
}

/**
 * Dynamic programming over both lists in O(LM); of equal costs the earlier layer of the teacher is taken.
 * @param cost [teacher][student]
 */
function leastCostMap(
  teacher: readonly MappableLayer[],
  student: readonly MappableLayer[],
  cost: readonly (readonly number[])[],
): LayerMapping {
  for (const [who, layers] of [
    ['teacher', teacher],
    ['student', student],
  ] as const)
    if (layers.length === 0)
      throw new FlowCompressError('unsupported', `The ${who} has no layers that could be mapped.`, {
        hint: 'Choose a method that compares outputs only.',
      });
  // total[l]: of the layers so far, the last of them at l; choice[m][l]: where the one before m is best when m is at l.
  let total = cost.map((row) => row[0]);
  const choice: number[][] = [];
  for (let m = 1; m < student.length; m++) {
    let best = 0;
    const before = total;
    const from = before.map((value, l) => {
      if (value < before[best]) best = l;
      return best;
    });
    total = cost.map((row, l) => before[from[l]] + row[m]);
    choice.push(from);
  }
  let at = total.reduce((best, value, l) => (value < total[best] ? l : best), 0);
  const mapping = [at];
  for (const from of choice.reverse()) {
    at = from[at];
    mapping.push(at);
  }
  return mapping.reverse();
}

const mappingSchema = z.record(z.string(), z.string());

/**
 * A mapping made by hand: an object with a line for every layer of the student, {"student layer": "teacher layer"}.
 * @param json what the file holds
 * @param teacherNames in topological order, as `studentNames`
 * @throws FlowCompressError `bad-input` naming the layers that a model does not have, that have no line, or that are out of order
 */
export function readMapping(
  json: unknown,
  teacherNames: readonly string[],
  studentNames: readonly string[],
): LayerMapping {
  const parsed = mappingSchema.safeParse(json);
  if (!parsed.success)
    throw new FlowCompressError('bad-input', 'A mapping of layers is an object of names of layers.', {
      hint: 'Write {"student layer": "teacher layer", ...}.',
    });
  const lines = new Map(Object.entries(parsed.data));
  const refuse = (layers: readonly string[], what: string, hint: string): void => {
    if (layers.length === 0) return;
    throw new FlowCompressError('bad-input', `The mapping of layers ${what}: ${shown(layers)}.`, {
      node: layers[0],
      hint,
    });
  };
  const [inTeacher, inStudent] = [new Set(teacherNames), new Set(studentNames)];
  const strangers = [...lines.keys()].filter((name) => !inStudent.has(name));
  refuse(strangers, 'names layers that the student does not have', `The student has ${shown(studentNames)}.`);
  const unknown = [...new Set(lines.values())].filter((name) => !inTeacher.has(name));
  refuse(unknown, 'names layers that the teacher does not have', `The teacher has ${shown(teacherNames)}.`);
  const missing = studentNames.filter((name) => !lines.has(name));
  refuse(missing, 'leaves out layers of the student', 'Give every layer of the student one of the teacher.');
  const mapping = studentNames.map((name) => teacherNames.indexOf(lines.get(name)!));
  const overtaken = mapping.findIndex((l, m) => m > 0 && l < mapping[m - 1]);
  if (overtaken > 0) {
    const [name, before] = [studentNames[overtaken], studentNames[overtaken - 1]];
    throw new FlowCompressError(
      'bad-input',
      `The mapping of layers is out of order: ${name} comes after ${before} in the student, but ${lines.get(name)!} before ${lines.get(before)!} in the teacher.`,
      { node: name, hint: 'Later layers of the student go to the same or later layers of the teacher.' },
    );
  }
  return mapping;
}

function shown(names: readonly string[]): string {
  const most = 8;
  return names.slice(0, most).join(', ') + (names.length > most ? ` and ${String(names.length - most)} more` : '');
}
