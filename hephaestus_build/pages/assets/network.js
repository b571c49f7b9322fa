"use strict";
// The pairs over time: acquisitions by perpendicular baseline, an arch for each pair. Any arch may be chosen.

const ARCH_POINTS = 16;

class Network {
  constructor(root, data, listener) {
    this.root = root;
    this.pairs = data.pairs;
    this.gaps = data.gaps;
    this.listener = listener;
    const baselines = new Map(data.dates.map((date) => [date.day, date.baseline]));
    this.days = new Map();
    for (const pair of this.pairs) {
      for (const day of [pair.primary, pair.secondary]) {
        const known = baselines.get(day);
        this.days.set(day, known === undefined || known === null ? null : known);
      }
    }
    this.hasBaselines = [...this.days.values()].some((value) => value !== null);
    this.root.addEventListener("pointermove", (event) => this.hover(this.nearest(event)));
    this.root.addEventListener("pointerleave", () => this.hover(null));
    this.root.addEventListener("click", (event) => {
      const pair = this.nearest(event);
      if (pair) listener.choose(pair);
    });
    this.root.addEventListener("keydown", (event) => this.step(event));
    this.chosen = null;
    new ResizeObserver(() => this.draw()).observe(root.parentElement);
  }

  draw() {
    const width = Math.max(this.root.parentElement.clientWidth, 240);
    const height = width < 560 ? 170 : 210;
    const pad = {left: this.hasBaselines ? 52 : 12, right: 12, top: 10, bottom: 24};
    const numbers = [...this.days.keys()].map(dayNumber);
    if (!numbers.length) return;
    const spread = Math.max(...numbers) - Math.min(...numbers) || 1;
    const [first, last] = [Math.min(...numbers) - 0.01 * spread, Math.max(...numbers) + 0.01 * spread];
    const longest = Math.max(...this.pairs.map((pair) => pair.days), 1);
    const levels = [...this.days.values()].filter((value) => value !== null);
    const [low, high] = levels.length ? [Math.min(...levels, 0), Math.max(...levels, 0)] : [0, 0];
    const arch = this.hasBaselines ? 26 : height - pad.top - pad.bottom - 8;
    const x = (day) => pad.left + ((dayNumber(day) - first) / (last - first)) * (width - pad.left - pad.right);
    const inner = height - pad.top - pad.bottom - (this.hasBaselines ? arch / 2 : 8);
    const y = (value) => height - pad.bottom - 6 - ((value ?? 0) - low) / (high - low || 1) * (inner - 6);
    this.curves = this.pairs.map((pair) => {
      const from = [x(pair.primary), y(this.days.get(pair.primary))];
      const to = [x(pair.secondary), y(this.days.get(pair.secondary))];
      const rise = (this.hasBaselines ? 1 : 2) * arch * (0.25 + 0.75 * pair.days / longest); // a curve rises half as high
      return {pair, from, to, middle: [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2 - rise]};
    });
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.root.setAttribute("height", height);
    this.root.replaceChildren(
      ...this.gaps.map((gap) => this.gapBand(gap, x, pad.top, height - pad.bottom)),
      ...this.axes(x, y, low, high, width, height, pad, first, last),
      ...[...this.curves].sort((a, b) => rank(a.pair) - rank(b.pair)).map((curve) => this.arch(curve)),
      ...[...this.days].map(([day, value]) => shape("circle", {cx: x(day), cy: y(value), r: 2.2, class: "date"})),
      this.overArch("hovered"),
      this.overArch("shown"),
    );
    this.mark(this.chosen);
  }

  gapBand(gap, x, top, bottom) {
    const [left, right] = [x(gap.start), x(gap.end)];
    const band = shape("g", {class: gap.spanned ? "gap" : "gap unspanned"},
      shape("rect", {x: left, y: top, width: Math.max(right - left, 1), height: bottom - top}));
    if (right - left > 46) {
      band.append(shape("text", {x: (left + right) / 2, y: top + 12, "text-anchor": "middle"}, `${gap.days} days`));
    }
    return band;
  }

  axes(x, y, low, high, width, height, pad, first, last) {
    const base = height - pad.bottom;
    const scale = (day) => pad.left + ((day - first) / (last - first)) * (width - pad.left - pad.right);
    const made = [shape("line", {x1: pad.left, x2: width - pad.right, y1: base, y2: base, class: "axis"})];
    for (const [day, text] of timeTicks(first, last, width / 70)) {
      made.push(shape("line", {x1: scale(day), x2: scale(day), y1: base, y2: base + 4, class: "axis"}));
      made.push(shape("text", {x: scale(day), y: base + 16, "text-anchor": "middle"}, text));
    }
    if (!this.hasBaselines) return made;
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((one) => (high - low) / one <= 4) || 1000;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      made.push(shape("line", {x1: pad.left, x2: width - pad.right, y1: y(value), y2: y(value), class: "grid"}));
      made.push(shape("text", {x: pad.left - 6, y: y(value) + 4, "text-anchor": "end"}, signed(value, 0)));
    }
    made.push(shape("text", {x: 11, y: (pad.top + base) / 2, "text-anchor": "middle",
      transform: `rotate(-90 11 ${(pad.top + base) / 2})`}, "B\u22a5 (m)"));
    return made;
  }

  arch({pair, from, middle, to}) {
    return shape("path", {d: curvePath(from, middle, to), class: `pair ${kindOf(pair)}${pair.pictured || kindOf(pair) === pair.status ? "" : " bare"}`,
      "data-pair": pair.name});
  }

  overArch(kind) {
    return shape("path", {class: kind, d: ""});
  }

  /** Return the pair whose arch is nearest to a pointer. */
  nearest(event) {
    if (!this.curves) return null;
    const box = this.root.getBoundingClientRect();
    const scale = this.root.viewBox.baseVal.width / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null, least = 18 ** 2;
    for (const curve of this.curves) {
      for (let i = 0; i <= ARCH_POINTS; i++) {
        const [qx, qy] = onCurve(curve, i / ARCH_POINTS);
        const away = (qx - px) ** 2 + (qy - py) ** 2 - (curve.pair.pictured ? 4 : 0);
        if (away < least) [best, least] = [curve.pair, away];
      }
    }
    return best;
  }

  hover(pair) {
    this.trace(".hovered", pair);
    this.listener.hoverPair(pair);
  }

  /** Choose the pair before or after, by keyboard: of all pairs, those without pictures too. */
  step(event) {
    const ends = (pair) => `${pair.secondary} ${pair.primary}`;
    const pairs = [...this.pairs].sort((a, b) => (ends(a) < ends(b) ? -1 : 1));
    const [at, last] = [pairs.indexOf(this.chosen), pairs.length - 1];
    const next = {ArrowLeft: at < 0 ? last : Math.max(at - 1, 0), ArrowRight: at < 0 ? last : Math.min(at + 1, last), Home: 0, End: last}[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (pairs[next] === undefined) return;
    this.listener.choose(pairs[next]);
    this.listener.hoverPair(pairs[next]);
  }

  mark(pair) {
    this.chosen = pair;
    this.trace(".shown", pair);
  }

  trace(selector, pair) {
    const line = this.root.querySelector(selector);
    const curve = pair && this.curves && this.curves.find((one) => one.pair === pair);
    if (line) line.setAttribute("d", curve ? curvePath(curve.from, curve.middle, curve.to) : "");
  }
}

/** Return what a pair is drawn as. */
function kindOf(pair) {
  if (pair.status === "owed" || pair.status === "absent") return pair.status;
  return pair.deformation ? "deformation" : pair.annotated ? "quiet" : "plain";
}

const rank = (pair) => ["absent", "owed", "plain", "quiet", "deformation"].indexOf(kindOf(pair));

function curvePath(from, middle, to) {
  const text = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  return `M${text(from)}Q${text(middle)} ${text(to)}`;
}

function onCurve({from, middle, to}, t) {
  const mix = (axis) => (1 - t) ** 2 * from[axis] + 2 * t * (1 - t) * middle[axis] + t * t * to[axis];
  return [mix(0), mix(1)];
}
