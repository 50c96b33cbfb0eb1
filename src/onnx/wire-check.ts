/**
 * Checks the protobuf framing of a file before it is decoded: every field lies within its message, has the wire type
 * of its declaration and holds valid UTF-8 where it is text. A decoder that trusts lengths would read damaged files as
 * other models or stop in the middle with an error that says nothing.
 */
import { ScalarType, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';

/** What is wrong with the framing. */
export interface WireProblem {
  /** Dotted path of field names, for example `graph.initializer.raw_data`. */
  readonly field: string;
  /** Byte position in the file. */
  readonly at: number;
  /** The rest of a sentence whose subject is the field. */
  readonly problem: string;
  /** True when the field claims bytes past the end of the file. */
  readonly truncated: boolean;
}

/** As in every protobuf implementation by default. */
const MAX_DEPTH = 100;

const wireTypes = new Map<ScalarType, WireType>([
  [ScalarType.DOUBLE, WireType.Bit64],
  [ScalarType.FIXED64, WireType.Bit64],
  [ScalarType.SFIXED64, WireType.Bit64],
  [ScalarType.FLOAT, WireType.Bit32],
  [ScalarType.FIXED32, WireType.Bit32],
  [ScalarType.SFIXED32, WireType.Bit32],
  [ScalarType.STRING, WireType.LengthDelimited],
  [ScalarType.BYTES, WireType.LengthDelimited],
]);

interface FieldRule {
  readonly name: string;
  readonly wire: WireType;
  /** A list of numbers, which may be written in one length-delimited block. */
  readonly packable: boolean;
  readonly text: boolean;
  readonly message: DescMessage | undefined;
}

const ruleCache = new WeakMap<DescMessage, Map<number, FieldRule>>();

function ruleOf(field: DescField): FieldRule {
  const scalar = field.scalar;
  const wire = field.message
    ? WireType.LengthDelimited
    : ((scalar === undefined ? undefined : wireTypes.get(scalar)) ?? WireType.Varint);
  return {
    name: field.name,
    wire,
    packable: field.fieldKind === 'list' && wire !== WireType.LengthDelimited,
    text: scalar === ScalarType.STRING,
    message: field.message,
  };
}

function rulesOf(desc: DescMessage): Map<number, FieldRule> {
  let rules = ruleCache.get(desc);
  if (!rules) {
    rules = new Map(desc.fields.map((field) => [field.number, ruleOf(field)]));
    ruleCache.set(desc, rules);
  }
  return rules;
}

class Framing {
  private position = 0;
  private readonly path: string[] = [];
  private readonly utf8 = new TextDecoder('utf-8', { fatal: true });
  found: WireProblem | undefined;

  constructor(private readonly bytes: Uint8Array) {}

  private fail(problem: string, truncated = false): false {
    this.found ??= { field: this.path.join('.'), at: this.position, problem, truncated };
    return false;
  }

  /** Reads a varint that ends before `end`; -1 when there is none. Values beyond 2^53 come back rounded. */
  private varint(end: number): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (this.position >= end) {
        this.fail('ends in the middle of a number', end === this.bytes.length);
        return -1;
      }
      const byte = this.bytes[this.position++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    this.fail('holds a number that does not end');
    return -1;
  }

  private isUtf8(from: number, to: number): boolean {
    let i = from;
    while (i < to && this.bytes[i] < 0x80) i++;
    if (i === to) return true;
    try {
      this.utf8.decode(this.bytes.subarray(from, to));
      return true;
    } catch {
      return false;
    }
  }

  private packed(rule: FieldRule, length: number): boolean {
    const width = rule.wire === WireType.Bit64 ? 8 : rule.wire === WireType.Bit32 ? 4 : 0;
    if (width > 0) return length % width === 0 || this.fail('holds part of a number');
    let run = 0;
    for (let i = this.position; i < this.position + length; i++) {
      run = this.bytes[i] < 0x80 ? 0 : run + 1;
      if (run === 10) return this.fail('holds a number that does not end');
    }
    return run === 0 || this.fail('ends in the middle of a number');
  }

  private block(rule: FieldRule | undefined, end: number, depth: number): boolean {
    const length = this.varint(end);
    if (length < 0) return false;
    if (length > end - this.position) {
      const inFile = length > this.bytes.length - this.position;
      return this.fail(
        inFile
          ? `claims ${length} bytes but the file has only ${this.bytes.length - this.position} left`
          : `claims ${length} bytes, more than the ${end - this.position} left of the part it lies in`,
        inFile,
      );
    }
    const stop = this.position + length;
    if (rule?.message) {
      if (!this.message(rule.message, stop, depth + 1)) return false;
    } else if (rule?.packable) {
      if (!this.packed(rule, length)) return false;
    } else if (rule?.text && !this.isUtf8(this.position, stop)) {
      return this.fail('is not UTF-8 text');
    }
    this.position = stop;
    return true;
  }

  private skip(bytes: number, end: number): boolean {
    if (end - this.position < bytes) return this.fail('ends in the middle of a number', end === this.bytes.length);
    this.position += bytes;
    return true;
  }

  private value(wire: number, rule: FieldRule | undefined, number: number, end: number, depth: number): boolean {
    switch (wire) {
      case WireType.Varint:
        return this.varint(end) >= 0;
      case WireType.Bit64:
        return this.skip(8, end);
      case WireType.Bit32:
        return this.skip(4, end);
      case WireType.LengthDelimited:
        return this.block(rule, end, depth);
      case WireType.StartGroup:
        return this.group(number, end, depth + 1);
      default:
        return this.fail(`has wire type ${wire}, which is not allowed here`);
    }
  }

  /** Reads fields of an unknown group up to its end tag. */
  private group(number: number, end: number, depth: number): boolean {
    if (depth > MAX_DEPTH) return this.fail('is nested too deeply');
    for (;;) {
      const tag = this.varint(end);
      if (tag < 0) return false;
      const wire = tag % 8;
      const inner = Math.floor(tag / 8);
      if (wire === WireType.EndGroup) return inner === number || this.fail('ends a group that was not begun');
      if (!this.checkNumber(inner) || !this.value(wire, undefined, inner, end, depth)) return false;
    }
  }

  private checkNumber(number: number): boolean {
    return (number > 0 && number < 2 ** 29) || this.fail(`has a field with the impossible number ${number}`);
  }

  message(desc: DescMessage, end: number, depth: number): boolean {
    if (depth > MAX_DEPTH) return this.fail('is nested too deeply');
    const rules = rulesOf(desc);
    while (this.position < end) {
      const tag = this.varint(end);
      if (tag < 0) return false;
      const wire = tag % 8;
      const number = Math.floor(tag / 8);
      if (!this.checkNumber(number)) return false;
      const rule = rules.get(number);
      this.path.push(rule?.name ?? `field ${number}`);
      if (rule && wire !== rule.wire && !(rule.packable && wire === WireType.LengthDelimited)) {
        return this.fail(`has wire type ${wire} instead of ${rule.wire}`);
      }
      if (!this.value(wire, rule, number, end, depth)) return false;
      this.path.pop();
    }
    return true;
  }
}

/** The first defect of the framing of `bytes` as a message of type `desc`, or undefined. Time is linear in the number of fields. */
export function findWireProblem(desc: DescMessage, bytes: Uint8Array): WireProblem | undefined {
  const framing = new Framing(bytes);
  framing.message(desc, bytes.length, 1);
  return framing.found;
}
