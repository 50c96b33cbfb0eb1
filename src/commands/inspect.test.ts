import { create } from '@bufbuild/protobuf';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GraphProtoSchema, type ModelProto } from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { saveModel } from '../node/model-file.js';
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { inspectReportSchema, type InspectReport } from '../report/report.js';
import { floatValue, modelOf, node } from '../testing/rich-model.js';
import { convNet, weights } from '../testing/tiny-net.js';
import { inspectModel } from './inspect.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inspect-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function inspect(model: ModelProto, options: Parameters<typeof inspectModel>[1] = {}): Promise<InspectReport> {
  const path = join(folder, 'model.onnx');
  await saveModel(model, path, { force: true });
  const { report } = await inspectModel(path, options);
  expect(inspectReportSchema.parse(report)).toEqual(report);
  return report;
}

describe('inspectModel', () => {
  it('describes a network layer by layer', async () => {
    const { model, warnings } = await inspect(convNet());
    expect(warnings).toBeUndefined();
    expect(model).toMatchObject({
      inputs: [{ name: 'image', type: 'float32', dims: ['N', 3, 8, 8] }],
      outputs: [{ name: 'scores', type: 'float32', dims: ['N', 5] }],
      opset: 21,
      nodes: 9,
      params: 197,
      macs: 64 * (4 * 27 + 36 + 16) + 20,
    });
    expect(model.rows).toEqual([
      {
        name: 'first',
        op: 'Conv',
        weightDims: [4, 3, 3, 3],
        outputDims: [1, 4, 8, 8],
        params: 108,
        macs: 6912,
        bytes: 432,
      },
      {
        name: 'depthwise',
        op: 'Conv',
        weightDims: [4, 1, 3, 3],
        outputDims: [1, 4, 8, 8],
        params: 40,
        macs: 2304,
        bytes: 160,
        note: 'depthwise: runs in float',
      },
      {
        name: 'point',
        op: 'Conv',
        weightDims: [4, 4, 1, 1],
        outputDims: [1, 4, 8, 8],
        params: 16,
        macs: 1024,
        bytes: 64,
      },
      { name: 'head', op: 'Gemm', weightDims: [5, 4], outputDims: [1, 5], params: 25, macs: 20, bytes: 100 },
    ]);
    expect(model.rows.reduce((sum, row) => sum + (row.macs ?? 0), 0)).toBe(model.macs);
    expect(model.removable).toBeUndefined();
    expect(model.unsupported).toBeUndefined();
  });

  it('lists what can be removed on request, what that costs, and what stays', async () => {
    const { model, warnings } = await inspect(convNet(), { groups: true });
    expect(warnings).toBeUndefined();
    const { groups, fixed } = model.removable!;
    expect(groups).toHaveLength(1);
    expect(groups[0]).toMatchObject({ layers: ['first', 'depthwise', 'point'], kind: 'filters', units: 4 });
    // A filter of the first layer, 4 numbers of its normalization, 9 + 1 weights, a row and a column, 5 weights of the head.
    expect(groups[0].params).toBe(27 + 4 + 10 + 7 + 5);
    expect(groups[0].macs).toBe(64 * (27 + 9 + 7) + 5);
    expect(groups[0].members).toContainEqual({
      initializer: 'w3',
      axis: 1,
      role: 'consumer',
      node: 'point',
      slices: 1,
    });
    expect(fixed).toEqual([{ layer: 'head', op: 'Gemm', count: 5, of: 5, reason: 'output of the model' }]);
  });

  it('says what is shared, not float32, or between activations', async () => {
    const { model, warnings } = await inspect(
      modelOf(
        create(GraphProtoSchema, {
          name: 'mixed',
          node: [
            node('MatMul', ['x', 'w'], ['a'], { name: 'one' }),
            node('MatMul', ['a', 'w'], ['b'], { name: 'two' }),
            node('Transpose', ['b'], ['t']),
            node('MatMul', ['b', 't'], ['c'], { name: 'product' }),
            node('Cast', ['c'], ['d'], { attribute: [intAttribute('to', DataType.FLOAT16)] }),
            node('Slice', ['d', 'zero', 'four', 'axis'], ['e']),
            node('MatMul', ['e', 'half'], ['y'], { name: 'narrow' }),
          ],
          initializer: [
            weights('w', [4, 4]),
            makeTensor('half', DataType.FLOAT16, [1, 2], new Uint16Array(2)),
            makeTensor('zero', DataType.INT64, [1], [0]),
            makeTensor('four', DataType.INT64, [1], [1]),
            makeTensor('axis', DataType.INT64, [1], [1]),
          ],
          input: [floatValue('x', ['rows', 4])],
          output: [floatValue('c', ['rows', 'columns'])],
        }),
      ),
    );
    expect(warnings).toBeUndefined();
    expect(model.rows.map(({ name, note }) => [name, note])).toEqual([
      ['one', undefined],
      ['two', 'shares its weights with one'],
      ['narrow', 'its weights are float16, not float32'],
    ]);
    expect(model.unsupported).toEqual([
      { node: 'product', op: 'MatMul', reason: expect.stringContaining('two activations') },
      { node: 'narrow', op: 'MatMul', reason: 'its weights are float16, not float32' },
    ]);
  });

  it('guesses sizes the model leaves open, and says so', async () => {
    const open = convNet();
    open.graph!.input = [floatValue('image', ['N', 3, 'height', 'width'])];
    const { model, warnings } = await inspect(open);
    expect(warnings?.join()).toMatch(/image \[1, 3, 224, 224\]/);
    expect(model.rows[0].outputDims).toEqual([1, 4, 224, 224]);
  });

  it('says so where what can be removed cannot be found out', async () => {
    const single = convNet();
    // A batch that is declared open, although only one sample fits.
    single.graph!.node.push(node('Reshape', ['scores', 'one'], ['row']));
    single.graph!.initializer.push(makeTensor('one', DataType.INT64, [2], [1, 5]));
    single.graph!.output.push(floatValue('row', ['N', 5]));
    const { model, warnings } = await inspect(single, { groups: true });
    expect(model.removable).toBeUndefined();
    expect(model.macs).toBeGreaterThan(0);
    expect(warnings?.join()).toMatch(/What can be removed is not known: ONNX Runtime could not run/);
  });

  it('leaves shapes out where the model cannot run', async () => {
    const strange = convNet();
    strange.graph!.node.push(node('Fancy', ['scores'], ['more'], { domain: 'custom' }));
    strange.opsetImport.push({ ...strange.opsetImport[0], domain: 'custom', version: 1n });
    strange.graph!.output.push(floatValue('more', ['N']));
    const { model, warnings } = await inspect(strange, { groups: true });
    expect(warnings?.join()).toMatch(/Shapes and MACs are not known/);
    expect(model.macs).toBeUndefined();
    expect(model.removable).toBeUndefined();
    expect(warnings?.join()).toMatch(/can be removed is not known/);
    expect(model.rows[0]).toEqual({ name: 'first', op: 'Conv', weightDims: [4, 3, 3, 3], params: 108, bytes: 432 });
  });

  it('recognises a quantized model', async () => {
    const { model, warnings } = await inspect(
      modelOf(
        create(GraphProtoSchema, {
          name: 'qdq',
          node: [
            node('DequantizeLinear', ['q', 's'], ['w'], { attribute: [intAttribute('axis', 1)] }),
            node('MatMul', ['x', 'w'], ['y'], { name: 'layer' }),
          ],
          initializer: [makeTensor('q', DataType.INT8, [4, 6], new Int8Array(24)), weights('s', [6])],
          input: [floatValue('x', ['N', 4])],
          output: [floatValue('y', ['N', 6])],
        }),
      ),
    );
    expect(model.params).toBe(24);
    expect(model.rows).toMatchObject([{ name: 'layer', weightDims: [4, 6], params: 24, bytes: 24 + 24, macs: 24 }]);
    expect(model.rows[0].note).toMatch(/already quantized: int8/);
    expect(warnings?.join()).toMatch(/already quantized: of 1 layers, 1 with integer weights/);
  });

  it('refuses what is no model', async () => {
    const path = join(folder, 'text.onnx');
    await writeFile(path, 'hello');
    await expect(inspectModel(path)).rejects.toMatchObject({ code: 'bad-input', node: path });
    await expect(inspectModel(join(folder, 'none.onnx'))).rejects.toMatchObject({ code: 'io' });
  });
});
