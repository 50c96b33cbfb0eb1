/** Tests neither use nor change what this machine remembers of measurements. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), 'flow-compress-tests-'));
  process.env['XDG_CACHE_HOME'] = folder;
  return () => {
    rmSync(folder, { recursive: true, force: true });
  };
}
