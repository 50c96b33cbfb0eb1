// Draws samples of a model and writes them as an .npz file that `--data` takes.
//   node samples.js MODEL COUNT OUT.npz ARRAY SEED [SCHEDULE STEPS LOW HIGH]
// A model of one input gets noise; with a schedule the model tells the noise in x_t, and DDIM draws from it.
import { writeFile } from 'node:fs/promises';
import { drawByDiffusion, drawFromNoise, nodeEngine, noisedInputs, parseSchedule, writeNpz } from '../../dist/index.js';

const [model, count, out, array, seed, schedule, steps, low, high] = process.argv.slice(2);
const session = await nodeEngine({ threads: 1 }).createSession(model);
const rows = [];
let dims = [];
const options = {
  count: Number(count),
  seed: Number(seed),
  stage: 'draw',
  take: (samples) => {
    rows.push(Float32Array.from(samples.data));
    dims = samples.dims.slice(1);
    return Promise.resolve();
  },
};
if (schedule === undefined) await drawFromNoise(session, session.inputs[0].dims.slice(1), options);
else {
  const inputs = noisedInputs(session.inputs, session.outputs);
  const how = { dims: inputs.sample.dims.slice(1), steps: Number(steps), range: [Number(low), Number(high)] };
  await drawByDiffusion(session, inputs, parseSchedule(schedule), how, options);
}
await session.release();
const data = new Float32Array(rows.reduce((sum, part) => sum + part.length, 0));
let at = 0;
for (const part of rows) {
  data.set(part, at);
  at += part.length;
}
await writeFile(out, writeNpz({ [array]: { type: 'float32', dims: [Number(count), ...dims], data } }));
