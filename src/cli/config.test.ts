/** Configuration files and how they merge with the command line. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collectFlags, parseConfig } from './config.js';
import { DATA_FLAGS, GENERAL_FLAGS, PREPROCESS_FILE_FLAG, PREPROCESS_FLAGS } from './flags.js';
import { dataValues } from './run-command.js';

const FLAGS = [...DATA_FLAGS, ...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG, ...GENERAL_FLAGS];
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-config-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe('parseConfig', () => {
  it('reads the same keys as the flags, in kebab-case', () => {
    const text = 'data: train.npz\ncalib-samples: 64\nmean: [0.1, 0.2]\njson: true\nseed: 3\n';
    expect(parseConfig(text, 'c.yaml', FLAGS)).toEqual({
      data: 'train.npz',
      calibSamples: 64,
      mean: [0.1, 0.2],
      json: true,
      seed: 3,
    });
  });

  it.each([
    ['calib-sample: 3', /Unknown key "calib-sample"/, /Did you mean "calib-samples"/],
    ['calibSamples: 3', /Unknown key/, /Did you mean "calib-samples"/],
    ['zzz: 3', /Unknown key "zzz"/, /Known keys: data, /],
    ['config: other.yaml', /Unknown key "config"/, /./],
    ['seed: many', /seed in c\.yaml must be a whole number/, undefined],
    ['seed:', /seed in c\.yaml must be one value/, undefined],
    ['data: {a: 1}', /data in c\.yaml must be one value/, undefined],
    ['json: maybe', /json in c\.yaml must be true or false/, undefined],
    ['- a\n- b', /must hold "key: value" lines/, undefined],
    ['a: [1', /not valid YAML/, undefined],
    ['seed: 1\nseed: 2', /not valid YAML/, undefined],
  ])('refuses %j', (text, message, hint) => {
    let error: unknown;
    try {
      parseConfig(text, 'c.yaml', FLAGS);
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ code: 'bad-input', message: expect.stringMatching(message) });
    if (hint !== undefined) expect(error).toMatchObject({ hint: expect.stringMatching(hint) });
  });

  it('takes an empty file as no settings', () => {
    expect(parseConfig('# nothing\n', 'c.yaml', FLAGS)).toEqual({});
  });
});

describe('collectFlags', () => {
  it('lets the command line win', async () => {
    const config = join(folder, 'c.yaml');
    await writeFile(config, 'data: from-file.npz\nseed: 3\n');
    const values = await collectFlags(FLAGS, { config, seed: '5', quiet: true });
    expect(values).toEqual({ data: 'from-file.npz', seed: 5, quiet: true });
  });

  it('names a configuration file that cannot be read', async () => {
    await expect(collectFlags(FLAGS, { config: join(folder, 'absent.yaml') })).rejects.toMatchObject({ code: 'io' });
  });
});

describe('dataValues', () => {
  it('gathers the preprocessing flags', () => {
    expect(dataValues({ data: 'd', mean: '0.5', size: 256, preprocess: 'p.json' })).toEqual({
      data: 'd',
      preprocess: { mean: '0.5', size: 256 },
      preprocessFile: 'p.json',
    });
  });
});
