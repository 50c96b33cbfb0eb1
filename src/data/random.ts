/** Seeded randomness: the same seed gives the same numbers on every platform (xoroshiro128+). */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

/** A stream of random numbers; every call moves it on. */
export interface RandomStream {
  /** Uniform integer in [0, bound), bound >= 1. */
  int(bound: number): number;
  /** Uniform in [0, 1), 53 random bits. */
  float(): number;
  /** Standard normal deviate (Box-Muller). */
  normal(): number;
}

/** Starts a stream. Streams of different seeds are independent for all practical purposes. */
export function randomStream(seed: number): RandomStream {
  const generator = xoroshiro128plus(seed);
  const float = (): number => uniformFloat64(generator);
  return {
    int: (bound) => uniformInt(generator, 0, bound - 1),
    float,
    normal: () => Math.sqrt(-2 * Math.log(1 - float())) * Math.cos(2 * Math.PI * float()),
  };
}

/** Shuffles in place (Fisher-Yates) and returns the same array. */
export function shuffle<T extends Int32Array | unknown[]>(items: T, random: RandomStream): T {
  for (let last = items.length - 1; last > 0; last--) {
    const other = random.int(last + 1);
    const held = items[last];
    items[last] = items[other];
    items[other] = held;
  }
  return items;
}

/** The numbers 0 .. count-1 in a seeded order. */
export function shuffled(count: number, seed: number): Int32Array {
  return shuffle(
    Int32Array.from({ length: count }, (_, i) => i),
    randomStream(seed),
  );
}

/** Mixed 32-bit hash of a few numbers: seeds of streams that have nothing to do with each other. */
export function seedOf(...parts: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const part of parts) {
    h = Math.imul(h ^ (part | 0), 0x85ebca6b);
    h ^= h >>> 13;
    h = Math.imul(h, 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return h | 0;
}
