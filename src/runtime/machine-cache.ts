/** What was measured on this machine, kept between runs of the program. */

/** Both functions leave errors of the storage to themselves: what cannot be read is measured again. */
export interface MachineCache {
  read(key: string): Promise<string | undefined>;
  write(key: string, text: string): Promise<void>;
}
