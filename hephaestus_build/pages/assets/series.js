"use strict";
// Wrapped phase at one place, along the pairs of one primary date.

class Series {
  constructor(root, listener) {
    this.root = root;
    this.listener = listener;
    this.points = [];
    this.pair = null;
    new ResizeObserver(() => this.draw()).observe(root.parentElement);
  }

  /** points: [{pair, phase, coherence}], in order of the secondary date. */
  show(points, pair) {
    [this.points, this.pair] = [points, pair];
    this.draw();
  }

  draw() {
    const width = Math.max(this.root.parentElement.clientWidth, 240);
    const [height, pad] = [190, {left: 40, right: 16, top: 12, bottom: 26}];
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.root.setAttribute("height", height);
    const numbers = this.points.flatMap(({pair}) => [dayNumber(pair.primary), dayNumber(pair.secondary)]);
    if (!numbers.length) {
      this.root.replaceChildren();
      this.root.setAttribute("height", 0);
      return;
    }
    const [first, final] = [Math.min(...numbers), Math.max(...numbers)];
    const last = final + 0.03 * (final - first);
    const x = (day) => pad.left + ((day - first) / (last - first)) * (width - pad.left - pad.right);
    const y = (phase) => pad.top + (0.5 - phase / (2 * Math.PI)) * (height - pad.top - pad.bottom);
    const made = [];
    for (const [turns, text] of [[-1, "\u2212\u03c0"], [-0.5, ""], [0, "0"], [0.5, ""], [1, "\u03c0"]]) {
      const level = y(turns * Math.PI);
      made.push(shape("line", {x1: pad.left, x2: width - pad.right, y1: level, y2: level, class: turns ? "grid" : "axis"}));
      made.push(shape("text", {x: pad.left - 8, y: level + 4, "text-anchor": "end"}, text));
    }
    for (const [day, text] of timeTicks(first, last, width / 70)) {
      made.push(shape("text", {x: x(day), y: height - 8, "text-anchor": "middle"}, text));
      made.push(shape("line", {x1: x(day), x2: x(day), y1: pad.top, y2: height - pad.bottom, class: "grid"}));
    }
    made.push(shape("circle", {cx: x(first), cy: y(0), r: 3.5, class: "primary"}));
    for (const {pair, phase, coherence} of this.points) {
      if (phase === null) continue;
      const at = {cx: x(dayNumber(pair.secondary)), cy: y(phase)};
      const name = `${dayText(pair.secondary)}: ${signed(phase, 2)} rad, coherence ${(coherence ?? 0).toFixed(2)}`;
      made.push(shape("line", {x1: at.cx, x2: at.cx, y1: y(0), y2: at.cy, class: "stem"}));
      const dot = shape("circle", {...at, r: pair === this.pair ? 7 : 5, "fill-opacity": 0.2 + 0.8 * (coherence ?? 0),
        class: pair === this.pair ? "dot chosen" : "dot", "data-pair": pair.name}, shape("title", {}, name));
      dot.addEventListener("click", () => this.listener.choose(pair));
      made.push(dot);
    }
    this.root.replaceChildren(...made);
  }
}
