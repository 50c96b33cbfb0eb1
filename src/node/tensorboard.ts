/** Scalars as a TensorBoard event file: TFRecord frames around protobuf Event messages. */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

export interface ScalarLog {
  /** @param seconds since 1970 */
  scalars(step: number, values: Readonly<Record<string, number>>, seconds?: number): void;
}

/** Event files that this process began: two of the same second must not have one name. */
let begun = 0;

/** Starts a new event file in a folder. What cannot be written is lost: a log stops no training. */
export function tensorboardLog(folder: string, seconds = Date.now() / 1000): ScalarLog {
  const name = ['events.out.tfevents', Math.floor(seconds), hostname(), process.pid, begun++].map(String).join('.');
  const path = join(folder, name);
  const quietly = (write: () => void): void => {
    try {
      write();
    } catch {
      // The metrics are in the JSON lines too.
    }
  };
  quietly(() => {
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      path,
      record(
        new BinaryWriter()
          .tag(1, WireType.Bit64)
          .double(seconds)
          .tag(3, WireType.LengthDelimited)
          .string('brain.Event:2')
          .finish(),
      ),
    );
  });
  return {
    scalars(step, values, at = Date.now() / 1000) {
      quietly(() => {
        appendFileSync(path, record(event(step, values, at)));
      });
    },
  };
}

/** Event { double wall_time = 1; int64 step = 2; Summary summary = 5 { Value value = 1 { string tag = 1; float simple_value = 2 } } } */
function event(step: number, values: Readonly<Record<string, number>>, seconds: number): Uint8Array {
  const writer = new BinaryWriter().tag(1, WireType.Bit64).double(seconds).tag(2, WireType.Varint).int64(step);
  const summary = writer.tag(5, WireType.LengthDelimited).fork();
  for (const [tag, value] of Object.entries(values)) {
    const entry = summary.tag(1, WireType.LengthDelimited).fork();
    entry.tag(1, WireType.LengthDelimited).string(tag).tag(2, WireType.Bit32).float(value).join();
  }
  return summary.join().finish();
}

/** Length (uint64), its checksum, the bytes, their checksum. */
function record(data: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length + 16);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(out.subarray(0, 8)), true);
  out.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(data), true);
  return out;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The form in which TFRecord stores checksums: rotated and shifted, so that a checksum of checksums is not fooled. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
