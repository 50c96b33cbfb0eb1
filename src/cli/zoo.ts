/** `flow-compress zoo list` and `zoo build`: architectures as ONNX. */
import { Command } from 'commander';
import { z } from 'zod';
import { parseOptions } from '../commands/parse-options.js';
import type { ZooBuildReport, ZooListReport } from '../commands/zoo.js';
import { formatBytes, formatCount, printable } from '../report/format.js';
import { collectFlags } from './config.js';
import type { CliContext } from './context.js';
import { EXIT } from './exit.js';
import { addFlags, ARCHITECTURE_FLAGS, flagName, GENERAL_FLAGS, switchFlag, valueFlag } from './flags.js';
import type { Flag } from './flags.js';
import { createProgress } from './progress.js';
import { parseInteger, parseText } from './values.js';

const MODEL_FLAGS: readonly Flag[] = [
  valueFlag('-o, --output <file>', 'where the model goes', parseText),
  ...ARCHITECTURE_FLAGS,
  valueFlag('--vocabulary <n>', 'different tokens', parseInteger),
  valueFlag('--latent <n>', 'length of the latent vector', parseInteger),
  valueFlag('--seed <n>', 'seed of the initial weights', parseInteger, 0),
];
const BUILD_FLAGS: readonly Flag[] = [...MODEL_FLAGS, ...GENERAL_FLAGS.filter(({ key }) => key !== 'report')];
const JSON_FLAG = switchFlag('--json', 'print exactly one JSON object on stdout');

const buildSchema = z.looseObject({
  output: z.string().min(1, 'must not be empty'),
  force: z.boolean().default(false),
});

/** The command with its two subcommands. Its exit code goes to `onExitCode` when it ends without throwing. */
export function zooCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  return new Command('zoo')
    .summary('architectures as untrained ONNX models')
    .description('Lists the architectures and builds untrained models of them, to be trained with `train`.')
    .addCommand(listCommand(context, onExitCode))
    .addCommand(buildCommand(context, onExitCode));
}

function listCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  const command = new Command('list')
    .summary('the architectures with their parameters and MACs')
    .description('Shows every architecture with its parameters and, at its default input, its multiply-accumulates.');
  addFlags(command, 'General:', [JSON_FLAG]);
  return command.action(async () => {
    // Loaded when asked for: `--help` starts without the architectures.
    const { report } = (await import('../commands/zoo.js')).listZoo();
    context.stdout.write(command.opts().json === true ? asJson(report) : `${listLines(report).join('\n')}\n`);
    onExitCode(EXIT.done);
  });
}

function buildCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  const command = new Command('build')
    .summary('an untrained model of an architecture')
    .description('Writes a model with random weights. The same options and seed give the same file.')
    .argument('<architecture>', 'a name from `zoo list`');
  addFlags(command, 'Model:', MODEL_FLAGS);
  addFlags(command, 'General:', [
    valueFlag('--config <file>', 'YAML file with flags as keys; flags on the command line win', parseText),
    ...BUILD_FLAGS.slice(MODEL_FLAGS.length),
  ]);
  const examples = [
    'zoo build resnet20 -o resnet20.onnx',
    'zoo build vit-ti -o vit.onnx --input-size 32 --patch-size 4',
  ];
  command.addHelpText('after', ['', 'Examples:', ...examples.map((line) => `  $ flow-compress ${line}`)].join('\n'));
  return command.action(async (name: string) => {
    const { json, quiet, ...values } = await collectFlags(BUILD_FLAGS, command.opts());
    const options = parseOptions(buildSchema, values, flagName);
    const { buildFromZoo } = await import('../commands/zoo.js');
    const progress = createProgress(context.stderr, { quiet: quiet === true });
    const { signal } = context;
    const { report } = await buildFromZoo(name, {
      ...options,
      nameOf: flagName,
      signal,
      onProgress: progress.onProgress,
    }).finally(progress.stop);
    context.stdout.write(json === true ? asJson(report) : `${buildLine(report)}\n`);
    onExitCode(EXIT.done);
  });
}

function asJson(report: ZooListReport | ZooBuildReport): string {
  return `${JSON.stringify(report, null, 2)}\n`;
}

function listLines({ architectures }: ZooListReport): string[] {
  const rows = [
    ['name', 'parameters', 'MACs', 'summary'],
    ...architectures.map(({ name, params, macs, summary }) => [
      name,
      params.toLocaleString('en-US'),
      formatCount(macs),
      summary,
    ]),
  ];
  const [first, second, third] = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map(([name, params, macs, summary]) =>
    [name!.padEnd(first!), params!.padStart(second!), macs!.padStart(third!), summary!].join('  '),
  );
}

function buildLine({ output, architecture, params, macs, bytes }: ZooBuildReport): string {
  const counts = `${params.toLocaleString('en-US')} parameters, ${formatCount(macs)} MACs`;
  return `${printable(output)}: ${architecture}, ${counts}, ${formatBytes(bytes)}`;
}
