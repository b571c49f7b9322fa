"use strict";
// A cube by HTTP. Its manifest lists every object: what it does not list is no data and is not asked for; what it lists
// must come whole. It is read before and after, so that all pixels of a picture belong to one publication.

const ARRAYS = {phase: "insar_difference", coherence: "insar_coherence", mask: "deformation_mask"};
const MOST_PIXELS = 2 ** 27, MOST_LISTED = 2 ** 26;

const OVERTAKEN = "The cube was published again and again while it was read: wait for the end of the builds.";

/** What is wrong, in words. kind: overtaken, where reading once more may help, or stated, where the words say it all, or damaged. */
class CubeProblem extends Error {
  constructor(words, kind = "stated") {
    super(words);
    this.kind = kind;
  }
}

/** Return the bytes at an address, at most so many; tell of each part that arrives. */
async function download(address, most, told = () => {}) {
  let answer;
  try {
    answer = await fetch(address, {cache: "no-cache", credentials: "same-origin", referrerPolicy: "no-referrer"});
  } catch {
    const elsewhere = new URL(address).origin !== location.origin;
    const or = elsewhere ? ", or it does not let pages of another server read it (CORS: Access-Control-Allow-Origin)" : "";
    throw new CubeProblem(`${new URL(address).host} does not answer${or}.`);
  }
  if (!answer.ok) throw Object.assign(new CubeProblem(`${address} is answered with HTTP ${answer.status}.`, "damaged"), {status: answer.status});
  const parts = [], reader = answer.body.getReader();
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > most) {
      await reader.cancel();
      throw new CubeProblem(`${address} is larger than it should be.`, "damaged");
    }
    parts.push(part.value);
    told(part.value.length);
  }
  const whole = new Uint8Array(size);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** The objects of a cube, as a store of zarrita. */
class CubeStore {
  constructor(base, progress) {
    this.base = base;
    this.progress = progress;
  }

  async open() {
    const {blake3, objects} = await this.manifest();
    this.identity = blake3;
    this.objects = new Map(Object.entries(objects).map(([path, [, size]]) => [path, size]));
  }

  async manifest() {
    let content;
    try {
      content = await download(`${this.base}manifest.json`, MOST_LISTED);
    } catch (error) {
      if (![403, 404, 410].includes(error.status)) throw error;
      throw new CubeProblem(`There is no cube at ${this.base} (HTTP ${error.status}): it was removed, or the folder of the cubes does not stand there.`);
    }
    try {
      const {blake3, objects} = JSON.parse(new TextDecoder().decode(content));
      if (/^[0-9a-f]{64}$/.test(blake3) && objects["zarr.json"]) return {blake3, objects};
    } catch {
      // said below
    }
    throw new CubeProblem(`${this.base} is no cube of hephaestus-build, or is damaged: its manifest cannot be read.`);
  }

  /** Return an object, or undefined for one that is not stored. */
  async get(key) {
    const path = key.slice(1), size = this.objects.get(path);
    if (size === undefined) return undefined;
    this.progress.total(size);
    let content;
    try {
      content = await download(this.base + path, size, (count) => this.progress.done(count));
    } catch (error) {
      throw await this.explain(error);
    }
    if (content.length !== size) throw await this.explain(new CubeProblem(`${path} has ${content.length} bytes in place of ${size}.`, "damaged"));
    return content;
  }

  /** Return why something could not be read: the cube was published again meanwhile, or as it says, or it is damaged. */
  async explain(error) {
    if (error.kind === "overtaken") return error;
    if (await this.changed()) return new CubeProblem(OVERTAKEN, "overtaken");
    if (error.kind === "stated") return error;
    return new CubeProblem(`${error.message.replace(/[.]?$/, ".")} The cube is damaged, or was not copied whole: \`hephaestus verify\` names what is wrong.`);
  }

  async changed() {
    return (await this.manifest()).blake3 !== this.identity;
  }
}

const dayOf = (digits) => BigInt(Date.UTC(digits.slice(0, 4), digits.slice(4, 6) - 1, digits.slice(6, 8)) / 86400000);

/** One pair of a cube: found by its dates, never by positions of before. */
class CubePair {
  /** asked: {frame, pair}; simulated: what the site is of. */
  static async open(zarr, base, asked, simulated, progress) {
    const made = new CubePair();
    made.zarr = zarr;
    made.store = new CubeStore(base, progress);
    await made.store.open();
    made.root = zarr.root(made.store);
    try {
      await made.find(asked, simulated);
    } catch (error) {
      throw await made.store.explain(error);
    }
    return made;
  }

  async find(asked, simulated) {
    const {attrs} = await this.zarr.open.v3(this.root, {kind: "group"});
    if (attrs.frame !== asked.frame) throw new CubeProblem(`The cube at ${this.store.base} is of another frame.`);
    if (Boolean(attrs.simulated) !== simulated) throw new CubeProblem(`The cube at ${this.store.base} is ${simulated ? "real" : "simulated"}, and this site is not.`);
    this.pixel = attrs.pixel_size_m || [1, 1];
    const axes = [await this.read("primary_date"), await this.read("secondary_date")];
    this.place = asked.pair.split("_").map((digits, axis) => axes[axis].data.indexOf(dayOf(digits)));
    const stored = !this.place.includes(-1) && await this.zarr.get(await this.array("valid_date_pair"), this.place);
    if (!stored) throw new CubeProblem("The cube has no interferogram of this pair: it was published again since this site was written, or the pair is not fetched yet.");
    this.latitude = (await this.read("latitude")).data;
    this.longitude = (await this.read("longitude")).data;
    [this.height, this.width] = [this.latitude.length, this.longitude.length];
    if (this.width * this.height > MOST_PIXELS) throw new CubeProblem(`Images of ${this.width} x ${this.height} pixels are too large for a browser.`);
  }

  array(name) {
    return this.zarr.open.v3(this.root.resolve(name), {kind: "array"});
  }

  async read(name) {
    return this.zarr.get(await this.array(name));
  }

  /** Return the values of phase, coherence or mask, all of one publication. */
  async values(layer) {
    try {
      const array = await this.array(ARRAYS[layer]);
      const [, , height, width] = array.shape;
      if (height !== this.height || width !== this.width) throw new CubeProblem(`${ARRAYS[layer]} is not on the grid of the cube.`, "damaged");
      const {data} = await this.zarr.get(array, [...this.place, null, null]);
      if (await this.store.changed()) throw new CubeProblem(OVERTAKEN, "overtaken");
      return data;
    } catch (error) {
      throw await this.store.explain(error);
    }
  }
}
