// The arithmetic of the model, on rows of float32. Sums are kept in float64, as JavaScript computes.

/**
 * y = x Wᵀ + b for every row of x.
 * @param {Float32Array} x (T, in)
 * @param {{shape: number[], data: Float32Array}} weight (out, in)
 * @param {Float32Array} [bias] (out)
 * @returns {Float32Array} (T, out)
 */
export function linear(x, { shape: [rows, size], data }, bias) {
  const length = x.length / size, y = new Float32Array(length * rows);
  for (let row = 0; row < rows; row++) { // the outer loop: each row of the weight is read once
    const from = row * size;
    for (let t = 0; t < length; t++) {
      let a = 0, b = 0, c = 0, d = 0, i = 0;
      const at = t * size, last = size - 3;
      for (; i < last; i += 4) { // four sums, which do not wait for one another
        a += x[at + i] * data[from + i];
        b += x[at + i + 1] * data[from + i + 1];
        c += x[at + i + 2] * data[from + i + 2];
        d += x[at + i + 3] * data[from + i + 3];
      }
      for (; i < size; i++) a += x[at + i] * data[from + i];
      y[t * rows + row] = a + b + c + d + (bias ? bias[row] : 0);
    }
  }
  return y;
}

/**
 * RMSNorm (Zhang and Sennrich 2019): each row divided by its root mean square, times the weight.
 * @param {Float32Array} x (T, C)
 * @param {Float32Array} weight (C)
 * @param {number} eps
 */
export function rmsNorm(x, weight, eps) {
  const size = weight.length, y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += size) {
    let squares = 0;
    for (let i = 0; i < size; i++) squares += x[at + i] * x[at + i];
    const scale = 1 / Math.sqrt(squares / size + eps);
    for (let i = 0; i < size; i++) y[at + i] = x[at + i] * scale * weight[i];
  }
  return y;
}

/**
 * Softmax of `count` values in place; -Infinity becomes 0.
 * @param {Float32Array} values
 * @param {number} from
 * @param {number} count
 */
export function softmaxInPlace(values, from, count) {
  let largest = -Infinity, sum = 0;
  for (let i = from; i < from + count; i++) largest = Math.max(largest, values[i]);
  for (let i = from; i < from + count; i++) {
    values[i] = Math.exp(values[i] - largest);
    sum += values[i];
  }
  for (let i = from; i < from + count; i++) values[i] /= sum;
}

/**
 * @param {Float32Array} values
 * @returns {number} the index of the largest value; of equal ones the first
 */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/**
 * The indices of the largest values, the largest first; of equal ones the first.
 * @param {ArrayLike<number>} values
 * @param {number} count
 */
export function topIndices(values, count) {
  /** @type {number[]} */
  const best = [];
  for (let i = 0; i < values.length; i++) {
    if (best.length === count && !(values[i] > values[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && values[i] > values[best[at - 1]]) at--;
    best.splice(at, 0, i);
    best.length = Math.min(best.length, count);
  }
  return best;
}

/** @param {number} x */
export const silu = (x) => x / (1 + Math.exp(-x));

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
export function sum(a, b) {
  return a.map((value, i) => value + b[i]);
}
