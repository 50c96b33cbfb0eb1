/**
 * Property tests draw the same cases in every run, so that a change passes or fails for what it is.
 * `FC_SEED=random npm test` (or a number) looks further; a failing seed is printed with its counterexample.
 */
import fc from 'fast-check';

const asked = process.env['FC_SEED'];
if (asked !== 'random') fc.configureGlobal({ seed: Number(asked ?? 20261122) });
