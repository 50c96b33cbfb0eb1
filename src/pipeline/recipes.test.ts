import { describe, expect, it } from 'vitest';
import { COMPRESSION_METHODS, findRecipe, shownStages, stagesOf, withReplaced, type Stage } from './recipes.js';

const shareOf = (stages: readonly Stage[]): number =>
  stages.reduce((sum, stage) => sum + (stage.kind === 'learn' ? stage.share : 0), 0);

describe('recipes', () => {
  it.each(COMPRESSION_METHODS.map((recipe) => [recipe.name, recipe] as const))(
    '%s gives out all learning, once',
    (_, recipe) => {
      expect(shareOf(stagesOf(recipe, true))).toBeCloseTo(1, 12);
      const uncut = stagesOf(recipe, false);
      expect(uncut.every(({ kind }) => kind === 'learn' || kind === 'quantize')).toBe(true);
      if (uncut.some(({ kind }) => kind === 'learn')) expect(shareOf(uncut)).toBeCloseTo(1, 12);
      // A network with new weights has to be cut down first, and to learn afterwards.
      const kinds = recipe.stages.map(({ kind }) => kind);
      if (kinds.includes('renew')) expect(kinds.slice(0, 3)).toEqual(['cut', 'renew', 'learn']);
    },
  );

  it('takes another quantizer and another teaching in the place of its own', () => {
    const recipe = findRecipe('flow-compress')!;
    const shown = (replaced: Parameters<typeof withReplaced>[1]): string => shownStages(withReplaced(recipe, replaced));
    expect(shown({})).toBe('cut idap, learn hints (25 %), quantize faaq, learn answers (75 %)');
    expect(shown({ quantizer: 'hawq', teaching: 'fad' })).toBe(
      'cut idap, learn fad (25 %), quantize hawq, learn fad (75 %)',
    );
    expect(shown({ teaching: 'hints' })).toBe('cut idap, learn hints (25 %), quantize faaq, learn hints (75 %)');
    const uncut = withReplaced(findRecipe('quantize-only')!, { teaching: 'hints' });
    expect(shownStages(uncut)).toBe('quantize faaq, learn hints');
  });

  it('lets an uncut model learn after its rounding alone', () => {
    expect(stagesOf(findRecipe('flow-compress')!, false)).toEqual([
      { kind: 'quantize', method: 'faaq' },
      { kind: 'learn', share: 1, teaching: 'answers' },
    ]);
  });
});
