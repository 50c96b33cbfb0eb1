/** What all commands do around their one library call: configuration, progress, report file, output, exit code. */
import { extname, resolve } from 'node:path';
import { Command } from 'commander';
import { parseOptions } from '../commands/parse-options.js';
import { FlowCompressError } from '../errors.js';
import { assertWritableOutput, writeFileAtomically } from '../node/atomic-file.js';
import type { RunControl } from '../progress.js';
import { reportToJson } from '../report/json.js';
import { reportToMarkdown } from '../report/markdown.js';
import type { Report } from '../report/report.js';
import { reportToTable } from '../report/table.js';
import { z } from 'zod';
import { collectFlags } from './config.js';
import type { FlagValues } from './config.js';
import { wantsColour } from './context.js';
import type { CliContext } from './context.js';
import { errorText, EXIT, exitCodeOf } from './exit.js';
import { addFlags, addGeneralFlags, flagName, GENERAL_FLAGS, PREPROCESS_FLAGS } from './flags.js';
import type { Flag } from './flags.js';
import { createProgress } from './progress.js';

export interface FlagGroup {
  readonly heading: string;
  readonly flags: readonly Flag[];
}

export interface CommandDefinition<T extends Report> {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  /** `<model>`, `<model...>` or `[file]`; absent for a command that takes its models as flags. */
  readonly argument?: { readonly usage: string; readonly help: string };
  readonly groups: readonly FlagGroup[];
  readonly examples: readonly string[];
  /** Checks the values and makes the library call. */
  readonly call: (models: string[], values: FlagValues, control: RunControl) => Promise<{ report: T }>;
}

const generalSchema = z.object({
  report: z.string().optional(),
  output: z.string().optional(),
  json: z.boolean().default(false),
  quiet: z.boolean().default(false),
  force: z.boolean().default(false),
});

/** Registers a command. Its exit code goes to `onExitCode` when it ends without throwing. */
export function defineCommand<T extends Report>(
  definition: CommandDefinition<T>,
  context: CliContext,
  onExitCode: (code: number) => void,
): Command {
  const command = new Command(definition.name).summary(definition.summary).description(definition.description);
  if (definition.argument) command.argument(definition.argument.usage, definition.argument.help);
  for (const { heading, flags } of definition.groups) addFlags(command, heading, flags);
  addGeneralFlags(command);
  command.addHelpText(
    'after',
    ['', 'Examples:', ...definition.examples.map((line) => `  $ flow-compress ${line}`)].join('\n'),
  );
  const flags = [...definition.groups.flatMap((group) => group.flags), ...GENERAL_FLAGS];
  return command.action(async (argument?: unknown) => {
    const models = definition.argument ? [argument as string | string[] | undefined].flat().filter(isGiven) : [];
    const values = await collectFlags(flags, command.opts());
    const inputs = [...models, ...inputFiles(values), ...inputFiles(command.opts())];
    onExitCode(await execute(definition, { models, inputs }, values, context));
  });
}

const isGiven = (path: string | undefined): path is string => path !== undefined;

interface GivenFiles {
  readonly models: string[];
  /** The models and every other file that is read: a report must not replace one. */
  readonly inputs: readonly string[];
}

const INPUT_KEYS = ['data', 'test', 'preprocess', 'config', 'teacher', 'student'];

function inputFiles(values: Readonly<Record<string, unknown>>): string[] {
  return INPUT_KEYS.map((key) => values[key]).filter((value) => typeof value === 'string');
}

async function execute<T extends Report>(
  definition: CommandDefinition<T>,
  { models, inputs }: GivenFiles,
  values: FlagValues,
  context: CliContext,
): Promise<number> {
  const general = parseOptions(generalSchema, values, flagName);
  const render = general.report === undefined ? undefined : rendererOf(general.report);
  if (general.report !== undefined) {
    if (general.output !== undefined && resolve(general.output) === resolve(general.report)) {
      throw new FlowCompressError('bad-input', '--report and --output name the same file.', {
        hint: 'Give the report a name of its own.',
      });
    }
    await assertWritableOutput(general.report, { force: general.force, inputs });
  }
  const progress = createProgress(context.stderr, { quiet: general.quiet });
  const control: RunControl = { signal: context.signal, onProgress: progress.onProgress };
  const result = await definition
    .call(models, values, control)
    .catch((error: unknown) => {
      throw withResumeHint(error, values);
    })
    .finally(progress.stop);
  const report: Report = { commandLine: shellCommand(context.args), version: context.version, ...result.report };
  const text = general.json
    ? reportToJson(report)
    : reportToTable(report, { colour: wantsColour(context.stdout, context.env), columns: context.stdout.columns });
  const rules = { force: general.force, inputs, signal: context.signal };
  try {
    if (general.report !== undefined && render !== undefined)
      await writeFileAtomically(general.report, await render(report), rules);
  } catch (error) {
    // The work is done and its output is written: show the result all the same.
    context.stdout.write(text);
    context.stderr.write(errorText(error, context.env));
    return exitCodeOf(error, context.signal.aborted);
  }
  context.stdout.write(text);
  if (general.report !== undefined && !general.quiet) context.stderr.write(`report: ${general.report}\n`);
  return outcomeOf(report);
}

function outcomeOf(report: Report): number {
  if (report.command !== 'bench') return isMet(report) ? EXIT.done : EXIT.infeasible;
  const { failed = [] } = report;
  if (failed.length === 0) return EXIT.done;
  return failed.every(({ code }) => code === 'infeasible') ? EXIT.infeasible : EXIT.failed;
}

/** Whether everything that was asked for has been reached. */
function isMet(report: Report): boolean {
  switch (report.command) {
    case 'quantize':
      return report.budget?.met !== false;
    case 'prune':
      return report.budget?.met !== false && report.drop?.met !== false;
    case 'compress':
      return Object.values(report.limits).every(({ met }) => met);
    default:
      return true;
  }
}

function withResumeHint(error: unknown, values: FlagValues): unknown {
  if (!(error instanceof FlowCompressError) || error.code !== 'aborted') return error;
  if (error.hint !== undefined || values.runDir === undefined) return error;
  return new FlowCompressError('aborted', error.message, {
    node: error.node,
    hint: 'The same command with --resume continues.',
    cause: error,
  });
}

// Loaded when asked for: the plots bring in more code than everything else together.
const reportToHtml = async (report: Report): Promise<string> =>
  (await import('../report/html.js')).reportToHtml(report);

type Renderer = (report: Report) => string | Promise<string>;
const RENDERERS: Readonly<Record<string, Renderer>> = {
  '.html': reportToHtml,
  '.htm': reportToHtml,
  '.md': reportToMarkdown,
  '.json': reportToJson,
};

function rendererOf(path: string): Renderer {
  const render = RENDERERS[extname(path).toLowerCase()];
  if (render === undefined) {
    throw new FlowCompressError(
      'bad-input',
      `--report cannot write "${path}": the name must end in .html, .md or .json.`,
    );
  }
  return render;
}

/** Values of the data flags in the shape of the options: preprocessing flags in an object of their own. */
export function dataValues(values: FlagValues): Record<string, unknown> {
  const { preprocess: preprocessFile, ...rest } = values;
  const keys = new Set(PREPROCESS_FLAGS.map((flag) => flag.key));
  const entries = Object.entries(rest);
  return {
    ...Object.fromEntries(entries.filter(([key]) => !keys.has(key))),
    preprocess: Object.fromEntries(entries.filter(([key]) => keys.has(key))),
    preprocessFile,
  };
}

/** The command as one would type it again in a POSIX shell. */
function shellCommand(args: readonly string[]): string {
  const quote = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
  return ['flow-compress', ...args.map(quote)].join(' ');
}
