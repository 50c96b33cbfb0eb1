import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { parsePreprocessFile } from './preprocess-file.js';
import { parsePreprocessOptions, valueTables } from './preprocess.js';

function refusal(call: () => unknown): FlowCompressError {
  try {
    call();
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('Nothing was refused.');
}

describe('preprocessing options', () => {
  it('reads flags as people type them', () => {
    const flags = {
      mean: '0.485, 0.456,0.406',
      std: '0.229',
      scale: '1/255',
      size: '256',
      crop: '224x192',
      layout: 'nchw',
      color: 'bgr',
    };
    expect(parsePreprocessOptions(flags)).toEqual({
      mean: [0.485, 0.456, 0.406],
      std: [0.229],
      scale: 1 / 255,
      size: 256,
      crop: [224, 192],
      layout: 'nchw',
      color: 'bgr',
    });
    expect(parsePreprocessOptions({ scale: 'none', mean: 127.5 })).toEqual({ scale: 'none', mean: [127.5] });
  });

  it.each([
    [{ mean: 'a,b' }, 'mean'],
    [{ std: '0' }, 'std'],
    [{ std: [0.2, -1, 0.2] }, 'std'],
    [{ scale: '1/0' }, 'scale'],
    [{ size: '0' }, 'size'],
    [{ size: '12.5' }, 'size'],
    [{ crop: '1x2x3' }, 'crop'],
    [{ layout: 'hwc' }, 'layout'],
    [{ colour: 'rgb' }, 'colour'],
  ])('refuses %j, naming the option', (flags, name) => {
    const error = refusal(() => parsePreprocessOptions(flags));
    expect(error.code).toBe('bad-input');
    expect(error.message).toContain(name);
  });

  it('refuses a mean in pixel units with the default scale', () => {
    expect(refusal(() => parsePreprocessOptions({ mean: '123.675,116.28,103.53' })).hint).toContain('--scale none');
    expect(parsePreprocessOptions({ mean: '123.675', scale: 'none' }).mean).toEqual([123.675]);
  });

  it('turns each pixel value into (pixel * scale - mean) / std', () => {
    const tables = valueTables({ mean: [0.5, 0.4, 0.3], std: [0.2] }, 3);
    expect(tables[1][51]).toBeCloseTo((51 / 255 - 0.4) / 0.2, 12);
    expect(tables[2][255]).toBeCloseTo(3.5, 12);
    expect(valueTables({}, 1)[0][255]).toBe(1);
    expect(valueTables({ scale: 'none' }, 1)[0][255]).toBe(255);
    expect(refusal(() => valueTables({ mean: [1, 2] }, 3)).message).toMatch(/mean has 2 values.*3 channels/);
  });
});

describe('a preprocessing file', () => {
  const read = (content: object): unknown => parsePreprocessFile(JSON.stringify(content), 'preprocessor_config.json');

  it('may be YAML with the keys of the flags', () => {
    expect(parsePreprocessFile('mean: [0.5]\nstd: 0.25\nsize: 256\ncrop: 224\n', 'p.yaml')).toEqual({
      mean: [0.5],
      std: [0.25],
      size: 256,
      crop: 224,
    });
    expect(refusal(() => parsePreprocessFile('means: 1', 'p.yaml')).message).toContain('p.yaml');
    expect(refusal(() => parsePreprocessFile('{"mean": ', 'p.yaml')).code).toBe('bad-input');
    expect(refusal(() => parsePreprocessFile('just words', 'p.yaml')).code).toBe('bad-input');
  });

  it('may be a Hugging Face image processor with an exact size', () => {
    const vit = {
      do_normalize: true,
      do_resize: true,
      image_mean: [0.5, 0.5, 0.5],
      image_std: [0.5, 0.5, 0.5],
      resample: 2,
      size: 224,
    };
    expect(read(vit)).toEqual({
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      scale: 1 / 255,
      size: 224,
      interpolation: 'bilinear',
    });
    expect(read({ ...vit, size: { height: 384, width: 288 }, resample: 3 })).toMatchObject({
      size: [384, 288],
      interpolation: 'bicubic',
    });
  });

  it('may resize the short side and crop', () => {
    const clip = {
      do_resize: true,
      size: { shortest_edge: 256 },
      do_center_crop: true,
      crop_size: { height: 224, width: 224 },
      do_rescale: true,
      rescale_factor: 0.00392156862745098,
    };
    expect(read(clip)).toEqual({ size: 256, crop: [224, 224], scale: 0.00392156862745098 });
    expect(read({ do_resize: true, size: { shortest_edge: 224 }, crop_pct: 0.875 })).toMatchObject({
      size: 256,
      crop: 224,
    });
    expect(
      read({ do_resize: true, size: { shortest_edge: 224 }, do_center_crop: false, crop_size: 200 }),
    ).toMatchObject({ size: 224, crop: 224 });
  });

  it('leaves out the steps that are switched off', () => {
    const off = {
      do_resize: false,
      size: 224,
      do_rescale: false,
      do_normalize: false,
      do_center_crop: false,
      crop_size: 100,
      image_mean: [0.5],
      image_std: [0.5],
    };
    expect(read(off)).toEqual({ scale: 'none' });
  });

  it('puts mean and std in the order of flipped channels', () => {
    expect(read({ do_flip_channel_order: true, image_mean: [0.1, 0.2, 0.3], image_std: [1, 2, 3] })).toMatchObject({
      color: 'bgr',
      mean: [0.3, 0.2, 0.1],
      std: [3, 2, 1],
    });
  });

  it('refuses by name what cannot be reproduced', () => {
    expect(refusal(() => read({ do_resize: true, size: { longest_edge: 512 } })).code).toBe('unsupported');
    expect(refusal(() => read({ do_resize: true, size: 224, resample: 5 })).message).toContain('5');
    expect(refusal(() => read({ do_resize: 'yes' })).message).toContain('do_resize');
  });
});
