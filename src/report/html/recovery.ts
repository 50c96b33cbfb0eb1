/** What learning from the original brought, as a section of the page. */
import { recoveryRows, recoverySentence } from '../recovery.js';
import type { RecoveredReport } from '../recovery.js';
import type { Content } from './markup.js';
import { section, textTable } from './parts.js';

export function recoverySection(report: RecoveredReport): Content {
  const sentence = recoverySentence(report);
  return sentence === undefined ? undefined : section('Recovery', sentence, textTable(recoveryRows(report)));
}
