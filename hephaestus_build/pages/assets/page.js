"use strict";
// One state, many views: the chosen pair, the cursor, the chosen point and what is drawn over the pictures.

const data = JSON.parse(byId("data").textContent);
const pictures = data.pictures ? data.pictures.pairs : {};
const grid = data.pictures ? data.pictures.grid : null;
for (const pair of data.pairs) [pair.pictured, pair.products] = [pair.name in pictures, []];
for (const date of data.dates) date.products = [];
const byName = new Map(data.pairs.map((pair) => [pair.name, pair]));
const shownPairs = Object.keys(pictures).map((name) => byName.get(name));
const dates = new Map(data.dates.map((date) => [date.day, date]));
const state = {pair: byName.get(location.hash.slice(1)) || byName.get(data.shown) || null, cursor: null, point: null, mask: true, probability: false, volcanoes: true};

const slider = byId("slider");
const listener = {hover: moveCursor, pin: choosePoint, key: panelKey, choose: choosePair, hoverPair: describeHovered};
const panels = makePanels();
const network = byId("network") ? new Network(byId("network"), data, listener) : null;
const series = byId("series") ? new Series(byId("series"), listener) : null;

function makePanels() {
  const abouts = {
    phase: {unit: "rad", digits: 2, masked: true, names: !(data.pictures && data.pictures.relief)},
    coherence: {unit: "", digits: 2, masked: true},
    height: {unit: "m", digits: 0, names: true},
    primary: {unit: "", digits: 2},
    secondary: {unit: "", digits: 2},
    probability: {unit: "", digits: 2, masked: true},
  };
  const found = {};
  for (const [name, about] of Object.entries(abouts)) {
    const root = byId(`panel-${name}`);
    if (root) found[name] = new Panel(root, about, listener);
  }
  return found;
}

// ---- the pair -------------------------------------------------------------------------------------------------

async function choosePair(pair) {
  state.pair = pair;
  const place = shownPairs.indexOf(pair);
  if (slider && place >= 0) slider.value = place;
  if (slider) slider.setAttribute("aria-valuetext", pairText(pair));
  if (network) network.mark(pair);
  byId("pair-name").textContent = `${dayText(pair.primary)} \u2013 ${dayText(pair.secondary)}`;
  byId("pair-facts").textContent = pairFacts(pair);
  document.body.dataset.pair = pair.name;
  if (byId("chosen")) byId("chosen").hidden = false;
  showExpert(pair);
  linkFullResolution(pair);
  showProvenance(pair);
  const found = pictures[pair.name];
  const missing = {owed: "Owed: not fetched yet", absent: "Absent in the archive"}[pair.status] || "No picture of this pair in this page";
  const waits = [];
  if (panels.phase) {
    waits.push(panels.phase.show(found && found.phase, found ? `Wrapped phase of ${pairText(pair)}` : missing));
    waits.push(panels.coherence.show(found && found.coherence, found ? `Coherence of ${pairText(pair)}` : missing));
    waits.push(showVapour(panels.primary, pair.primary), showVapour(panels.secondary, pair.secondary));
  }
  if (panels.probability) {
    const picture = found && found.probability;
    waits.push(panels.probability.show(picture, picture ? `Probability of deformation of ${pairText(pair)}` : "Not predicted"));
  }
  waits.push(readOverlays(pair, found));
  await Promise.all(waits);
  drawPanels();
  await showSeries();
  document.body.dataset.ready = pair.name;
}

async function readOverlays(pair, found) {
  const mask = found && found.mask ? await samplesOf(found.mask) : null;
  const chance = found && found.probability ? {...await samplesOf(found.probability), ...found.probability} : null;
  if (state.pair === pair) [state.maskSamples, state.chanceSamples] = [mask, chance];
}

function showVapour(panel, day) {
  const picture = data.pictures.vapour[day];
  const date = dates.get(day);
  panel.root.querySelector(".when").textContent = dayText(day);
  const why = !date || !date.era5 ? "No ERA5 here" : date.era5 === "owed" ? "ERA5 is owed" : "No picture of this date in this page";
  return panel.show(picture, picture ? `Water vapour on ${dayText(day)}` : why);
}

const pairText = (pair) => `${dayText(pair.primary)} to ${dayText(pair.secondary)}`;

function pairFacts(pair) {
  const facts = [`${pair.days} ${pair.days === 1 ? "day" : "days"}`];
  if (pair.baseline !== null) facts.push(`B\u22a5 ${signed(pair.baseline, 0)} m`);
  if (pair.valid !== null) facts.push(`${Math.round(100 * pair.valid)} % of the frame has data`);
  if (pair.alignment) facts.push(pair.alignment === "identical" ? "on the frame's grid as served" : `${pair.alignment} to the frame's grid`);
  if (pair.status !== "stored") facts.push(pair.status === "gone" ? "no longer listed by the archive" : pair.status);
  return facts.join(" \u00b7 ");
}

/** Let the links to full resolution, of which a page of a site has some, lead to a pair. */
function linkFullResolution(pair) {
  for (const link of document.querySelectorAll("a.full")) {
    const asked = new URLSearchParams(link.hash.slice(1));
    asked.set("pair", pair.name);
    link.hash = asked;
    link.hidden = !["stored", "gone"].includes(pair.status);
  }
}

function showExpert(pair) {
  const root = byId("expert");
  root.replaceChildren();
  if (!pair.annotated) {
    root.append(element("p", {class: "quiet"}, "No expert has looked at this pair."));
    return;
  }
  if (pair.caption) root.append(element("blockquote", {dir: "auto"}, pair.caption));
  const said = [pair.deformation ? "Deformation outlined" : "No deformation outlined"];
  if (pair.phase) said.push(`phase: ${pair.phase}`);
  if (pair.confidence !== null) said.push(`confidence ${pair.confidence.toFixed(1)}`);
  root.append(element("p", {}, said.join(" \u00b7 ")));
  const flags = Object.entries(pair.flags).map(([name, value]) => element("li", {}, `${name.replaceAll("_", " ")}: ${value}`));
  if (flags.length) root.append(element("ul", {class: "tags"}, ...flags));
}

function showProvenance(pair) {
  const root = byId("provenance");
  const of = (day) => (dates.get(day) ? dates.get(day).products.map((one) => [one, `ERA5, ${dayText(day)}`]) : []);
  const products = [...pair.products.map((one) => [one, one.role]), ...of(pair.primary), ...of(pair.secondary),
    ...data.dem.map((one) => [one, "height"])];
  root.replaceChildren(...products.map(([product, role]) => productCard(product, role, pair)));
  byId("provenance-note").hidden = pair.products.length > 0;
}

function productCard(product, role, pair) {
  const address = /^https?:\/\//.test(product.url)
    ? element("a", {href: product.url, rel: "noreferrer noopener"}, product.url) : product.url || product.file;
  const done = [...product.notes];
  if (role === "phase" && pair.alignment === "identical") done.unshift("as served: already on the frame's grid");
  const rows = [["file", product.product], ["address", address], ["hash", product.digest], ["size", product.size === null ? "" : sizeText(product.size)],
    ["fetched", product.fetched], ["changed there", product.modified], ["done to it", done.join("; ")], ["why", product.detail]];
  const list = rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("details", {open: role === "phase"},
    element("summary", {}, element("b", {}, role), " ", element("span", {class: product.outcome}, product.outcome)), element("dl", {}, ...list));
}

// ---- cursor and point -----------------------------------------------------------------------------------------

function moveCursor(place) {
  state.cursor = place;
  for (const panel of Object.values(panels)) {
    panel.read(place);
  }
  byId("where").textContent = place ? placeText(...degreesOf(place)) : "";
  schedule();
}

const degreesOf = (place) => [grid.north - place.y * grid.height * grid.dy, grid.west + place.x * grid.width * grid.dx];

function choosePoint(place) {
  state.point = place;
  schedule();
  return showSeries();
}

let waiting = false;
function schedule() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawPanels();
  });
}

function drawPanels() {
  const shared = {
    cursor: state.cursor,
    point: state.point,
    mask: state.mask ? state.maskSamples : null,
    probability: state.probability ? state.chanceSamples : null,
    volcanoes: state.volcanoes ? volcanoPlaces : [],
  };
  for (const panel of Object.values(panels)) panel.draw(shared);
}

const volcanoPlaces = grid ? data.volcanoes.map((one) => ({
  name: one.name,
  x: ((((one.longitude - grid.west) % 360) + 360) % 360) / (grid.width * grid.dx), // also across 180 degrees
  y: (grid.north - one.latitude) / (grid.height * grid.dy),
})).filter(({x, y}) => x >= 0 && x <= 1 && y >= 0 && y <= 1) : [];

async function showSeries() {
  if (!series || !state.pair || !state.point) return;
  const [pair, point] = [state.pair, state.point];
  const chain = shownPairs.filter((one) => one.primary === pair.primary);
  const points = await Promise.all(chain.map(async (one) => {
    const {phase, coherence} = pictures[one.name];
    return {pair: one, phase: await sampleAt(phase, point), coherence: await sampleAt(coherence, point)};
  }));
  if (state.pair !== pair || state.point !== point) return;
  series.show(points, pair);
  const count = chain.length ? `${chain.length} ${chain.length === 1 ? "pair" : "pairs"}` : "no pair with a picture here";
  byId("series-what").textContent = `${placeText(...degreesOf(point))}: ${count} of the primary date ${dayText(pair.primary)}`;
  byId("primaries").value = pair.primary;
}

async function sampleAt(picture, place) {
  const {width, height, samples} = await samplesOf(picture);
  const sample = samples[Math.floor(place.y * height) * width + Math.floor(place.x * width)];
  return sample ? picture.offset + picture.scale * sample : null;
}

function describeHovered(pair) {
  byId("network-what").textContent = pair ? `${pairText(pair)} \u00b7 ${pairFacts(pair)}${pair.pictured ? "" : " \u00b7 no picture in this page"}` : "";
}

// ---- keyboard and controls ------------------------------------------------------------------------------------

function stepPair(by) {
  const at = shownPairs.indexOf(state.pair);
  const next = at < 0 ? shownPairs.length - 1 : Math.min(Math.max(at + by, 0), shownPairs.length - 1);
  if (shownPairs.length && shownPairs[next] !== state.pair) choosePair(shownPairs[next]);
}

function panelKey(event) {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const by = event.shiftKey ? 10 : 1;
  if (steps[event.key]) {
    const from = state.cursor || state.point || {x: 0.5, y: 0.5};
    const move = (value, step, size) => Math.min(Math.max(Math.floor(value * size) + step * by, 0), size - 1) / size + 0.5 / size;
    moveCursor({x: move(from.x, steps[event.key][0], grid.width), y: move(from.y, steps[event.key][1], grid.height)});
  } else if (event.key === "Enter" || event.key === " ") {
    choosePoint(state.cursor || {x: 0.5, y: 0.5});
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

function toggle(name) {
  const box = byId(`toggle-${name}`);
  if (!box) return;
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

const KEYS = {
  ArrowLeft: () => stepPair(-1),
  ArrowRight: () => stepPair(1),
  Home: () => stepPair(-shownPairs.length),
  End: () => stepPair(shownPairs.length),
  m: () => toggle("mask"),
  p: () => toggle("probability"),
  v: () => toggle("volcanoes"),
  d: () => {
    const at = shownPairs.indexOf(state.pair);
    const next = [...shownPairs.slice(at + 1), ...shownPairs.slice(0, at + 1)].find((pair) => pair.deformation);
    if (next) choosePair(next);
  },
};

document.addEventListener("keydown", (event) => {
  const action = KEYS[event.key] || KEYS[event.key.toLowerCase()]; // with Caps Lock too
  const native = event.target.matches("select") || (event.target === slider && event.key.length > 1);
  if (!action || native || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});

/** Give pairs and dates their products, which are compressed. */
async function unpackProvenance() {
  const found = JSON.parse(new TextDecoder().decode(await inflate([fromBase64(data.provenance)])));
  for (const pair of data.pairs) pair.products = found.pairs[pair.name];
  for (const date of data.dates) date.products = found.dates[date.day];
}

async function start() {
  await unpackProvenance();
  for (const stamp of document.querySelectorAll("[data-since]")) {
    const days = Math.floor(Date.now() / 86400000 - dayNumber(stamp.dataset.since));
    if (days !== Number(stamp.dataset.written)) stamp.textContent = `${days} ${days === 1 ? "day" : "days"} ago today`;
  }
  if (!grid) {
    document.body.dataset.ready = "none";
    if (network) network.draw();
    if (state.pair) choosePair(state.pair);
    return;
  }
  for (const name of ["mask", "probability", "volcanoes"]) {
    const box = byId(`toggle-${name}`);
    if (!box) continue;
    box.checked = state[name];
    box.addEventListener("change", () => {
      state[name] = box.checked;
      drawPanels();
    });
  }
  slider.addEventListener("input", () => choosePair(shownPairs[Number(slider.value)]));
  byId("previous").addEventListener("click", () => stepPair(-1));
  byId("next").addEventListener("click", () => stepPair(1));
  const primaries = byId("primaries");
  for (const day of new Set(shownPairs.map((pair) => pair.primary))) {
    const count = shownPairs.filter((pair) => pair.primary === day).length;
    primaries.append(element("option", {value: day}, `${dayText(day)} (${count})`));
  }
  primaries.addEventListener("change", () => choosePair(shownPairs.find((pair) => pair.primary === primaries.value)));
  state.point = volcanoPlaces.length ? {x: volcanoPlaces[0].x, y: volcanoPlaces[0].y} : {x: 0.5, y: 0.5};
  drawLegends();
  if (panels.height) {
    const {relief, heights} = data.pictures;
    panels.height.show(relief, relief ? "Heights as a shaded relief" : "The DEM is owed", heights || relief).then(drawPanels);
  }
  new ResizeObserver(schedule).observe(byId("panels"));
  addEventListener("hashchange", () => {
    const asked = byName.get(location.hash.slice(1));
    if (asked) choosePair(asked);
  });
  choosePair(state.pair);
}

/** Fill the legends with the colours of the pictures' own palettes. */
async function drawLegends() {
  const {relief, relief_legend: ends, vapour} = data.pictures;
  const any = pictures[data.shown];
  const legends = [["phase", any.phase, [1, 255]], ["coherence", any.coherence, [1, 255]], ["height", relief, ends],
    ["primary", Object.values(vapour)[0], [1, 255]], ["secondary", Object.values(vapour)[0], [1, 255]],
    ["probability", any.probability, [1, 255]]];
  for (const [name, picture, [from, to]] of legends) {
    const legend = panels[name] && panels[name].root.querySelector(".scale canvas");
    if (!legend || !picture) continue;
    const {palette} = await samplesOf(picture);
    legend.width = to - from + 1;
    legend.height = 1;
    const pen = legend.getContext("2d");
    for (let code = from; code <= to; code++) {
      pen.fillStyle = `rgb(${palette.subarray(3 * code, 3 * code + 3).join(" ")})`;
      pen.fillRect(code - from, 0, 1, 1);
    }
  }
}

start();
