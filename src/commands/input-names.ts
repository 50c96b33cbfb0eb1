/** Which input of a model is fed what another one calls differently: of a teacher, what its student takes. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { GivenModel } from '../node/model-input.js';
import { Graph } from '../onnx/graph.js';
import { withFields } from '../onnx/message.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Session, ValueSignature } from '../runtime/engine.js';
import { namedFeeds } from '../runtime/rows.js';
import { matchesInput, showInputs } from './same-inputs.js';

/** Names of the student's inputs by those of the teacher's. */
export type InputNames = ReadonlyMap<string, string>;

/**
 * Inputs of the same name belong together; the others are those of the same type and shape, where no two of them are alike.
 * @param given `TEACHER=STUDENT` each, which come first
 * @returns undefined where all names agree, or the inputs do not fit each other in number or shape: that is refused elsewhere
 * @throws FlowCompressError `bad-input` for pairs that name no input, and naming both where shapes do not tell
 */
export function matchInputs(
  teacher: readonly ValueSignature[],
  student: readonly ValueSignature[],
  given: readonly string[],
  teacherName: string,
): InputNames | undefined {
  const names = new Map<string, string>();
  for (const pair of given) {
    const [theirs, own] = pair.split('=') as [string, string];
    for (const [name, inputs, who] of [
      [theirs, teacher, 'teacher'],
      [own, student, 'student'],
    ] as const)
      if (!inputs.some((input) => input.name === name))
        throw new FlowCompressError('bad-input', `--inputs ${pair}: the ${who} has no input ${name}.`, {
          hint: `It takes ${showInputs(inputs)}.`,
        });
    if (names.has(theirs) || [...names.values()].includes(own))
      throw new FlowCompressError('bad-input', `--inputs ${pair}: an input is given twice.`);
    names.set(theirs, own);
  }
  const taken = new Set(names.values());
  const open = teacher.filter(({ name }) => !names.has(name));
  const free = student.filter(({ name }) => !taken.has(name));
  const strangers = open.filter(({ name }) => !free.some((own) => own.name === name));
  if (strangers.length === 0 && given.length === 0) return undefined;
  for (const { name } of open) if (!strangers.some((one) => one.name === name)) names.set(name, name);
  const left = free.filter(({ name }) => ![...names.values()].includes(name));
  if (left.length !== strangers.length) return undefined;
  for (const theirs of strangers) {
    const fitting = left.filter((own) => matchesInput(theirs, own));
    const rivals = strangers.filter((other) => fitting.some((own) => matchesInput(other, own)));
    if (fitting.length === 0) return undefined;
    if (rivals.length > 1)
      throw new FlowCompressError(
        'bad-input',
        `Which inputs belong together is not clear: the teacher takes ${showInputs(teacher)}, the student ${showInputs(student)}.`,
        { node: teacherName, hint: `Give --inputs ${theirs.name}=${fitting[0]!.name} and so on.` },
      );
    names.set(theirs.name, fitting[0]!.name);
  }
  return names;
}

/** The model with its inputs under the names of the student's. */
export function withInputNames(opened: GivenModel, names: InputNames): GivenModel {
  const model: ModelProto = renamed(opened.model, names);
  return { ...opened, model, content: toBytes(model) };
}

function renamed(model: ModelProto, names: InputNames): ModelProto {
  const graph = new Graph(model);
  const fed = graph.inputs.filter((value) => graph.isFed(value) && value.info && names.has(value.name));
  // By names that nothing has first: two inputs may change places.
  const passing = fed.map((value) => {
    const through = graph.addInput(withFields(value.info!, { name: graph.uniqueName(`${value.name} renamed`) }));
    graph.replaceUses(value, through);
    return { through, name: names.get(value.name)! };
  });
  graph.dropUnreadInputs();
  for (const { through, name } of passing) {
    graph.replaceUses(through, graph.addInput(withFields(through.info!, { name })));
    graph.dropUnreadInputs();
  }
  return graph.toModel();
}

/** A compiled file as if its inputs had other names. */
export function sessionWithInputNames(session: Session, names: InputNames): Session {
  const inputs = session.inputs.map((input) => ({ ...input, name: names.get(input.name) ?? input.name }));
  const taken = new Set(inputs.map(({ name }) => name));
  return {
    inputs,
    outputs: session.outputs,
    run: (feeds, fetch) => {
      const own = namedFeeds(feeds, taken);
      return session.run(Object.fromEntries(session.inputs.map(({ name }, i) => [name, own[inputs[i]!.name]!])), fetch);
    },
    release: () => session.release(),
  };
}
