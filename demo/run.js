/**
 * The main job on a bundled model and bundled images: profile, compress to a twelfth of the bytes, measure, and run the
 * written file in plain ONNX Runtime. The commands that it prints are the commands that it runs.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import ort from 'onnxruntime-node';

const MODEL = 'demo/fashion-resnet.onnx';
const DATA = ['--config', 'demo/fashion.yaml'];
const LIMITS = ['--size-ratio', '12'];
const LEARNING = ['--steps', '200', '--augment', 'crop,flip'];
const OUTPUT = 'demo/out/fashion-small.onnx';
const REPORT = 'demo/out/report.html';
const PROFILE = 'demo/out/profile.html';
const CLASSES = 'top trouser pullover dress coat sandal shirt sneaker bag boot'.split(' ');

// Paths in the commands are relative to the project, wherever the demo is started.
process.chdir(fileURLToPath(new URL('..', import.meta.url)));
rmSync('demo/out', { recursive: true, force: true });
mkdirSync('demo/out', { recursive: true });

const start = Date.now();
flowCompress('profile', MODEL, ...DATA, '--report', PROFILE);
flowCompress('compress', MODEL, '-o', OUTPUT, ...DATA, ...LIMITS, ...LEARNING, '--report', REPORT);
await runInPlainOnnxRuntime();
const made = [
  [OUTPUT, 'the compressed model'],
  [REPORT, 'what it gained and what it cost, as a page for the browser'],
  [PROFILE, 'the layers of the original'],
];
console.log(`
Done in ${Math.round((Date.now() - start) / 1000)} s.
${made.map(([path, what]) => `  ${path.padEnd(OUTPUT.length)}   ${what}`).join('\n')}
Your own model: npx flow-compress compress MODEL.onnx -o SMALL.onnx --data DATA --size-ratio 12`);

/** Runs a command of the built package as a shell would; a failure or Ctrl-C ends the demo with its exit code. */
function flowCompress(...args) {
  console.log(`\n$ npx flow-compress ${args.join(' ')}\n`);
  // The interrupt reaches the command too, which cleans up and answers with its exit code.
  const ignore = () => undefined;
  process.on('SIGINT', ignore);
  const { status } = spawnSync(process.execPath, ['dist/cli/main.js', ...args], { stdio: 'inherit' });
  process.off('SIGINT', ignore);
  if (status !== 0) process.exit(status ?? 1);
}

/** Nothing of this package is needed to run the file: both models, fed the same images, by onnxruntime-node alone. */
async function runInPlainOnnxRuntime() {
  const count = 8;
  const pixels = gunzipSync(readFileSync(join('demo/data', 't10k-images-idx3-ubyte.gz'))).subarray(
    16,
    16 + count * 784,
  );
  const labels = gunzipSync(readFileSync(join('demo/data', 't10k-labels-idx1-ubyte.gz'))).subarray(8, 8 + count);
  const image = Float32Array.from(pixels, (pixel) => (pixel / 255 - 0.286) / 0.353);
  const feeds = { image: new ort.Tensor('float32', image, [count, 1, 28, 28]) };
  const rows = [['label', ...[...labels].map((label) => CLASSES[label])]];
  for (const [name, path] of [
    ['before', MODEL],
    ['after', OUTPUT],
  ]) {
    const session = await ort.InferenceSession.create(path);
    const { logits } = await session.run(feeds);
    const predictions = Array.from({ length: count }, (_, i) => argmax(logits.data.subarray(i * 10, (i + 1) * 10)));
    rows.push([name, ...predictions.map((index) => CLASSES[index])]);
    await session.release();
  }
  console.log(`\nThe first ${count} test images in onnxruntime-node alone:`);
  for (const row of rows)
    console.log(
      row
        .map((cell) => cell.padEnd(10))
        .join('')
        .trimEnd(),
    );
}

function argmax(values) {
  return values.indexOf(Math.max(...values));
}
