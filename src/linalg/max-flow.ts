/** Maximum flow and minimum cut of a directed network (Dinic's algorithm, real capacities). */

/** Network under construction. Vertices are numbered from 0 in the order they were added. */
export interface FlowNetwork {
  addVertex(): number;
  /** Adds capacity from `from` to `to`; `Infinity` makes the edge uncuttable. Negative capacities are refused. */
  addEdge(from: number, to: number, capacity: number): void;
  /**
   * The minimum cut between two vertices. Among cuts of equal value it is the one with the smallest source side, so the
   * result does not depend on the order in which edges were added.
   * @returns `value`: total capacity cut (`Infinity` when source and sink cannot be parted); `sourceSide[v]`: true for
   *   the vertices that stay with the source. May be called once.
   */
  minimumCut(source: number, sink: number): { value: number; sourceSide: boolean[] };
}

/** Capacities below this share of the largest finite one count as used up, so that rounding cannot keep the search alive. */
const RELATIVE_EPSILON = 1e-12;

export function flowNetwork(): FlowNetwork {
  // Edge e and its reverse e ^ 1 share their residual capacities.
  const head: number[][] = [];
  const target: number[] = [];
  const residual: number[] = [];

  const addEdge = (from: number, to: number, capacity: number): void => {
    if (!(capacity >= 0)) throw new RangeError(`A capacity cannot be ${String(capacity)}.`);
    head[from]!.push(target.length);
    target.push(to);
    residual.push(capacity);
    head[to]!.push(target.length);
    target.push(from);
    residual.push(0);
  };

  const minimumCut: FlowNetwork['minimumCut'] = (source, sink) => {
    const finite = residual.reduce((max, c) => (Number.isFinite(c) && c > max ? c : max), 0);
    const epsilon = finite * RELATIVE_EPSILON;
    let value = 0;
    for (;;) {
      const level = levels(source, epsilon);
      if (level[sink]! < 0) return { value, sourceSide: level.map((l) => l >= 0) };
      const next = head.map(() => 0);
      for (;;) {
        const pushed = augment(source, sink, level, next, epsilon);
        if (pushed === Infinity) return { value: Infinity, sourceSide: level.map(() => true) };
        if (pushed === 0) break;
        value += pushed;
      }
    }
  };

  /** Breadth-first distances in the residual network, -1 where it does not reach. */
  const levels = (source: number, epsilon: number): number[] => {
    const level = head.map(() => -1);
    level[source] = 0;
    const queue = [source];
    for (const vertex of queue) {
      for (const edge of head[vertex]!) {
        const to = target[edge]!;
        if (residual[edge]! > epsilon && level[to]! < 0) {
          level[to] = level[vertex]! + 1;
          queue.push(to);
        }
      }
    }
    return level;
  };

  /** Pushes flow along one shortest path, depth first with an explicit stack; 0 when none is left at these levels. */
  const augment = (source: number, sink: number, level: number[], next: number[], epsilon: number): number => {
    const path: number[] = [];
    let vertex = source;
    while (vertex !== sink) {
      const edges = head[vertex]!;
      let advanced = false;
      for (; next[vertex]! < edges.length; next[vertex]!++) {
        const edge = edges[next[vertex]!]!;
        const to = target[edge]!;
        if (residual[edge]! > epsilon && level[to] === level[vertex]! + 1) {
          path.push(edge);
          vertex = to;
          advanced = true;
          break;
        }
      }
      if (advanced) continue;
      const back = path.pop();
      if (back === undefined) return 0;
      vertex = target[back ^ 1]!;
      next[vertex]!++;
    }
    const amount = path.reduce((min, edge) => Math.min(min, residual[edge]!), Infinity);
    if (amount === Infinity) return Infinity;
    for (const edge of path) {
      residual[edge]! -= amount;
      residual[edge ^ 1]! += amount;
    }
    return amount;
  };

  return {
    addVertex: () => head.push([]) - 1,
    addEdge,
    minimumCut,
  };
}
