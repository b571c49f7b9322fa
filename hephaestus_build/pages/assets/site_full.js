"use strict";
// The address says what is shown: full.html#frame=FRAME&pair=YYYYMMDD_YYYYMMDD&layer=phase&as=HASH, where the hash is that
// of the manifest of the cube of which the frame's page was made.

const settings = JSON.parse(byId("data").textContent);
const LAYERS = {
  phase: {title: "Wrapped phase", low: "\u2212\u03c0", high: "\u03c0", codes: codesOfPhase},
  coherence: {title: "Coherence", low: "0", high: "1", codes: (values) => values},
};
const MASKS = ["no deformation", "volcanic deformation", "earthquake"];
const progress = {
  of: 0,
  at: 0,
  total(size) {
    this.of += size;
  },
  done(size) {
    this.at += size;
    if (byId("progress").hidden) return; // another object has failed: its message stays
    byId("progress").value = this.of ? this.at / this.of : 0;
    if (this.of > 1e5) say(`Reading the cube: ${sizeText(this.at)} of ${sizeText(this.of)}`);
  },
  start() {
    [this.of, this.at] = [0, 0];
    byId("progress").hidden = false;
    say("Reading the cube");
  },
};
let pair = null, view = null, asked = null, values = {};

function say(words, kind = "") {
  byId("message").textContent = words;
  byId("message").dataset.kind = kind;
}

/** Return the code of each phase: 0 for no data, 1 to 255 for -pi to pi. */
function codesOfPhase(phases) {
  const codes = new Uint8Array(phases.length);
  for (let i = 0; i < codes.length; i++) {
    if (phases[i]) codes[i] = 1 + Math.min(Math.max(Math.floor((phases[i] + Math.PI) * 127 / Math.PI + 0.5), 0), 254);
  }
  return codes;
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const found = {frame: words.get("frame") || "", pair: words.get("pair") || "", layer: words.get("layer") in LAYERS ? words.get("layer") : "phase", as: words.get("as") || ""};
  if (!/^[0-9A-Za-z_]{5,40}$/.test(found.frame) || !/^[0-9]{8}_[0-9]{8}$/.test(found.pair)) {
    throw new CubeProblem("This address names no pair: choose one on the page of a frame, and there \u201cfull resolution\u201d.");
  }
  return found;
}

const isoOf = (digits) => `${digits.slice(0, 4)}-${digits.slice(4, 6)}-${digits.slice(6)}`;

function announce() {
  const [primary, secondary] = asked.pair.split("_").map((digits) => dayText(isoOf(digits)));
  byId("heading").textContent = `${primary} \u2013 ${secondary}`;
  byId("kicker").textContent = `Full resolution, frame ${asked.frame}`;
  document.title = `${asked.frame} ${asked.pair}, full resolution${settings.simulated ? " (SIMULATED)" : ""}`;
  byId("back").textContent = asked.frame;
  byId("back").href = `frames/${asked.frame}.html#${asked.pair}`;
  byId("back").hidden = false;
}

async function loadScripts() {
  try {
    const [zarr, {decompress}] = await Promise.all([import("zarrita"), import("fzstd")]);
    registerCodecs(zarr.registry, decompress);
    return zarr;
  } catch (error) {
    throw new CubeProblem(`The scripts in the folder vendor of this site are not there or do not run here (${error.message}): write the site again with \`hephaestus site --full-resolution\`, and copy the folder too.`);
  }
}

async function start() {
  if (location.protocol === "file:") {
    throw new CubeProblem("Full resolution needs a web server: from a disk (file://) a browser reads no cube. Serve the folder of the site, for example with `python -m http.server`, and open it from there. All other pages work from a disk too.");
  }
  asked = readAddress();
  announce();
  const zarr = await loadScripts();
  const base = new URL(`${settings.cubes}${asked.frame}.zarr/`, location.href.split("#")[0]).href;
  await again(async () => {
    progress.start();
    values = {};
    pair = await CubePair.open(zarr, base, asked, settings.simulated, progress);
    await readLayers(asked.layer);
  });
  byId("shown").hidden = false;
  view = view || new View(byId("view"), {read});
  view.resize(pair.width, pair.height, pair.pixel[0] / pair.pixel[1]);
  listen();
  await showLayer(asked.layer);
  view.showMask(values.mask);
}

/** Do something that reads the cube; once more where the cube was published again meanwhile. */
async function again(action) {
  try {
    await action();
  } catch (error) {
    if (error.kind !== "overtaken") throw error;
    await action();
  }
}

async function readLayers(layer) {
  for (const name of [layer, "mask"]) values[name] = values[name] || await pair.values(name);
  byId("progress").hidden = true;
  const newer = asked.as && asked.as !== pair.store.identity;
  say(newer ? "The cube was published again since the page of this frame was written: this is what it holds now." : "");
}

async function showLayer(layer) {
  delete document.body.dataset.ready;
  if (!values[layer]) {
    progress.start();
    await readLayers(layer);
  }
  asked.layer = layer;
  const {title, low, high, codes} = LAYERS[layer];
  const palette = Uint8Array.from(settings.palettes[layer].match(/../g), (byte) => parseInt(byte, 16));
  view.paint(codes(values[layer]), palette);
  drawLegend(palette);
  [byId("low").textContent, byId("high").textContent] = [low, high];
  byId("view").setAttribute("aria-label", `${title} of ${asked.pair.replace("_", " to ")}${settings.simulated ? ", simulated" : ""}`);
  const metres = pair.pixel.map((size) => Math.round(size)).join(" x ");
  byId("note").textContent = `${pair.width} x ${pair.height} pixels of ${metres} m, each as the cube holds it; the picture has 255 colours, the values are read from the cube. Nothing is averaged.`;
  document.querySelector(`input[value=${layer}]`).checked = true;
  const words = new URLSearchParams(location.hash.slice(1));
  words.set("layer", layer);
  history.replaceState(null, "", `#${words}`);
  read(view.cursor);
  document.body.dataset.ready = layer;
}

/** Show another layer; where the cube was published again since the first one was read, read both. */
function change(layer) {
  return showLayer(layer).catch((error) => error.kind === "overtaken" ? location.reload() : fail(error));
}

function drawLegend(palette) {
  const legend = byId("legend");
  legend.width = 255;
  const pen = legend.getContext("2d");
  for (let code = 1; code < 256; code++) {
    pen.fillStyle = `rgb(${palette.subarray(3 * code, 3 * code + 3).join(" ")})`;
    pen.fillRect(code - 1, 0, 1, 1);
  }
}

/** Say what is under the cursor. */
function read(place) {
  const said = [];
  if (place) {
    const at = place.y * pair.width + place.x;
    said.push(placeText(pair.latitude[place.y], pair.longitude[place.x]));
    if (values.phase) said.push(values.phase[at] ? `${signed(values.phase[at], 2)} rad` : "no phase");
    if (values.coherence) said.push(values.coherence[at] ? `coherence ${(values.coherence[at] / 255).toFixed(2)}` : "no coherence");
    if (values.mask[at]) said.push(MASKS[values.mask[at]] || "masked");
  }
  byId("readout").textContent = said.join(" \u00b7 ");
}

function listen() {
  const box = byId("toggle-mask"), layers = document.querySelectorAll("input[name=layer]");
  const toggle = () => view.showMask(box.checked ? values.mask : null);
  box.addEventListener("change", toggle);
  for (const input of layers) input.addEventListener("change", () => change(input.value));
  const buttons = {closer: () => view.zoomAtCursor(1.6), farther: () => view.zoomAtCursor(1 / 1.6), whole: () => view.fit()};
  for (const [name, action] of Object.entries(buttons)) byId(name).addEventListener("click", action);
  const keys = {
    "+": buttons.closer, "=": buttons.closer, "-": buttons.farther, "0": buttons.whole, "1": () => view.native(),
    p: () => change("phase"), c: () => change("coherence"),
    m: () => {
      box.checked = !box.checked;
      toggle();
    },
  };
  document.addEventListener("keydown", (event) => {
    const action = keys[event.key.toLowerCase()];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
}

function fail(error) {
  byId("progress").hidden = true;
  say(error instanceof CubeProblem ? error.message : `This cannot be shown: ${error.message}`, "alarm");
  document.body.dataset.ready = "failed";
}

addEventListener("hashchange", () => location.reload());
start().catch(fail);
