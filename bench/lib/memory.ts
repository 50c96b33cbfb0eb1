/** Memory of this process. */
import { existsSync, readFileSync } from 'node:fs';

/** Peak resident bytes. On Linux VmHWM: ru_maxrss may carry over the peak of the parent. */
export function peakRss(): number {
  const status = '/proc/self/status';
  const line = existsSync(status) ? /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(status, 'utf8')) : null;
  return line ? Number(line[1]) * 1024 : process.resourceUsage().maxRSS * 1024;
}
