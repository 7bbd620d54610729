// Parses whole numbers from JSON bytes: the hot loop of reading a large answer.

export const [COMMA, MINUS, ZERO, NINE, CLOSE] = [0x2c, 0x2d, 0x30, 0x39, 0x5d];

/**
 * Numbers of this many digits fit into 32-bit arithmetic, which is faster; two such halves hold any
 * number of the API.
 */
const HALF_DIGITS = 9;

export interface ScanResult {
  /** The position at which scanning stopped. */
  at: number;
  count: number;
  /**
   * The cause of the stop: the array's end, an unexpected byte, or no more bytes or room in the
   * block.
   */
  cause: "end" | "junk" | "more";
}

/**
 * The position of the last byte that is not part of a number, or -1 if there is none from `from`
 * on.
 */
export function findLastDelimiter(bytes: Uint8Array, from: number): number {
  let at = bytes.length - 1;
  while (at >= from && (bytes[at] === MINUS || (bytes[at]! >= ZERO && bytes[at]! <= NINE))) at -= 1;
  return at >= from ? at : -1;
}

/**
 * Parses comma-separated numbers into `block` until it is full. `lastDelimiter` is the result of
 * `findLastDelimiter`: each number that begins before it also ends before it, so the loop needs no
 * check for the end of the bytes.
 */
export function scanNumbers(bytes: Uint8Array, from: number, lastDelimiter: number, block: Float64Array): ScanResult {
  let at = from;
  let count = 0;
  while (at <= lastDelimiter && count < block.length) {
    let digit = (bytes[at]! - ZERO) | 0;
    const negative = digit === MINUS - ZERO;
    if (negative) digit = (bytes[(at += 1)]! - ZERO) | 0;
    const first = at;
    const middle = at + HALF_DIGITS;
    let high = 0;
    while (digit >>> 0 < 10 && at < middle) {
      high = (Math.imul(high, 10) + digit) | 0;
      digit = (bytes[(at += 1)]! - ZERO) | 0;
    }
    let value: number = high;
    if (digit >>> 0 < 10) {
      const last = at + HALF_DIGITS;
      let low = 0;
      let scale = 1;
      while (digit >>> 0 < 10 && at < last) {
        low = (Math.imul(low, 10) + digit) | 0;
        scale = Math.imul(scale, 10);
        digit = (bytes[(at += 1)]! - ZERO) | 0;
      }
      value = high * scale + low;
      // A number with more than 18 digits is not exact in a double anyway.
      while (digit >>> 0 < 10) {
        value = value * 10 + digit;
        digit = (bytes[(at += 1)]! - ZERO) | 0;
      }
    }
    if (at === first) return { at, count, cause: "junk" };
    block[count] = negative ? -value : value;
    count += 1;
    if (digit === COMMA - ZERO) at += 1;
    else return { at, count, cause: digit === CLOSE - ZERO ? "end" : "junk" };
  }
  return { at, count, cause: "more" };
}
