/**
 * The main job on a bundled model and bundled images: profile, quantize to 4 bits a weight on average, measure, and run
 * the written file in plain ONNX Runtime. The commands that it prints are the commands that it runs.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import ort from 'onnxruntime-node';

const MODEL = 'demo/fashion-resnet.onnx';
const DATA = ['--data', 'demo/data', '--mean', '0.2860', '--std', '0.3530'];
const OUTPUT = 'demo/out/fashion-4bit.onnx';
const REPORT = 'demo/out/report.html';
const CLASSES = 'top trouser pullover dress coat sandal shirt sneaker bag boot'.split(' ');

// Paths in the commands are relative to the project, wherever the demo is started.
process.chdir(fileURLToPath(new URL('..', import.meta.url)));
rmSync('demo/out', { recursive: true, force: true });
mkdirSync('demo/out', { recursive: true });

const start = Date.now();
flowCompress('profile', MODEL, ...DATA, '--report', 'demo/out/profile.html');
flowCompress('quantize', MODEL, '-o', OUTPUT, ...DATA, '--bits', '4', '--report', REPORT);
await runInPlainOnnxRuntime();
console.log(`
Done in ${Math.round((Date.now() - start) / 1000)} s.
  ${OUTPUT}   the quantized model
  ${REPORT}         what it cost, as a page for the browser
  demo/out/profile.html        the layers of the original
Your own model: npx flow-compress quantize MODEL.onnx -o SMALL.onnx --data DATA --bits 4`);

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
