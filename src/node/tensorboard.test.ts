import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc32c, tensorboardLog } from './tensorboard.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-tensorboard-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** Remainder of the polynomial division, bit by bit. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1n) ^ (crc & 1n ? 0x82f63b78n : 0n);
  }
  return Number(crc ^ 0xffffffffn);
}

function masked(bytes: Uint8Array): number {
  const crc = BigInt(slowCrc(bytes));
  return Number((((crc >> 15n) | ((crc << 17n) & 0xffffffffn)) + 0xa282ead8n) & 0xffffffffn);
}

/** The payloads of a TFRecord file. */
function frames(file: Uint8Array): Uint8Array[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const payloads: Uint8Array[] = [];
  let at = 0;
  while (at < file.length) {
    const length = Number(view.getBigUint64(at, true));
    expect(view.getUint32(at + 8, true)).toBe(masked(file.subarray(at, at + 8)));
    const payload = file.subarray(at + 12, at + 12 + length);
    expect(view.getUint32(at + 12 + length, true)).toBe(masked(payload));
    payloads.push(payload);
    at += 16 + length;
  }
  expect(at).toBe(file.length);
  return payloads;
}

interface Event {
  seconds?: number;
  step?: number;
  version?: string;
  values: Record<string, number>;
}

function parse(payload: Uint8Array): Event {
  const event: Event = { values: {} };
  const reader = new BinaryReader(payload);
  while (reader.pos < reader.len) {
    const [field] = reader.tag();
    if (field === 1) event.seconds = reader.double();
    else if (field === 2) event.step = Number(reader.int64());
    else if (field === 3) event.version = reader.string();
    else {
      expect(field).toBe(5);
      const summary = new BinaryReader(reader.bytes());
      while (summary.pos < summary.len) {
        expect(summary.tag()[0]).toBe(1);
        const value = new BinaryReader(summary.bytes());
        let tag = '';
        while (value.pos < value.len) {
          if (value.tag()[0] === 1) tag = value.string();
          else event.values[tag] = value.float();
        }
      }
    }
  }
  return event;
}

describe('crc32c', () => {
  it('has the check value of the Castagnoli polynomial', () => {
    expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array())).toBe(0);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    const bytes = Uint8Array.from({ length: 500 }, (_, i) => (i * 37) & 255);
    expect(crc32c(bytes)).toBe(slowCrc(bytes));
  });
});

describe('tensorboardLog', () => {
  it('writes a version and an event per call', async () => {
    const log = tensorboardLog(join(folder, 'deep', 'log'), 1000.5);
    log.scalars(1, { 'train/loss': 0.5, 'train/rate': 1e-3 }, 1001);
    log.scalars(5_000_000_000, { 'val/Güte': NaN }, 1002.25);
    log.scalars(3, {}, 1003);
    const [name] = await readdir(join(folder, 'deep', 'log'));
    expect(name).toMatch(/^events\.out\.tfevents\.1000\./);
    const events = frames(await readFile(join(folder, 'deep', 'log', name!))).map(parse);
    expect(events).toEqual([
      { seconds: 1000.5, version: 'brain.Event:2', values: {} },
      { seconds: 1001, step: 1, values: { 'train/loss': 0.5, 'train/rate': Math.fround(1e-3) } },
      { seconds: 1002.25, step: 5_000_000_000, values: { 'val/Güte': NaN } },
      { seconds: 1003, step: 3, values: {} },
    ]);
  });

  it('begins a file of its own, also within the same second', async () => {
    for (const step of [1, 2]) tensorboardLog(folder, 7).scalars(step, { loss: step }, 8);
    const names = await readdir(folder);
    expect(names.length).toBe(2);
    for (const name of names) expect(frames(await readFile(join(folder, name))).length).toBe(2);
  });

  it('stops nothing when it cannot write', async () => {
    const file = join(folder, 'file');
    await writeFile(file, '');
    expect(() => {
      tensorboardLog(join(file, 'log')).scalars(1, { loss: 1 });
    }).not.toThrow();
  });
});
