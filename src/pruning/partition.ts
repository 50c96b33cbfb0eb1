/** Classes of indices that stay or go together: a disjoint-set forest whose classes may be fixed. */

/** Cause of a class that is not fixed. */
export const FREE = 0;

/** Members are numbered from 0 in the order in which they were added. */
export class Partition {
  private parent = new Int32Array(1024);
  private cause = new Int32Array(1024);
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** Adds `count` members, each in a class of its own. @returns the first one */
  add(count: number): number {
    const start = this.count;
    this.count += count;
    if (this.count > this.parent.length) {
      const capacity = Math.max(this.count, this.parent.length * 2);
      this.parent = grown(this.parent, capacity);
      this.cause = grown(this.cause, capacity);
    }
    for (let i = start; i < this.count; i++) this.parent[i] = i;
    return start;
  }

  /** The member that stands for the class: its smallest. */
  find(member: number): number {
    const { parent } = this;
    let at = member;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]];
      at = parent[at];
    }
    return at;
  }

  join(a: number, b: number): void {
    const [first, second] = [this.find(a), this.find(b)];
    if (first === second) return;
    const [root, child] = first < second ? [first, second] : [second, first];
    this.parent[child] = root;
    if (this.cause[child] !== FREE) this.fix(root, this.cause[child]);
  }

  /** Fixes the class of a member; of several causes the smallest number is kept. */
  fix(member: number, cause: number): void {
    const root = this.find(member);
    const known = this.cause[root];
    if (known === FREE || cause < known) this.cause[root] = cause;
  }

  /** Why the class of a member is fixed, or FREE. */
  causeOf(member: number): number {
    return this.cause[this.find(member)];
  }
}

function grown(array: Int32Array<ArrayBuffer>, capacity: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(capacity);
  larger.set(array);
  return larger;
}
