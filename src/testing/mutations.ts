/** Random damage to files, for tests of readers. */

/** Random integers below a bound, the same sequence for the same seed. */
export type RandomInt = (below: number) => number;

export function randomInts(seed: number): RandomInt {
  let state = seed >>> 0;
  return (below) => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** The parts one after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

type Damage = (bytes: Uint8Array, random: RandomInt) => Uint8Array;

const truncate: Damage = (bytes, random) => bytes.slice(0, random(bytes.length));

const flipBits: Damage = (bytes, random) => {
  const out = bytes.slice();
  for (let i = 1 + random(4); i > 0; i--) out[random(out.length)] ^= 1 << random(8);
  return out;
};

const overwrite: Damage = (bytes, random) => {
  const out = bytes.slice();
  const start = random(out.length);
  for (let i = start; i < Math.min(out.length, start + 1 + random(16)); i++) out[i] = random(256);
  return out;
};

const hugeLength: Damage = (bytes, random) => {
  const out = bytes.slice();
  out.set([0xff, 0xff, 0xff, 0xff, 0x0f].slice(0, 1 + random(5)), random(Math.max(1, out.length - 5)));
  return out;
};

const insert: Damage = (bytes, random) => {
  const at = random(bytes.length);
  const added = Uint8Array.from({ length: 1 + random(8) }, () => random(256));
  return concat([bytes.subarray(0, at), added, bytes.subarray(at)]);
};

const remove: Damage = (bytes, random) => {
  const at = random(bytes.length);
  return concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random(8))]);
};

const noise: Damage = (_, random) => Uint8Array.from({ length: random(200) }, () => random(256));

const damages: Record<string, Damage> = { truncate, flipBits, overwrite, hugeLength, insert, remove, noise };

/** One damaged copy of `bytes` and the kind of damage. */
export function mutate(bytes: Uint8Array, random: RandomInt): { kind: string; bytes: Uint8Array } {
  const kinds = Object.keys(damages);
  const kind = kinds[random(kinds.length)];
  return { kind, bytes: damages[kind](bytes, random) };
}
