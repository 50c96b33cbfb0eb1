/** The program: all commands put together, and one function that runs it and returns the exit code. */
import { Command, CommanderError } from 'commander';
import type { Report } from '../report/report.js';
import type { CliContext } from './context.js';
import { benchCommand } from './bench.js';
import { compressCommand } from './compress.js';
import { distillCommand } from './distill.js';
import { evaluateCommand } from './evaluate.js';
import { errorJson, errorText, EXIT, exitCodeOf } from './exit.js';
import { inspectCommand } from './inspect.js';
import { profileCommand } from './profile.js';
import { pruneCommand } from './prune.js';
import { quantizeCommand } from './quantize.js';
import { defineCommand } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { sweepCommand, workerCommand } from './sweep.js';
import { zooCommand } from './zoo.js';
import { trainCommand } from './train.js';

/** Runs the command line in `context.args`; never throws. */
export async function runCli(context: CliContext): Promise<number> {
  let exitCode: number = EXIT.done;
  const program = buildProgram(context, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...context.args], { from: 'user' });
    return exitCode;
  } catch (error) {
    const code = exitCodeOf(error, context.signal.aborted);
    if (code === EXIT.done) return code;
    // Commander has printed its own message already.
    if (!(error instanceof CommanderError)) context.stderr.write(errorText(error, context.env));
    if (context.args.includes('--json')) context.stdout.write(errorJson(error, commandOf(program, context.args), code));
    return code;
  }
}

/** The commander program, all output going to the streams of the context. */
export function buildProgram(context: CliContext, onExitCode: (code: number) => void): Command {
  const program = new Command('flow-compress')
    .description('Makes trained ONNX models small and fast, and measures what that cost.')
    .version(context.version, '-V, --version', 'print the version')
    .helpCommand('help [command]', 'show the help of a command')
    .addHelpText(
      'after',
      ['', 'Examples:', ...EXAMPLES.map((line) => `  $ flow-compress ${line}`), '', EXIT_HELP].join('\n'),
    );
  const add = <T extends Report>(definition: CommandDefinition<T>): void => {
    program.addCommand(defineCommand(definition, context, onExitCode));
  };
  add(inspectCommand(context));
  add(evaluateCommand(context));
  add(profileCommand(context));
  add(quantizeCommand(context));
  add(pruneCommand(context));
  add(compressCommand(context));
  add(distillCommand(context));
  add(trainCommand(context));
  program.addCommand(zooCommand(context, onExitCode));
  program.addCommand(benchCommand(context, onExitCode));
  add(sweepCommand(context));
  program.addCommand(workerCommand(context, onExitCode));
  for (const command of [program, ...program.commands.flatMap((one) => [one, ...one.commands])]) {
    command
      .exitOverride()
      .showHelpAfterError('(--help shows what is possible)')
      .configureHelp({ helpWidth: Math.min(100, context.stdout.columns ?? 100) })
      .configureOutput({
        writeOut: (text) => context.stdout.write(text),
        writeErr: (text) => context.stderr.write(text),
      });
  }
  return program;
}

const EXAMPLES = [
  'compress model.onnx -o small.onnx --data train.npz --size-ratio 16 --speedup 2 --report report.html',
  'inspect model.onnx',
  'quantize model.onnx -o small.onnx --data train.npz --bits 4 --report report.html',
  'prune model.onnx -o pruned.onnx --data train.npz --reduce 0.5 --report report.html',
  'evaluate model.onnx small.onnx --data train.npz --test test.npz',
  'train resnet20 -o mine.onnx --data train.npz --test test.npz --epochs 30 --augment crop,flip',
];

const EXIT_HELP = `Exit codes:
  0 done   1 failed   2 bad input or usage   3 the budget cannot be met   130 interrupted`;

function commandOf(program: Command, args: readonly string[]): string | undefined {
  return program.commands.map((command) => command.name()).find((name) => args.includes(name));
}
