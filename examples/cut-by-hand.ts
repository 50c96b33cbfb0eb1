/**
 * Filters chosen by a rule of one's own: the least half of the widest group by the L1 norm of all weights that go with them.
 * node --import tsx examples/cut-by-hand.ts MODEL.onnx CUT.onnx
 */
import {
  Graph,
  checkCut,
  cutUnits,
  dependencyGroups,
  nodeEngine,
  openModel,
  prunableModel,
  readFloats,
  saveModel,
  selectUnits,
  type DependencyGroup,
  type HostTensor,
} from 'flow-compress';

const [path = 'demo/fashion-resnet.onnx', output = 'cut.onnx'] = process.argv.slice(2);

const engine = nodeEngine();
const opened = await openModel(path);
const session = await engine.createSession(path);
const [input] = session.inputs;
await session.release();
if (!input) throw new Error('The model has no input.');

/** Any numbers show what depends on what. */
const feedsFor = (rows: number): Record<string, HostTensor> => {
  const dims = input.dims.map((size, axis) => (axis === 0 ? rows : Number(size)));
  const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
  return { [input.name]: { type: 'float32', dims, data } };
};

const { model, shapes } = await prunableModel(engine, opened.model, feedsFor);
const dependencies = dependencyGroups(model, shapes);
const widest = dependencies.groups.reduce((a, b) => (b.units.length > a.units.length ? b : a));
const norms = normsOf(widest);
const units = [...norms.keys()].sort((a, b) => norms[a]! - norms[b]!).slice(0, norms.length >> 1);

const selection = selectUnits(dependencies, [{ group: widest.index, units }]);
const cut = cutUnits(model, selection);
const difference = await checkCut(engine, model, cut, selection, feedsFor(2));
await saveModel(cut, output, { force: true });
console.log(`${String(units.length)} of ${String(norms.length)} units of ${widest.layers.join(', ')} are gone`);
console.log(`like zeros in their place, but for ${difference.toExponential(1)}`);

/** Sum of the absolute weights that make a unit or read it. */
function normsOf({ units: { length }, members }: DependencyGroup): number[] {
  const graph = new Graph(model);
  const sums = new Array<number>(length).fill(0);
  for (const { initializer, axis } of members) {
    const { initializer: tensor } = graph.mustGet(initializer);
    if (!tensor) continue;
    const dims = tensor.dims.map(Number);
    const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    // A stored axis may have several slices for every unit.
    const each = dims[axis]! / length;
    readFloats(tensor).forEach((value, i) => {
      sums[Math.floor((Math.floor(i / inner) % dims[axis]!) / each)]! += Math.abs(value);
    });
  }
  return sums;
}
