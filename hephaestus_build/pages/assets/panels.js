"use strict";
// A panel shows one picture, and over it what all panels share: cursor, chosen point, masks, volcanoes.

const decoded = new Map();

/** Resolve to the samples of a picture; each is decoded once. */
function samplesOf(picture) {
  if (!decoded.has(picture.png)) decoded.set(picture.png, decodePng(picture.png));
  return decoded.get(picture.png);
}

class Panel {
  /** root: a figure of the template; about: {unit, digits, legend}. */
  constructor(root, about, listener) {
    this.root = root;
    this.about = about;
    this.image = root.querySelector("img");
    this.overlay = root.querySelector("canvas");
    this.output = root.querySelector("output");
    this.absent = root.querySelector(".none");
    this.view = root.querySelector(".view");
    this.values = null;
    this.token = 0;
    this.view.addEventListener("pointermove", (event) => listener.hover(this.placeOf(event)));
    this.view.addEventListener("pointerleave", () => listener.hover(null));
    this.view.addEventListener("click", (event) => listener.pin(this.placeOf(event)));
    this.view.addEventListener("keydown", (event) => listener.key(event));
  }

  placeOf(event) {
    const box = this.view.getBoundingClientRect();
    const inside = (value) => Math.min(Math.max(value, 0), 1 - 1e-9);
    return {x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height)};
  }

  /** Show a picture; its values may be those of another one, as with a relief. */
  async show(picture, alt, values = picture) {
    const token = ++this.token;
    this.values = null;
    this.image.hidden = !picture;
    this.absent.hidden = Boolean(picture);
    this.view.setAttribute("aria-label", alt);
    if (!picture) {
      this.absent.textContent = alt;
      this.image.removeAttribute("src");
      return;
    }
    this.image.alt = alt;
    this.image.src = `data:image/png;base64,${picture.png}`;
    const found = await samplesOf(values);
    if (token === this.token) this.values = {...found, scale: values.scale, offset: values.offset};
  }

  /** Return the value at a place, or null where there is none. */
  valueAt(place) {
    if (!this.values || !place) return null;
    const {width, height, samples, scale, offset} = this.values;
    const sample = samples[Math.floor(place.y * height) * width + Math.floor(place.x * width)];
    return sample ? offset + scale * sample : null;
  }

  read(place) {
    const value = this.valueAt(place);
    const text = value === null ? "no data" : `${signed(value, this.about.digits)} ${this.about.unit}`;
    this.output.textContent = place && this.values ? text : "";
  }

  /** Draw what lies over the picture. */
  draw(shared) {
    const box = this.view.getBoundingClientRect();
    const dense = window.devicePixelRatio || 1;
    const [width, height] = [box.width, box.height];
    this.overlay.width = Math.round(width * dense);
    this.overlay.height = Math.round(height * dense);
    const pen = this.overlay.getContext("2d");
    pen.scale(dense, dense);
    if (this.image.hidden) return;
    if (shared.probability && this.about.masked) drawProbability(pen, shared.probability, width, height);
    if (shared.mask && this.about.masked) drawMask(pen, shared.mask, width, height);
    if (shared.volcanoes.length) this.drawVolcanoes(pen, shared.volcanoes, width, height);
    if (shared.point) drawPoint(pen, shared.point, width, height);
    if (shared.cursor) drawCursor(pen, shared.cursor, width, height);
  }

  drawVolcanoes(pen, volcanoes, width, height) {
    const size = Math.max(4, Math.min(7, width / 60));
    pen.font = "600 11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const {x, y, name} of volcanoes) {
      const [left, top] = [x * width, y * height];
      pen.beginPath();
      pen.moveTo(left, top - size);
      pen.lineTo(left + size, top + 0.8 * size);
      pen.lineTo(left - size, top + 0.8 * size);
      pen.closePath();
      pen.fillStyle = "#fff";
      pen.fill();
      pen.lineWidth = 1.4;
      pen.strokeStyle = "#111";
      pen.stroke();
      if (this.about.names && width > 240) {
        const wide = pen.measureText(name).width;
        const at = left + size + 4 + wide > width ? left - size - 4 - wide : left + size + 4;
        halo(pen, () => pen.strokeText(name, at, top), 3);
        pen.fillStyle = "#111";
        pen.fillText(name, at, top);
      }
    }
  }
}

function halo(pen, draw, width) {
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.strokeStyle = "rgba(255, 255, 255, .85)";
  draw();
}

/** Draw the outline of a mask along the edges of its pixels. */
function drawMask(pen, mask, width, height) {
  const [across, down] = [width / mask.width, height / mask.height];
  const at = (x, y) => (x < 0 || y < 0 || x >= mask.width || y >= mask.height ? 0 : mask.samples[y * mask.width + x]);
  const path = new Path2D();
  for (let y = 0; y <= mask.height; y++) {
    for (let x = 0; x <= mask.width; x++) {
      if (at(x, y) !== at(x - 1, y)) {
        path.moveTo(x * across, y * down);
        path.lineTo(x * across, (y + 1) * down);
      }
      if (at(x, y) !== at(x, y - 1)) {
        path.moveTo(x * across, y * down);
        path.lineTo((x + 1) * across, y * down);
      }
    }
  }
  pen.lineCap = "square";
  halo(pen, () => pen.stroke(path), 4);
  pen.lineWidth = 1.6;
  pen.strokeStyle = "#111";
  pen.stroke(path);
}

/** Veil the picture where a model sees no deformation, so that what it points at stands out. */
function drawProbability(pen, picture, width, height) {
  const [across, down] = [width / picture.width, height / picture.height];
  for (let i = 0; i < picture.samples.length; i++) {
    const value = picture.offset + picture.scale * picture.samples[i];
    if (!picture.samples[i] || value > 0.98) continue;
    pen.fillStyle = `rgba(20, 20, 20, ${(0.62 * (1 - value)).toFixed(2)})`;
    pen.fillRect((i % picture.width) * across, Math.floor(i / picture.width) * down, across + 0.5, down + 0.5);
  }
}

function drawPoint(pen, point, width, height) {
  for (const [colour, line] of [["#fff", 5], ["#111", 2]]) {
    pen.beginPath();
    pen.arc(point.x * width, point.y * height, 6, 0, 2 * Math.PI);
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    pen.stroke();
  }
}

function drawCursor(pen, cursor, width, height) {
  const [x, y, gap] = [cursor.x * width, cursor.y * height, 7];
  const lines = [[x, 0, x, y - gap], [x, y + gap, x, height], [0, y, x - gap, y], [x + gap, y, width, y]];
  for (const [colour, line] of [["rgba(255, 255, 255, .8)", 2.5], ["#111", 1]]) {
    pen.beginPath();
    for (const [left, top, right, bottom] of lines) {
      pen.moveTo(left, top);
      pen.lineTo(right, bottom);
    }
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    pen.stroke();
  }
}
