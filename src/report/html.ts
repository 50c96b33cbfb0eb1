/** The report as one self-contained HTML file: inline SVG and CSS, no script, no address, nothing to load. */
import { compressionTitle } from './compressing.js';
import { learnedFrom } from './distillation.js';
import { baseName } from './format.js';
import { benchTitle } from './bench.js';
import { benchBody } from './html/bench.js';
import { compressBody } from './html/compress.js';
import { distillBody } from './html/distill.js';
import { html, trustedMarkup } from './html/markup.js';
import type { Content } from './html/markup.js';
import { evaluateBody, inspectBody, profileBody } from './html/others.js';
import { pruneBody } from './html/prune.js';
import { quantizeBody } from './html/quantize.js';
import { reproductionSection, timeSection, warningNotice } from './html/shared.js';
import { STYLE } from './html/style.js';
import { trainBody } from './html/train.js';
import { pruningTitle } from './pruning.js';
import type { Report } from './report.js';
import { trainingTitle } from './training.js';

/**
 * Draws the page. It follows the reader's light or dark scheme, reads on a 390 px phone and on a desktop, and is the
 * same text for the same report.
 */
export async function reportToHtml(report: Report): Promise<string> {
  const { title, subtitle } = headingOf(report);
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title}</title>
        <style>
          ${trustedMarkup(STYLE)}
        </style>
      </head>
      <body>
        <main>
          <header>
            <div class="brand">Flow Compress</div>
            <h1>${title}</h1>
            <p class="sub">${subtitle}</p>
          </header>
          ${await bodyOf(report)} ${timeSection(report)} ${warningNotice(report)} ${reproductionSection(report)}
          <footer>${footerOf(report)}</footer>
        </main>
      </body>
    </html> `;
  return page.markup;
}

async function bodyOf(report: Report): Promise<Content[]> {
  return (await partsOf(report)).map((part) => html`${part} `);
}

async function partsOf(report: Report): Promise<Content[]> {
  switch (report.command) {
    case 'inspect':
      return await inspectBody(report);
    case 'evaluate':
      return await evaluateBody(report);
    case 'profile':
      return await profileBody(report);
    case 'quantize':
      return await quantizeBody(report);
    case 'prune':
      return await pruneBody(report);
    case 'compress':
      return await compressBody(report);
    case 'train':
      return await trainBody(report);
    case 'bench':
      return await benchBody(report);
    case 'distill':
      return await distillBody(report);
  }
}

function headingOf(report: Report): { title: string; subtitle: string } {
  switch (report.command) {
    case 'inspect':
      return { title: baseName(report.model.path), subtitle: `Inspection of ${report.model.path}` };
    case 'evaluate': {
      const n = report.files.length;
      return {
        title: n === 1 ? baseName(report.files[0].path) : `${n} models compared`,
        subtitle: `Evaluation, target ${report.target}`,
      };
    }
    case 'profile':
      return { title: baseName(report.model), subtitle: `Layer profile, target ${report.target}` };
    case 'quantize':
      return {
        title: baseName(report.output),
        subtitle: `${baseName(report.model)} quantized with ${report.method}, seed ${report.seed}, target ${report.target}`,
      };
    case 'prune':
      return {
        title: baseName(report.output),
        subtitle: `${baseName(report.model)} pruned with ${pruningTitle(report)}`,
      };
    case 'compress':
      return {
        title: baseName(report.output),
        subtitle: `${baseName(report.model)} compressed with ${compressionTitle(report)}`,
      };
    case 'train':
      return {
        title: baseName(report.output),
        subtitle: `${baseName(report.model)} trained: ${trainingTitle(report)}`,
      };
    case 'bench':
      return { title: benchTitle(report), subtitle: `Comparison in ${report.folder}, target ${report.target}` };
    case 'distill':
      return {
        title: baseName(report.output),
        subtitle: `${learnedFrom(report)}: ${trainingTitle(report)}`,
      };
  }
}

function footerOf(report: Report): string {
  if (report.command === 'inspect') return 'What could not be determined is not shown.';
  const engine = report.environment === undefined ? '' : ` with ${report.environment.engine}`;
  return `Accuracy, bytes and latency were measured on the files themselves${engine}; what was not measured is not shown.`;
}
