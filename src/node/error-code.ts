/** What the system says of a failed call. */

/** `ENOENT` and the like; undefined for errors that the system did not report. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
