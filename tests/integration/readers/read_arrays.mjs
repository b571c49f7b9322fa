// Read arrays of a Zarr store with zarrita and print the SHA-256 of each, as JSON by path:
// node read_arrays.mjs STORE PATH...
import { createHash } from "node:crypto";
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

const [store, ...paths] = process.argv.slice(2);
const root = zarr.root(new FileSystemStore(store));

/** Bytes of a typed array, of a scalar (a BigInt or a number), or of texts (their JSON list). */
function bytes(array, found) {
  if (array.shape.length === 0) return BigInt64Array.of(BigInt(found));
  if (array.dtype === "string") return `[${found.data.map((text) => JSON.stringify(text)).join(", ")}]`;
  const { buffer, byteOffset, byteLength } = found.data;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

const digests = {};
for (const path of paths) {
  const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
  const content = bytes(array, await zarr.get(array));
  digests[path] = createHash("sha256").update(content).digest("hex");
}
console.log(JSON.stringify(digests));
