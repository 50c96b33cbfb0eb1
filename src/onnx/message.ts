/** Copies of protobuf messages with some fields changed. */

/**
 * A shallow copy of `message` in which `changes` hold. Object spread would lose the prototype, on which protobuf-es
 * keeps the defaults of unset fields.
 */
export function withFields<T extends object>(message: T, changes: Partial<T>): T {
  const copy = Object.create(Object.getPrototypeOf(message) as object) as T;
  return Object.assign(copy, message, changes);
}

/**
 * A shallow copy of `message` in which the given singular fields are unset, not merely empty: a field that is set to its
 * default still takes bytes in the file.
 */
export function withoutFields<T extends object>(message: T, ...fields: (keyof T)[]): T {
  const copy = withFields(message, {});
  for (const field of fields) Reflect.deleteProperty(copy, field);
  return copy;
}
