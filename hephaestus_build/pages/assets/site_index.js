"use strict";
// The page is whole without this script; it adds the search, the colours' switch, and moving the map.

const data = JSON.parse(byId("data").textContent);
const map = byId("map").querySelector("svg");
const home = map.getAttribute("viewBox").split(" ").map(Number);
const marks = map.appendChild(shape("g"));
let view = [...home];

/** Return a text without case, accents and punctuation. */
function fold(text) {
  return text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^a-z0-9]+/g, " ").trim();
}

const listed = data.frames.map((one) => ({
  ...one,
  words: fold([one.frame, one.direction, `track ${one.track}`, ...one.volcanoes.map((at) => data.volcanoes[at].name)].join(" ")).split(" "),
  row: byId(`row-${one.frame}`), shape: byId(`shape-${one.frame}`),
}));
const volcanoes = data.volcanoes.map((one) => ({...one, words: fold(one.name).split(" ")}));
const beginsAll = (asked, words) => asked.every((start) => words.some((word) => word.startsWith(start)));

/** Show the frames and volcanoes whose names have words that begin as what is typed. */
function search() {
  const text = byId("search").value, asked = fold(text).split(" ").filter(Boolean);
  let count = 0;
  for (const frame of listed) {
    const hit = beginsAll(asked, frame.words);
    count += hit;
    if (frame.row) frame.row.hidden = !hit;
    if (frame.shape) {
      frame.shape.classList.toggle("out", !hit);
      frame.shape.parentNode.setAttribute("tabindex", hit ? "0" : "-1");
    }
  }
  const hits = asked.length ? volcanoes.filter((one) => beginsAll(asked, one.words)) : [];
  byId("volcanoes-found").replaceChildren(...hits.slice(0, 20).map((one) => element("li", {}, element("a", {href: one.page}, one.name))));
  marks.replaceChildren(...hits.slice(0, 200).map((one) => shape("circle", {class: "cone", cx: one.at[0], cy: -one.at[1]})));
  byId("found").textContent = asked.length
    ? `${count} of ${listed.length} frames, ${hits.length} ${hits.length === 1 ? "volcano" : "volcanoes"}${hits.length > 20 ? ", 20 of them named" : ""}`
    : data.found;
  document.body.dataset.found = String(count);
  if (asked.length && count) showBoxes(listed.filter((one) => one.box && beginsAll(asked, one.words)).map((one) => one.box));
  else show(asked.length ? view : home);
}

function showBoxes(boxes) {
  if (!boxes.length) return;
  const [west, east] = [Math.min(...boxes.map((one) => one[0])), Math.max(...boxes.map((one) => one[2]))];
  const [south, north] = [Math.min(...boxes.map((one) => one[1])), Math.max(...boxes.map((one) => one[3]))];
  const ratio = home[2] / home[3];
  const wide = Math.max(1.5 * (east - west), 1.5 * (north - south) * ratio, 14);
  show(wide >= home[2] ? home : [(west + east - wide) / 2, -(south + north + wide / ratio) / 2, wide, wide / ratio]);
}

function show(next) {
  view = [...next];
  map.setAttribute("viewBox", view.map((one) => one.toFixed(3)).join(" "));
  for (const mark of marks.children) mark.setAttribute("r", view[2] / 150);
}

/** Zoom about a place of the view, given as parts of its width and height. */
function zoom(factor, x = 0.5, y = 0.5) {
  const wide = Math.min(Math.max(view[2] * factor, 2), 400), tall = wide * view[3] / view[2];
  show([view[0] + (view[2] - wide) * x, view[1] + (view[3] - tall) * y, wide, tall]);
}

/** Colour by the days to today, as the reader's clock has it: a page may be old. */
function age() {
  const today = Math.floor(Date.now() / 86400000);
  for (const frame of listed) {
    if (!frame.newest) continue;
    const days = today - dayNumber(frame.newest);
    const level = `a${data.latency.filter((edge) => days > edge).length}`;
    for (const one of [frame.shape, frame.row && frame.row.querySelector("i")]) {
      if (one) one.setAttribute("class", one.getAttribute("class").replace(/\ba\d\b/, level));
    }
    const cell = frame.row && frame.row.querySelector(".late");
    if (cell) cell.textContent = `${days} d`;
  }
  for (const [level, place] of [...document.querySelectorAll(".by-latency b")].entries()) {
    place.textContent = String(document.querySelectorAll(`.rows i.a${level}`).length);
  }
}

function start() {
  const box = byId("search");
  box.addEventListener("input", () => {
    history.replaceState(null, "", box.value ? `#find=${encodeURIComponent(box.value)}` : location.pathname);
    search();
  });
  for (const one of document.querySelectorAll("input[name=by]")) {
    one.addEventListener("change", () => { document.body.dataset.by = one.value; });
    if (one.checked) document.body.dataset.by = one.value;
  }
  byId("closer").addEventListener("click", () => zoom(0.6));
  byId("farther").addEventListener("click", () => zoom(1 / 0.6));
  byId("whole").addEventListener("click", () => show(home));
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== map) return;  // the page scrolls
    event.preventDefault();
    const place = map.getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, (event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height);
  }, {passive: false});
  let grip = null;
  map.addEventListener("pointerdown", (event) => {
    grip = {x: event.clientX, y: event.clientY, view: [...view], moved: false};
  });
  addEventListener("pointermove", (event) => {
    if (!grip) return;
    const place = map.getBoundingClientRect();
    const [x, y] = [(event.clientX - grip.x) / place.width, (event.clientY - grip.y) / place.height];
    grip.moved = grip.moved || Math.hypot(event.clientX - grip.x, event.clientY - grip.y) > 5;
    if (grip.moved) show([grip.view[0] - x * view[2], grip.view[1] - y * view[3], view[2], view[3]]);
  });
  addEventListener("pointerup", () => { setTimeout(() => { grip = null; }); });
  addEventListener("pointercancel", () => { grip = null; });
  map.addEventListener("click", (event) => { if (grip && grip.moved) event.preventDefault(); }, true);
  map.addEventListener("dragstart", (event) => event.preventDefault());
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== box) {
      event.preventDefault();
      box.focus();
    }
  });
  age();
  const asked = /^#find=(.*)$/.exec(location.hash);
  if (asked) {
    try { box.value = decodeURIComponent(asked[1]); } catch { box.value = ""; }
  }
  search();
  document.body.dataset.ready = "yes";
}

start();
