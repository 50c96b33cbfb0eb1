/** What the registry holds of an architecture. */
import type { Net } from './net.js';
import type { OptionRules, ZooSettings } from './options.js';

export interface Architecture extends OptionRules {
  /** One line for the list. */
  readonly summary: string;
  /** Adds the whole network, inputs and outputs included. */
  readonly build: (net: Net, settings: ZooSettings) => void;
}
