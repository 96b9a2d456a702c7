"use strict";
// One match on a page: the point, its place in the source, and what is drawn over the target.
const $ = (id) => document.getElementById(id);
const LOUPE = 33; // shown pixels across a loupe
let match = null; // what came with the page, unpacked: see glunet.view.page.payload
let point = { x: 0, y: 0 }, held = false, drag = "", speak = 0;

async function unpack(text, width, height) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const count = width * height, bytes = await inflated(packed);
  // Each value was stored as its difference to the left, and that as its difference to the one above.
  const sum = (values) => {
    for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) if (x) values[i] += values[i - 1];
    for (let i = width; i < count; i++) values[i] += values[i - width];
    return values;
  };
  const words = (at) => {
    const values = new Int16Array(count);
    for (let i = 0; i < count; i++) values[i] = bytes[at + i] | (bytes[at + count + i] << 8);
    return sum(values);
  };
  // The columns are summed after the rows; sums do not care for their order.
  return { x: words(0), y: words(2 * count), trust: sum(bytes.subarray(4 * count)) };
}

async function inflated(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function picture(address) {
  const image = new Image();
  image.src = address;
  return image.decode().then(() => image);
}

async function show(shown) {
  const [width, height] = shown.shown.target;
  const names = ["source", "target", "warped", "flow"];
  const [field, ...images] = await Promise.all([
    unpack(shown.field, width, height), ...names.map((name) => picture(shown.images[name]))]);
  match = { ...shown, field, width, height, pictures: Object.fromEntries(names.map((name, i) => [name, images[i]])) };
  $("viewer").hidden = false;
  for (const role of ["target", "source"]) {
    const [w, h] = shown.shown[role];
    $(role).style.setProperty("--ratio", w / h);
    $(`${role}-name`).textContent = `${shown.names[role] === role ? "" : `${shown.names[role]} · `}${shown.sizes[role].join(" × ")} px`;
  }
  document.body.style.setProperty("--ratio", Math.max(...Object.values(shown.shown).map(([w, h]) => w / h)));
  $("source-picture").src = shown.images.source;
  $("wheel").src = shown.images.wheel;
  $("rim").textContent = `rim ${shown.rim} px`;
  $("picture").width = width;
  $("picture").height = height;
  $("verdict").hidden = false;
  $("verdict").textContent = shown.verdict.text[0].toUpperCase() + shown.verdict.text.slice(1);
  $("verdict").className = { true: "yes", false: "no" }[shown.verdict.same] ?? "";
  $("made").textContent = shown.made;
  const none = shown.confidence.kind === "in view";
  $("least").value = shown.confidence.least;
  $("least").disabled = none;
  $("trust-name").textContent = { calibrated: "Confidence", consistency: "Consistency" }[shown.confidence.kind] ?? "In view";
  $("facts").replaceChildren(...facts(shown).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  held = false;
  // Of a pair that does not match, a pixel that happens to be sure would give the wrong impression.
  point = shown.verdict.same === false ? { x: width >> 1, y: height >> 1 } : start(width, height, field.trust);
  draw();
}

function facts(shown) {
  const kind = {
    calibrated: `Confidence is the share of such pixels that are visible in the source and found within ${shown.confidence.within} px, as measured on synthetic scenes.`,
    consistency: "Consistency is 1 / (1 + the round trip target, source, target in pixels): an order, not a probability.",
    "in view": "Matched in one direction only: all that is known is whether the flow points into the source.",
  }[shown.confidence.kind];
  const eighth = shown.step === 0.125;
  const step = `Flow is kept in steps of ${eighth ? "1/8" : shown.step} px${eighth ? "" : " (this flow is too long for steps of 1/8 px in 16 bits)"}, confidence in whole percent, rounded down.`;
  const list = ["Coordinates are pixels of the original images: x to the right, y down, 0, 0 is the centre of the first pixel.", kind, step];
  for (const role of ["target", "source"]) {
    const [own, matched, shows] = [shown.sizes[role], shown.matched[role], shown.shown[role]];
    const reduced = [];
    if (matched[0] !== own[0]) reduced.push(`matched at ${matched.join(" × ")}`);
    if (shows[0] !== own[0]) reduced.push(`shown at ${shows.join(" × ")}`);
    if (reduced.length) list.push(`The ${role} of ${own.join(" × ")} px is ${reduced.join(" and ")}; numbers are still pixels of the original.`);
  }
  return [...list, "The pictures here are compressed. The page holds all it shows, and asks no network for anything."];
}

// The confident pixel nearest to the middle.
function start(width, height, trust) {
  let best = Infinity, found = { x: width >> 1, y: height >> 1 };
  const least = Math.max(1, Number($("least").value));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const apart = (x - width / 2) ** 2 + (y - height / 2) ** 2;
      if (apart < best && trust[y * width + x] >= least) { best = apart; found = { x, y }; }
    }
  }
  return found;
}

// The look-up: everything that is known of one pixel of the target.
function at({ x, y }) {
  const i = y * match.width + x, { field, step, xs, ys } = match;
  const known = field.x[i] !== -32768, trust = field.trust[i];
  const flow = [field.x[i] * step, field.y[i] * step];
  const source = [xs[x] + flow[0], ys[y] + flow[1]];
  const least = Number($("least").value);
  const inside = known && source.every((place, axis) => place >= -0.5 && place <= match.sizes.source[axis] - 0.5);
  const why = trust >= Math.max(1, least) ? ""
    : !inside ? "it leads out of the source" : least ? `${trust} % is below ${least} %` : "nothing speaks for it";
  return { target: [xs[x], ys[y]], flow, source, trust, why };
}

function mode() { return document.querySelector("input[name=mode]:checked").value; }

function draw() {
  if (!match) return;
  const { width, height, pictures } = match, pen = $("picture").getContext("2d"), how = mode();
  const share = Number($("amount").value) / 100;
  pen.globalAlpha = 1;
  pen.drawImage(how === "flow" ? pictures.flow : pictures.target, 0, 0, width, height);
  if (how === "blend") {
    pen.globalAlpha = share;
    pen.drawImage(pictures.warped, 0, 0, width, height);
    pen.globalAlpha = 1;
  }
  if (how === "swipe") {
    const edge = Math.round(share * width);
    if (edge < width) pen.drawImage(pictures.warped, edge, 0, width - edge, height, edge, 0, width - edge, height);
  }
  if ($("cover").checked) pen.drawImage(veil(), 0, 0);
  $("mix").className = how === "swipe" || how === "blend" ? "" : "off";
  $("divider").hidden = how !== "swipe";
  $("divider").style.left = `${100 * share}%`;
  $("left-tag").textContent = { swipe: "target", blend: "target + warped source", flow: "flow" }[how] ?? "";
  $("right-tag").textContent = how === "swipe" ? "warped source" : "";
  $("legend").hidden = how !== "flow";
  $("amount-says").textContent = `${$("amount").value} %`;
  $("least-says").textContent = match.confidence.kind === "in view" ? "–" : `${$("least").value} %`;
  read();
}

// Stripes where there is no match; made again only when the slider has moved.
let veiled = { least: -1, of: null, canvas: document.createElement("canvas") };
function veil() {
  const { width, height, field: { trust } } = match, least = Math.max(1, Number($("least").value));
  if (veiled.least === least && veiled.of === match) return veiled.canvas;
  Object.assign(veiled.canvas, { width, height });
  const image = new ImageData(width, height), colours = new Uint32Array(image.data.buffer);
  const period = Math.max(6, Math.round(width / 70)), dark = 0xb4302a26, light = 0xb4958d86; // alpha, blue, green, red
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) if (trust[i] < least) colours[i] = (x + y) % period < period / 3 ? light : dark;
  }
  veiled.canvas.getContext("2d").putImageData(image, 0, 0);
  veiled = { least, of: match, canvas: veiled.canvas };
  return veiled.canvas;
}

const number = (value) => value.toFixed(2).replace("-", "−");
const signed = (value) => (value < 0 ? "" : "+") + number(value);
const pixel = (value) => Number.isInteger(value) ? String(value) : number(value);

function read() {
  const found = at(point), missing = found.why !== "", least = Number($("least").value);
  const [width, height] = match.shown.source, [wide, high] = match.sizes.source;
  // Where the source's pixel is in its picture, in shown pixels: centres at whole numbers in both.
  const there = [(found.source[0] + 0.5) * width / wide - 0.5, (found.source[1] + 0.5) * height / high - 0.5];
  $("here").textContent = found.target.map(pixel).join(", ");
  $("there").textContent = missing ? "no match" : found.source.map(number).join(", ");
  $("there").className = missing ? "none" : "";
  const length = Math.hypot(...found.flow);
  $("flow").textContent = missing ? "–" : `${found.flow.map(signed).join(", ")} (${length.toFixed(1)} px)`;
  $("trust").textContent = match.confidence.kind === "in view" ? (found.trust ? "yes" : "no") : `${found.trust} %`;
  $("bar").style.width = `${found.trust}%`;
  $("bar").className = missing ? "low" : "";
  $("bar-least").style.left = `${least}%`;
  $("hint").textContent = missing ? `No match: ${found.why}.` : held ? "Held. Click again, or press Escape, to let go."
    : matchMedia("(hover: none)").matches ? "Drag over the target." : "Click to hold the point.";
  place($("target-mark"), point.x, point.y, match.width, match.height);
  $("source-mark").hidden = missing;
  $("nowhere").hidden = !missing;
  if (!missing) place($("source-mark"), ...there, width, height);
  loupe($("target-loupe"), match.pictures.target, point.x, point.y, match.width, match.height, false);
  loupe($("source-loupe"), match.pictures.source, ...there, width, height, missing);
  return found;
}

function place(mark, x, y, width, height) {
  mark.style.left = `${100 * (x + 0.5) / width}%`;
  mark.style.top = `${100 * (y + 0.5) / height}%`;
}

function loupe(canvas, image, x, y, width, height, empty) {
  const pen = canvas.getContext("2d"), side = canvas.width, zoom = side / LOUPE;
  pen.clearRect(0, 0, side, side);
  if (empty) {
    pen.fillStyle = getComputedStyle(document.body).color;
    pen.font = "600 30px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillText("no match", side / 2, side / 2 + 10);
    return;
  }
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, (LOUPE / 2 - x - 0.5) * zoom, (LOUPE / 2 - y - 0.5) * zoom, width * zoom, height * zoom);
  for (const [colour, wider] of [["#fff", 5], ["#ff3d81", 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2.5;
    pen.strokeRect((side - zoom) / 2 - wider, (side - zoom) / 2 - wider, zoom + 2 * wider, zoom + 2 * wider);
  }
}

function move(x, y) {
  point = { x: Math.min(match.width - 1, Math.max(0, x)), y: Math.min(match.height - 1, Math.max(0, y)) };
  return read();
}

function hold(wanted) {
  held = wanted;
  $("target").classList.toggle("held", held);
  read();
}

// In shares of the target: 0 is its left or upper edge, 1 the other.
function shares(event) {
  const box = $("target").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function follow(event) {
  const [x, y] = shares(event);
  if (drag === "divider") {
    $("amount").value = Math.round(100 * Math.min(1, Math.max(0, x)));
    draw();
  } else if (!held || event.pointerType !== "mouse") move(Math.floor(x * match.width), Math.floor(y * match.height));
}

$("target").addEventListener("pointerdown", (event) => {
  if (!match || event.button) return;
  const [x] = shares(event), apart = Math.abs(x - Number($("amount").value) / 100) * $("target").clientWidth;
  drag = mode() === "swipe" && apart < 18 ? "divider" : "point";
  $("target").setPointerCapture(event.pointerId);
  if (drag === "point" && event.pointerType === "mouse") {
    if (!held) follow(event);
    hold(!held);
  } else follow(event);
});
$("target").addEventListener("pointermove", (event) => {
  if (match && (drag || event.pointerType === "mouse")) follow(event);
});
for (const end of ["pointerup", "pointercancel"]) $("target").addEventListener(end, () => { drag = ""; });

// For those who do not see it, what was found is said once the keys rest.
function say(found) {
  clearTimeout(speak);
  speak = setTimeout(() => {
    const place = `Target ${found.target.map(pixel).join(", ")}: `;
    $("said").textContent = place + (found.why ? `no match, ${found.why}.` : `source ${found.source.map((v) => v.toFixed(1)).join(", ")}, ${$("trust").textContent}.`);
  }, 350);
}

$("target").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!match || !steps || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1;
  say(move(point.x + far * steps[0], point.y + far * steps[1]));
});
document.addEventListener("keydown", (event) => {
  const here = document.activeElement === document.body || $("viewer").contains(document.activeElement);
  if (!match || !here || event.altKey || event.ctrlKey || event.metaKey) return;
  const push = (id, by) => { $(id).value = Number($(id).value) + by; };
  const buttons = document.querySelectorAll("input[name=mode]");
  if ("1234".includes(event.key)) buttons[event.key - 1].checked = true;
  else if (event.key === "[" || event.key === "]") push("amount", event.key === "]" ? 5 : -5);
  else if ("-+=".includes(event.key) && !$("least").disabled) push("least", event.key === "-" ? -5 : 5);
  else if (event.key === "Escape") return hold(false);
  else return;
  draw();
});
for (const id of ["modes", "amount", "least", "cover"]) $(id).addEventListener("input", draw);

const given = JSON.parse($("match").textContent);
if (typeof DecompressionStream === "undefined") {
  document.body.textContent = "This page needs a browser of 2023 or later, which can unpack what is in it (DecompressionStream): open it in a newer one.";
} else if (given) show(given);
