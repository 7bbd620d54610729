// Whole numbers out of JSON's bytes: the one loop in which a large answer's time goes.

export const [COMMA, MINUS, ZERO, NINE, CLOSE] = [0x2c, 0x2d, 0x30, 0x39, 0x5d];

/** Numbers of so many digits fit 32-bit arithmetic, which is the fast one; two such halves make any number of the API. */
const HALF_DIGITS = 9;

export interface Scanned {
  /** Where reading goes on. */
  at: number;
  count: number;
  /** What was met: the array's end, what is no whole number, or the end of the bytes or of the block. */
  met: "end" | "junk" | "more";
}

/** The place of the last byte that cannot be within a number, -1 when there is none from `from` on. */
export function findLastBorder(bytes: Uint8Array, from: number): number {
  let at = bytes.length - 1;
  while (at >= from && (bytes[at] === MINUS || (bytes[at]! >= ZERO && bytes[at]! <= NINE))) at -= 1;
  return at >= from ? at : -1;
}

/**
 * Reads numbers that commas part into `block`, until it is full. `border` is what
 * `findLastBorder` gave: no number that begins before it reaches beyond it, so that
 * the loop need not look for the end of the bytes.
 */
export function scanNumbers(bytes: Uint8Array, from: number, border: number, block: Float64Array): Scanned {
  let at = from;
  let count = 0;
  while (at <= border && count < block.length) {
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
      // Beyond 18 digits no number is exact anyway.
      while (digit >>> 0 < 10) {
        value = value * 10 + digit;
        digit = (bytes[(at += 1)]! - ZERO) | 0;
      }
    }
    if (at === first) return { at, count, met: "junk" };
    block[count] = negative ? -value : value;
    count += 1;
    if (digit === COMMA - ZERO) at += 1;
    else return { at, count, met: digit === CLOSE - ZERO ? "end" : "junk" };
  }
  return { at, count, met: "more" };
}
