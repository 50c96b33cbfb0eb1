/**
 * A step of a release: a model in memory becomes a smaller file, or none where it would answer too differently.
 * node --import tsx examples/compress-or-refuse.ts MODEL.onnx DATA SMALL.onnx [RATIO] [UPDATES] [SHARE]
 *
 * SHARE of the samples of every class have to stay in it.
 */
import { readFile, rm } from 'node:fs/promises';
import { FlowCompressError, compress } from 'flow-compress';

const [
  path = 'demo/fashion-resnet.onnx',
  data = 'demo/data',
  output = 'small.onnx',
  ratio = '8',
  updates = '50',
  share = '0.9',
] = process.argv.slice(2);

try {
  const { report } = await compress(new Uint8Array(await readFile(path)), {
    data,
    output,
    force: true,
    sizeRatio: Number(ratio),
    steps: Number(updates),
    onProgress: ({ stage, done, total }) => {
      if (done === total) console.error(stage);
    },
  });
  const { before, after } = report;
  const answered = report.answers?.classes.filter(({ samples }) => samples > 0) ?? [];
  const agreement = Math.min(...answered.map((one) => one.agreement));
  console.log(
    `${String(before.bytes)} -> ${String(after.bytes)} bytes, ${String(agreement)} of the worst class keep it`,
  );
  if (answered.length === 0 || agreement < Number(share)) {
    await rm(output);
    process.exitCode = 1;
  }
} catch (error) {
  if (!(error instanceof FlowCompressError)) throw error;
  console.error(error.message, error.hint ?? '');
  process.exitCode = 1;
}
