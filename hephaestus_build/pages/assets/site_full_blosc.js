"use strict";
// Blosc around blocks of Zstandard, with a byte shuffle: what the images of a cube are stored in. The decoder that zarrita
// knows is WebAssembly that makes functions of text, which the policy of the page forbids.

const SHUFFLED = 1, COPIED = 2, BIT_SHUFFLED = 4, ONE_STREAM = 16, ZSTANDARD = 4;

/** Let zarrita decode what cubes are stored in by a decoder of Zstandard. */
function registerCodecs(registry, decompress) {
  const decoders = {zstd: decompress, blosc: (bytes) => decodeBlosc(bytes, decompress)};
  for (const [name, decode] of Object.entries(decoders)) {
    registry.set(name, async () => ({fromConfig: () => ({kind: "bytes_to_bytes", decode: (bytes) => decode(bytes)})}));
  }
}

/**
 * Return the content of a Blosc buffer: a header of 16 bytes (two versions, flags, bytes of a value, then the sizes
 * decoded, of a block and encoded), the place of each block, and each block after its encoded size. A block whose encoded
 * size is its length is not compressed.
 */
function decodeBlosc(bytes, decompress) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [flags, width] = [bytes[2], bytes[3]];
  const [size, block, encoded] = [4, 8, 12].map((at) => view.getUint32(at, true));
  if (encoded !== bytes.length || size > 4 * MOST_PIXELS || !width || !block) throw new Error("its header is damaged");
  if (flags & COPIED) return bytes.slice(16, 16 + size);
  if (flags >> 5 !== ZSTANDARD || flags & BIT_SHUFFLED || !(flags & ONE_STREAM)) throw new Error("it is not Zstandard with a byte shuffle");
  const whole = new Uint8Array(size);
  for (let number = 0, from = 0; from < size; number++, from += block) {
    const length = Math.min(block, size - from);
    const at = view.getUint32(16 + 4 * number, true), count = view.getUint32(at, true);
    const piece = bytes.subarray(at + 4, at + 4 + count);
    const part = count === length ? piece : decompress(piece);
    if (part.length !== length) throw new Error("a block has another length than it says");
    if (flags & SHUFFLED && width > 1) unshuffle(part, whole.subarray(from, from + length), width);
    else whole.set(part, from);
  }
  return whole;
}

/** Put the bytes of values together again: first bytes stand first, then the second ones, and so on. */
function unshuffle(part, target, width) {
  const count = Math.floor(part.length / width);
  for (let byte = 0; byte < width; byte++) {
    for (let i = 0, to = byte, from = byte * count; i < count; i++, to += width, from++) target[to] = part[from];
  }
  target.set(part.subarray(width * count), width * count);
}
