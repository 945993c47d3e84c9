// Write a matrix as a .npy file.

export function npy(rows: number[][]): ArrayBuffer {
  const shape = `(${rows.length}, ${rows[0].length})`;
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + "\n";
  const file = new ArrayBuffer(128 + 4 * rows.length * rows[0].length);
  new Uint8Array(file).set([0x93, ...Buffer.from("NUMPY"), 1, 0, 118, 0, ...Buffer.from(header)]);
  new Float32Array(file, 128).set(rows.flat());
  return file;
}
