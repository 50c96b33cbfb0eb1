/** Vega-Lite specification -> SVG text, without a browser or a canvas. */
import { View, parse } from 'vega';
import { compile } from 'vega-lite';
import type { TopLevelSpec } from 'vega-lite';
import { THEME } from './theme.js';

/**
 * Draws a specification. The SVG has a viewBox and its natural width and height in pixels. With `tooltips`, marks with a
 * description show it on hover; without, descriptions of single marks are left out, which saves most of the bytes.
 */
export async function renderSvg(spec: TopLevelSpec, tooltips = true): Promise<string> {
  const view = new View(parse(compile({ ...spec, config: { ...THEME, ...spec.config } }).spec), { renderer: 'none' });
  try {
    const svg = await view.toSVG();
    return tooltips ? withTooltips(svg) : withoutDescriptions(svg);
  } finally {
    view.finalize();
  }
}

/** Marks `<path aria-label="..." .../>` get a `<title>` child, which browsers show on hover without any script. */
function withTooltips(svg: string): string {
  return svg.replace(
    /<(path|line|circle) aria-label="([^"]*)"([^<>]*)\/>/g,
    (_, tag: string, label: string, rest: string) =>
      `<${tag} aria-label="${label}"${rest}><title>${label}</title></${tag}>`,
  );
}

function withoutDescriptions(svg: string): string {
  return svg.replace(/<(path|line|circle) aria-label="[^"]*"( role="[^"]*")?( aria-roledescription="[^"]*")?/g, '<$1');
}
