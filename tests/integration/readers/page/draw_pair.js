// Draw the wrapped phase of one pair: index.html?primary=0&secondary=2, by positions on the date axes.
// What was drawn is sent back to the server of the page: the pixels of the canvas, or the error.
import { FetchStore, get, open, root } from "zarrita";

/** Colour of a phase in radians: once around the wheel of hues from -pi to pi; white where there is no data. */
function colour(phase) {
  if (phase === 0) return [255, 255, 255];
  const turn = ((phase + Math.PI) / (2 * Math.PI)) * 6;
  const channels = [Math.abs(turn - 3) - 1, 2 - Math.abs(turn - 2), 2 - Math.abs(turn - 4)];
  return channels.map((value) => Math.floor(255 * Math.min(1, Math.max(0, value))));
}

async function draw(primary, secondary) {
  const cube = root(new FetchStore(new URL("cube.zarr", location.href).href));
  const phase = await open.v3(cube.resolve("insar_difference"), { kind: "array" });
  const { data, shape } = await get(phase, [primary, secondary, null, null]);
  const canvas = document.querySelector("canvas");
  [canvas.height, canvas.width] = shape;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  data.forEach((value, index) => picture.data.set([...colour(value), 255], 4 * index));
  context.putImageData(picture, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

const query = new URLSearchParams(location.search);
try {
  const pixels = await draw(Number(query.get("primary")), Number(query.get("secondary")));
  await fetch("drawn", { method: "POST", body: pixels });
} catch (error) {
  await fetch("failed", { method: "POST", body: `${error}\n${error.stack}` });
}
