"use strict";
// The picture is a canvas with a pixel for each of the cube; it is moved and scaled by the browser, never drawn anew.

const CLOSEST = 40;

class View {
  /** root: the view; listener: {read(place)} is told where the cursor is, {x, y} in pixels of the cube, or null. */
  constructor(root, listener) {
    this.root = root;
    this.listener = listener;
    this.picture = root.querySelector("#picture");
    this.overlay = root.querySelector("#overlay");
    this.cursor = null;
    this.outline = null;
    this.pointers = new Map();
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    root.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !this.pointers.size && this.point(null));
    root.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...this.placeOf(event));
    }, {passive: false});
    root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fitted ? this.fit() : this.place()).observe(root);
  }

  /** Show an image of so many pixels; ratio: width of a pixel on the ground over its height. */
  resize(width, height, ratio) {
    [this.picture.width, this.picture.height, this.ratio] = [width, height, ratio];
    this.fit();
  }

  /** Fill the picture with the colours of the codes 0 to 255. */
  paint(codes, palette) {
    const pen = this.picture.getContext("2d");
    const image = pen.createImageData(this.picture.width, this.picture.height);
    const words = new Uint32Array(image.data.buffer);
    const colours = Uint32Array.from({length: 256}, (_, code) => new Uint32Array(Uint8Array.of(...palette.subarray(3 * code, 3 * code + 3), code ? 255 : 0).buffer)[0]);
    for (let i = 0; i < words.length; i++) words[i] = colours[codes[i]];
    pen.putImageData(image, 0, 0);
  }

  // ---- where the picture is: its corner and the pixels of the screen for each of its own -----------------------

  size() {
    return [this.root.clientWidth, this.root.clientHeight];
  }

  fit() {
    const [wide, tall] = this.size();
    this.scale = Math.min(wide / (this.picture.width * this.ratio), tall / this.picture.height) || 1;
    this.left = (wide - this.picture.width * this.scale * this.ratio) / 2;
    this.top = (tall - this.picture.height * this.scale) / 2;
    this.place();
    this.fitted = true;
  }

  /** Scale so that a row of the cube is a row of the screen. */
  native() {
    const [wide, tall] = this.size();
    this.zoom(1 / (this.scale * (window.devicePixelRatio || 1)), wide / 2, tall / 2);
  }

  zoom(factor, x, y) {
    const [wide, tall] = this.size();
    const least = Math.min(wide / (this.picture.width * this.ratio), tall / this.picture.height, 1) / 2;
    const to = Math.min(Math.max(this.scale * factor, least), CLOSEST);
    this.left = x - (x - this.left) * to / this.scale;
    this.top = y - (y - this.top) * to / this.scale;
    this.scale = to;
    this.place();
  }

  place() {
    const [wide, tall] = this.size();
    const held = (value, room, length) => Math.min(Math.max(value, room / 2 - length), room / 2);
    this.left = held(this.left, wide, this.picture.width * this.scale * this.ratio);
    this.top = held(this.top, tall, this.picture.height * this.scale);
    this.fitted = false;
    this.picture.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale * this.ratio}, ${this.scale})`;
    this.draw();
  }

  // ---- pointers and keys ----------------------------------------------------------------------------------------

  placeOf(event) {
    const box = this.root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (event.target.closest("button")) return;
    this.root.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.placeOf(event));
    this.readAt(event);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId), [x, y] = this.placeOf(event);
    if (before) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId);
      if (other) {
        const [a, b] = other[1];
        this.zoom(Math.hypot(x - a, y - b) / Math.max(Math.hypot(before[0] - a, before[1] - b), 1), a, b);
      } else {
        this.left += x - before[0];
        this.top += y - before[1];
        this.place();
      }
      this.pointers.set(event.pointerId, [x, y]);
    }
    if (this.pointers.size < 2) this.readAt(event);
  }

  readAt(event) {
    const [x, y] = this.placeOf(event);
    this.point({x: Math.floor((x - this.left) / (this.scale * this.ratio)), y: Math.floor((y - this.top) / this.scale)});
  }

  /** Put the cursor on a pixel of the cube. */
  point(place) {
    const inside = place && place.x >= 0 && place.y >= 0 && place.x < this.picture.width && place.y < this.picture.height;
    this.cursor = inside ? place : null;
    this.last = this.cursor || this.last;
    this.listener.read(this.cursor);
    this.draw();
  }

  key(event) {
    const [wide, tall] = this.size();
    const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const [right, down] = steps[event.key] || [];
    if (right === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const by = event.shiftKey ? [wide / 10 / (this.scale * this.ratio), tall / 10 / this.scale].map((step) => Math.max(1, Math.round(step))) : [1, 1];
    const from = this.cursor || this.last || {x: this.picture.width >> 1, y: this.picture.height >> 1};
    const held = (value, length) => Math.min(Math.max(value, 0), length - 1);
    const to = {x: held(from.x + right * by[0], this.picture.width), y: held(from.y + down * by[1], this.picture.height)};
    const [x, y] = this.screenOf(to);
    this.left += Math.min(Math.max(x, 0), wide) - x;
    this.top += Math.min(Math.max(y, 0), tall) - y;
    this.place();
    this.point(to);
  }

  zoomAtCursor(factor) {
    const [wide, tall] = this.size();
    this.zoom(factor, ...(this.cursor ? this.screenOf(this.cursor) : [wide / 2, tall / 2]));
  }

  screenOf({x, y}) {
    return [this.left + (x + 0.5) * this.scale * this.ratio, this.top + (y + 0.5) * this.scale];
  }

  // ---- what lies over the picture -------------------------------------------------------------------------------

  /** Outline a mask along the edges of its pixels; null for none. */
  showMask(mask) {
    this.outline = mask && outlineOf(mask, this.picture.width, this.picture.height);
    this.draw();
  }

  draw() {
    const [wide, tall] = this.size(), dense = window.devicePixelRatio || 1;
    [this.overlay.width, this.overlay.height] = [Math.round(wide * dense), Math.round(tall * dense)];
    const pen = this.overlay.getContext("2d");
    pen.scale(dense, dense);
    if (this.outline) {
      const path = new Path2D();
      path.addPath(this.outline, new DOMMatrix([this.scale * this.ratio, 0, 0, this.scale, this.left, this.top]));
      for (const [colour, line] of [["rgba(255, 255, 255, .85)", 4], ["#111", 1.6]]) {
        [pen.strokeStyle, pen.lineWidth, pen.lineJoin, pen.lineCap] = [colour, line, "round", "square"];
        pen.stroke(path);
      }
    }
    if (this.cursor) this.drawCursor(pen, wide, tall);
  }

  drawCursor(pen, wide, tall) {
    const [x, y] = this.screenOf(this.cursor), gap = 7;
    for (const [colour, line] of [["rgba(255, 255, 255, .8)", 2.5], ["#111", 1]]) {
      pen.beginPath();
      for (const [left, top, right, bottom] of [[x, 0, x, y - gap], [x, y + gap, x, tall], [0, y, x - gap, y], [x + gap, y, wide, y]]) {
        pen.moveTo(left, top);
        pen.lineTo(right, bottom);
      }
      [pen.strokeStyle, pen.lineWidth] = [colour, line];
      pen.stroke();
    }
  }
}

function outlineOf(mask, width, height) {
  const path = new Path2D();
  const edge = (from, to) => {
    path.moveTo(...from);
    path.lineTo(...to);
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const own = mask[i];
      if (own !== (x ? mask[i - 1] : 0)) edge([x, y], [x, y + 1]);
      if (own !== (y ? mask[i - width] : 0)) edge([x, y], [x + 1, y]);
      if (own && x === width - 1) edge([width, y], [width, y + 1]);
      if (own && y === height - 1) edge([x, height], [x + 1, height]);
    }
  }
  return path;
}
