/** Compiles the kernels to WebAssembly and writes them as a module with their bytes, so that they load anywhere. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const here = dirname(fileURLToPath(import.meta.url));
const binary = join(here, 'kernels.wasm');
const target = join(here, '..', 'src', 'linalg', 'generated', 'kernel-bytes.ts');

const { error, stderr } = await asc.main([
  join(here, 'index.ts'),
  ...['--outFile', binary, '--runtime', 'stub', '--optimizeLevel', '3', '--noAssert', '--enable', 'simd'],
  ...['--use', 'abort='],
]);
if (error) {
  process.stderr.write(`${String(stderr)}\n${error.message}\n`);
  process.exit(1);
}
const text = readFileSync(binary).toString('base64');
rmSync(binary);
mkdirSync(dirname(target), { recursive: true });
writeFileSync(target, `/** Made by kernels/build.js. */\nexport const KERNEL_BYTES =\n  '${text}';\n`);
