/** A trial: one run of one of our commands. What it does decides its id, so the same trial has the same id on every machine. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { baseName } from '../report/format.js';

/** The commands that a sweep can be made of. */
export const SWEPT_COMMANDS = ['quantize', 'prune', 'distill', 'compress', 'train', 'evaluate'] as const;
export type SweptCommand = (typeof SWEPT_COMMANDS)[number];

const optionValueSchema = z.union([
  z.string(),
  z.number(),
  z.boolean(),
  z.array(z.union([z.string(), z.number()])).readonly(),
]);
/** A value as configuration files have it. */
export type OptionValue = z.infer<typeof optionValueSchema>;
/** By the names of the flags: `max-size`. */
export type TrialOptions = Readonly<Record<string, OptionValue>>;

export const trialSchema = z.object({
  id: z.string().regex(/^[0-9a-f]{16}$/),
  command: z.enum(SWEPT_COMMANDS),
  /** For people and folders; unique in a sweep. */
  name: z.string().regex(/^[\w.-]+$/),
  /** Arguments of the command; none for a command that takes its models as options. One may be what another trial wrote: `referenceTo`. */
  models: z.array(z.string()),
  options: z.record(z.string(), optionValueSchema),
  /** What was swept over beside model, method and seed, as rows of a table show it; under `method` what the method is called there. */
  labels: z.record(z.string(), z.string()),
});
export type Trial = z.infer<typeof trialSchema>;

/** What a trial is made from. */
export type TrialDescription = Omit<Trial, 'id' | 'name' | 'command'>;

const REFERENCE = 'trial:';

/** What stands in the place of a model that another trial of the sweep writes. */
export function referenceTo({ name }: Pick<Trial, 'name'>): string {
  return REFERENCE + name;
}

/** The name of the trial that writes the model; undefined for anything else. */
export function referredTo(value: OptionValue): string | undefined {
  return typeof value === 'string' && value.startsWith(REFERENCE) ? value.slice(REFERENCE.length) : undefined;
}

/** Names of the trials whose models a trial takes. */
export function sourcesOf({ models, options }: Pick<Trial, 'models' | 'options'>): string[] {
  return [...models, ...Object.values(options)].flatMap((value) => referredTo(value) ?? []);
}

/** Options that say by what a trial is known first: they are columns of their own. */
export const METHOD = 'method';
export const SEED = 'seed';
/** Options that hold the models of a distillation. */
export const TEACHER = 'teacher';
export const STUDENT = 'student';

/** Characters of the readable part of a name. */
const LONGEST_NAME = 80;

export function makeTrial(command: SweptCommand, description: TrialDescription): Trial {
  const { models, options, labels } = description;
  const sorted = Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1));
  const id = createHash('sha256')
    .update(JSON.stringify([command, models, sorted]))
    .digest('hex')
    .slice(0, 16);
  const given = models.length > 0 ? models : [String(options[STUDENT] ?? command)];
  const subject = given.map((model) => baseName(referredTo(model) ?? model));
  const { [METHOD]: method = options[METHOD], ...others } = labels;
  const parts = [
    ...subject.map((name) => name.replace(/\.onnx$/, '')),
    ...(method === undefined ? [] : [String(method)]),
    ...Object.entries(others).flat(),
    ...(options[SEED] === undefined ? [] : [`seed-${String(options[SEED])}`]),
  ];
  const readable = parts.map((part) => part.replace(/[^a-z0-9.]+/gi, '-')).join('-');
  return { id, name: `${readable.slice(0, LONGEST_NAME)}-${id.slice(0, 6)}`, command, ...description };
}
