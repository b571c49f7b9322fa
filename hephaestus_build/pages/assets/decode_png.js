"use strict";
// Pictures are PNG files whose samples are the values themselves: they are decoded here, not read back from a
// canvas, since some browsers change what a canvas gives back.

/** Return the bytes of base64 text. */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Resolve to what zlib has compressed, whose bytes come in parts. */
async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Decode a PNG of one channel of 8 or 16 bits; resolve to {width, height, samples, palette}. */
async function decodePng(base64) {
  const bytes = fromBase64(base64);
  const view = new DataView(bytes.buffer);
  const parts = [];
  let width = 0, height = 0, depth = 8, palette = null;
  for (let at = 8; at < bytes.length;) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const start = at + 8;
    if (name === "IHDR") {
      [width, height, depth] = [view.getUint32(start), view.getUint32(start + 4), bytes[start + 8]];
    } else if (name === "PLTE") {
      palette = bytes.slice(start, start + length);
    } else if (name === "IDAT") {
      parts.push(bytes.subarray(start, start + length));
    }
    at = start + length + 4;
  }
  const raw = await inflate(parts);
  const size = depth / 8;
  const row = width * size;
  const pixels = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    unfilter(raw[y * (row + 1)], raw.subarray(y * (row + 1) + 1, (y + 1) * (row + 1)), pixels, y * row, row, size);
  }
  let samples = pixels;
  if (size === 2) {
    samples = new Uint16Array(width * height);
    for (let i = 0; i < samples.length; i++) samples[i] = 256 * pixels[2 * i] + pixels[2 * i + 1];
  }
  return {width, height, samples, palette};
}

/** Undo one of PNG's five filters for one row. */
function unfilter(kind, source, target, start, row, size) {
  for (let x = 0; x < row; x++) {
    const left = x >= size ? target[start + x - size] : 0;
    const up = start ? target[start + x - row] : 0;
    const corner = x >= size && start ? target[start + x - row - size] : 0;
    let guess = 0;
    if (kind === 1) guess = left;
    else if (kind === 2) guess = up;
    else if (kind === 3) guess = (left + up) >> 1;
    else if (kind === 4) {
      const sum = left + up - corner;
      const [a, b, c] = [Math.abs(sum - left), Math.abs(sum - up), Math.abs(sum - corner)];
      guess = a <= b && a <= c ? left : b <= c ? up : corner;
    }
    target[start + x] = source[x] + guess;
  }
}
