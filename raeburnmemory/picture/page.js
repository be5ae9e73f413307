(() => {
"use strict";
// Texts come from anywhere: they are only ever put into the page as text, never as HTML.
const data = JSON.parse(document.getElementById("graph").textContent);
const at = (id) => document.getElementById(id);
const root = document.documentElement;
const stage = at("stage"), panel = at("panel"), tip = at("tip"), find = at("find");
const nodes = data.nodes, links = data.links;
const numberOf = new Map(nodes.map((node, number) => [node.id, number]));

function make(tag, given = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") for (const [event, does] of Object.entries(value)) element.addEventListener(event, does);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...inside.filter((one) => one !== null && one !== undefined));
  return element;
}
function draw(tag, given = {}, ...inside) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}
function coloured(element, look) {
  element.style.setProperty("--light", look.light);
  element.style.setProperty("--dark", look.dark);
  return element;
}
const short = (text, width) => {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > width ? line.slice(0, width - 1) + "…" : line;
};
const icon = (look) => draw("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" },
  coloured(draw("path", { class: "shape", d: look.icon }), look));
const stroke = (look) => draw("svg", { width: 30, height: 10, viewBox: "0 0 30 10", "aria-hidden": "true" },
  coloured(draw("path", { class: "link", d: "M2 5H28", "stroke-dasharray": look.dash, "stroke-width": look.width }), look));

// --- theme ---------------------------------------------------------------------------------------------------------

const wish = matchMedia("(prefers-color-scheme: dark)");
let theme = data.theme;
const dress = () => { root.dataset.theme = theme === "auto" ? (wish.matches ? "dark" : "light") : theme; };
wish.addEventListener("change", dress);
const turn = () => { theme = root.dataset.theme === "dark" ? "light" : "dark"; dress(); };
dress();

// --- what is drawn -------------------------------------------------------------------------------------------------

at("title").textContent = data.title;
at("chosen").textContent = `${data.chosen} · ${data.counts}`;
if (data.leftOut) {
  at("left").textContent = `Not everything: ${data.leftOut}.`;
  at("left").hidden = false;
}
const defs = draw("defs"), view = draw("g"), lines = draw("g"), dots = draw("g"), words = draw("g");
view.append(lines, dots);
stage.append(defs, view, words);
Object.entries(data.relations).forEach(([name, look], number) => {
  look.marker = `arrow${number}`;
  defs.append(draw("marker", { id: look.marker, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
    markerUnits: "userSpaceOnUse", orient: "auto" }, coloured(draw("path", { class: "arrow", d: "M0 1L7.5 4L0 7Z" }), look)));
});
const near = nodes.map(() => []);
for (const link of links) {
  const look = data.relations[link.r];
  link.drawn = coloured(draw("path", { class: "link", "stroke-dasharray": look.dash, "stroke-width": look.width,
    "marker-end": `url(#${look.marker})` }), look);
  link.drawn.append(draw("title"));
  link.drawn.firstChild.textContent = link.r;
  lines.append(link.drawn);
  near[link.s].push(link);
  if (link.s !== link.t) near[link.t].push(link);
}
nodes.forEach((node, number) => {
  const look = data.kinds[node.kind];
  node.home = [node.x, node.y];
  node.all = node.r + (node.rank || node.focus ? 8 : 0);  // with its ring
  node.seen = [node.text, node.id, node.kind, ...node.facts.map((fact) => fact[1])].join("\n").toLowerCase();
  node.drawn = draw("g", { class: node.aside ? "node aside" : "node", tabindex: -1, role: "button",
    "aria-label": `${node.rank ? `hit ${node.rank}, ` : ""}${node.kind}: ${short(node.text || node.label, 200)}` });
  node.drawn.dataset.id = node.id;
  node.drawn.append(draw("circle", { class: "halo", r: node.r + (node.rank || node.focus ? 10 : 5) }));
  if (node.rank || node.focus) node.drawn.append(coloured(draw("circle", { class: "ring", r: node.r + 5 }), look));
  node.drawn.append(coloured(draw("path", { class: "shape", d: node.d }), look));
  if (node.rank) {
    const rank = draw("text", { class: "rank", y: 4.2 });
    rank.textContent = node.rank;
    node.drawn.append(rank);
  }
  node.word = draw("text", { class: node.aside ? "label aside" : "label" });
  node.word.textContent = node.label;
  node.wide = 0;
  dots.append(node.drawn);
  words.append(node.word);
  node.drawn.addEventListener("pointerenter", (event) => { if (!held) hover(number, event); });
  node.drawn.addEventListener("pointerleave", () => { if (!held) hover(-1); });
  node.drawn.addEventListener("focus", () => { wander = number; });
});
root.style.setProperty("--bold", links.length > 900 ? 0.22 : links.length > 300 ? 0.36 : 0.55);
const order = nodes.map((node, number) => number)
  .sort((a, b) => (nodes[a].rank || 1e6) - (nodes[b].rank || 1e6) || nodes[b].r - nodes[a].r || a - b);

let grown = 1;
function towards(x, y, toX, toY, distance) {
  const far = Math.hypot(toX - x, toY - y) || 1;
  return [x + (toX - x) / far * distance, y + (toY - y) / far * distance];
}
const bendOf = (relation, far) => relation === data.supports ? Math.min(0.17 * far, 44) : Math.min(0.07 * far, 18);
function bend(link) {
  const a = nodes[link.s], b = nodes[link.t];
  if (a === b) {
    const r = a.r * grown;
    return `M${a.x - 4} ${a.y - r}c${-r} ${-1.6 * r} ${r + 8} ${-1.6 * r} 8 -1`;
  }
  const dx = b.x - a.x, dy = b.y - a.y, far = Math.hypot(dx, dy) || 1, by = bendOf(link.r, far);
  const mx = (a.x + b.x) / 2 - dy / far * by, my = (a.y + b.y) / 2 + dx / far * by;
  const [x0, y0] = towards(a.x, a.y, mx, my, a.all * grown + 1), [x1, y1] = towards(b.x, b.y, mx, my, b.all * grown + 3);
  return `M${x0.toFixed(1)} ${y0.toFixed(1)}Q${mx.toFixed(1)} ${my.toFixed(1)} ${x1.toFixed(1)} ${y1.toFixed(1)}`;
}
function put() {
  const scale = grown === 1 ? "" : ` scale(${grown.toFixed(3)})`;
  for (const node of nodes) node.drawn.setAttribute("transform", `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})${scale}`);
  for (const link of links) link.drawn.setAttribute("d", bend(link));
  look();
}

// --- the view: pan, zoom, labels -------------------------------------------------------------------------------------

let k = 1, tx = 0, ty = 0, waiting = 0;
// In a small window the nodes of a small graph stay large enough to be told apart, and hit.
function grow() {
  const wanted = nodes.length > 120 ? 1 : Math.min(2, Math.max(1, 0.72 / k));
  if (wanted === grown) return false;
  grown = wanted;
  put();
  return true;
}
const size = () => [stage.clientWidth || 800, stage.clientHeight || 500];
function look() {
  view.setAttribute("transform", `translate(${tx.toFixed(2)} ${ty.toFixed(2)}) scale(${k.toFixed(4)})`);
  if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; label(); });
}
// Labels keep their size; those for which there is room are shown, the most important ones first.
function label() {
  const [width, height] = size(), taken = [];
  for (const node of nodes) {
    if (node.gone) continue;
    const x = node.x * k + tx, y = node.y * k + ty, r = node.all * k * grown;
    if (x > -r && x < width + r && y > -r && y < height + r) taken.push([x - r, y - r, x + r, y + r, node.r]);
  }
  // The label of a large node may cover small ones, or none would be seen where there are many.
  const free = (box, large) => taken.every((b) =>
    b[4] < large || b[0] >= box[2] || box[0] >= b[2] || b[1] >= box[3] || box[1] >= b[3]);
  let shown = 0;
  for (const number of chosen < 0 ? order : [chosen, ...order.filter((one) => one !== chosen)]) {
    const node = nodes[number], x = node.x * k + tx, y = node.y * k + ty;
    let place = null;
    if (!node.gone && shown < 160 && x > 0 && x < width && y > 0 && y < height) {
      if (!node.wide) node.wide = node.word.getComputedTextLength() || 6 * node.label.length;
      const far = node.all * k * grown, aside = far + 7 + node.wide / 2;
      for (const [mid, line] of [[x, y + far + 13], [x, y - far - 6], [x + aside, y + 4], [x - aside, y + 4]]) {
        const box = [mid - node.wide / 2 - 3, line - 11, mid + node.wide / 2 + 3, line + 4, Infinity];
        const inside = box[0] > 0 && box[2] < width && box[1] > 0 && box[3] < height;
        if (number === chosen || (inside && free(box, node.r >= 15 ? node.r * 0.7 : 0))) {
          place = [mid, line];
          taken.push(box);
          break;
        }
      }
    }
    node.word.style.display = place === null ? "none" : "";
    if (place !== null) {
      shown += 1;
      node.word.setAttribute("x", place[0].toFixed(1));
      node.word.setAttribute("y", place[1].toFixed(1));
    }
  }
}
function zoom(by, x, y) {
  const [width, height] = size(), before = k;
  k = Math.min(6, Math.max(0.05, k * by));
  const px = x === undefined ? width / 2 : x, py = y === undefined ? height / 2 : y;
  tx = px - (px - tx) * k / before;
  ty = py - (py - ty) * k / before;
  if (!grow()) look();
}
function fit() {
  const there = nodes.filter((node) => !node.gone);
  if (!there.length) return;
  const [width, height] = size(), side = Math.min(70, width * 0.08), below = at("legend").offsetHeight + 46;
  const left = Math.min(...there.map((n) => n.x - n.r)), right = Math.max(...there.map((n) => n.x + n.r));
  const top = Math.min(...there.map((n) => n.y - n.r)), bottom = Math.max(...there.map((n) => n.y + n.r));
  k = Math.min(1.5, (width - 2 * side) / Math.max(right - left, 1), (height - 34 - below) / Math.max(bottom - top, 1));
  k = Math.max(k, 0.05);
  tx = width / 2 - k * (left + right) / 2;
  ty = (34 + height - below) / 2 - k * (top + bottom) / 2;
  if (!grow()) look();
  label();
}
function show(number) {
  const [width, height] = size(), node = nodes[number], x = node.x * k + tx, y = node.y * k + ty;
  if (x < 40 || x > width - 40 || y < 40 || y > height - 60) {
    tx += width / 2 - x;
    ty += height / 2 - y;
    look();
  }
}

// --- what is looked at: hovering, choosing, finding, hiding -----------------------------------------------------------

let hovered = -1, chosen = -1, wander = 0, matching = null;
const hiddenKinds = new Set(), hiddenRelations = new Set();
function fade() {
  const middle = hovered >= 0 ? hovered : chosen;
  let bright = matching;
  if (middle >= 0) {
    bright = new Set([middle]);
    for (const link of near[middle]) if (!link.gone) bright.add(link.s).add(link.t);
  }
  root.classList.toggle("mild", hovered < 0);
  nodes.forEach((node, number) => {
    const faded = bright !== null && !bright.has(number);
    node.drawn.classList.toggle("faded", faded);
    node.word.classList.toggle("faded", faded);
    node.drawn.classList.toggle("chosen", number === chosen);
  });
  for (const link of links) {
    const bound = middle >= 0 ? link.s === middle || link.t === middle
      : bright === null || (bright.has(link.s) && bright.has(link.t));
    link.drawn.classList.toggle("faded", !bound);
  }
}
function hover(number, event) {
  hovered = number;
  tip.hidden = number < 0;
  if (number >= 0) {
    const node = nodes[number], [width, height] = size(), box = stage.getBoundingClientRect();
    const where = node.facts.filter(([name]) => name === "session" || name === "time").map(([, value]) => value);
    tip.replaceChildren(make("b", {}, [node.kind, ...where].join(" · ")), short(node.text || node.label, 180));
    const x = event.clientX - box.left, y = event.clientY - box.top;
    tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, y + 18 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 18)}px`;
  }
  fade();
}
function choose(number, focus) {
  chosen = number;
  if (number >= 0) {
    reachable(number);
    show(number);
    if (focus) nodes[number].drawn.focus({ preventScroll: true });
  }
  fade();
  tell();
  look();
}
function reachable(number) {  // one node at a time can be reached with the tab key; the arrows lead on from there
  nodes[wander].drawn.setAttribute("tabindex", -1);
  wander = number;
  nodes[number].drawn.setAttribute("tabindex", 0);
}
function seek() {
  const terms = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  matching = null;
  if (terms.length) {
    matching = new Set();
    nodes.forEach((node, number) => { if (!node.gone && terms.every((term) => node.seen.includes(term))) matching.add(number); });
  }
  at("matches").textContent = matching === null ? "" : `${matching.size} found`;
  fade();
}
function next() {
  if (matching === null || !matching.size) return;
  const all = [...matching];
  choose(all[(all.indexOf(chosen) + 1) % all.length], false);
}
function hide() {
  for (const node of nodes) {
    node.gone = hiddenKinds.has(node.kind);
    node.drawn.style.display = node.gone ? "none" : "";
  }
  for (const link of links) {
    link.gone = hiddenRelations.has(link.r) || nodes[link.s].gone || nodes[link.t].gone;
    link.drawn.style.display = link.gone ? "none" : "";
  }
  if (chosen >= 0 && nodes[chosen].gone) choose(-1);
  const first = nodes.findIndex((node) => !node.gone);
  if (nodes[wander] && nodes[wander].gone && first >= 0) reachable(first);
  seek();
  tell();
  look();
}
function legend() {
  const entry = (name, look, image, hidden) => {
    const button = make("button", { type: "button", "aria-pressed": "true", title: `Show or hide: ${name}` }, image,
      make("span", {}, name), make("i", {}, look.count.toLocaleString("en")));
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      hide();
    });
    return button;
  };
  const kinds = Object.entries(data.kinds).map(([name, look]) => entry(name, look, icon(look), hiddenKinds));
  const relations = Object.entries(data.relations).map(([name, look]) => entry(name, look, stroke(look), hiddenRelations));
  at("legend").append(make("div", { class: "row" }, ...kinds), make("div", { class: "row" }, ...relations));
}

// --- the panel -------------------------------------------------------------------------------------------------------

function jump(id, before, after) {
  const number = numberOf.get(id);
  if (number === undefined) return make("li", {}, make("span", { class: "small" }, [before, id, after].filter(Boolean).join("  ")));
  const node = nodes[number];
  return make("li", {}, make("button", { type: "button", on: { click: () => choose(number, false) } },
    before === null ? icon(data.kinds[node.kind]) : make("i", {}, before), make("span", { dir: "auto" }, short(node.text || node.label, 90)),
    make("i", {}, after)));
}
function bar(name, amount) {
  const filled = make("s", amount < 0 ? { class: "less" } : {});
  filled.style.width = `${Math.min(100, Math.abs(amount) * 100)}%`;
  return make("div", { class: "bar" }, make("b", {}, name), make("u", {}, filled), make("span", {}, amount.toFixed(2)));
}
function overview() {
  const hits = nodes.filter((node) => node.rank).sort((a, b) => a.rank - b.rank);
  if (hits.length) {
    panel.append(make("h2", {}, "Hits, best first"),
      make("ul", {}, ...hits.map((node) => jump(node.id, String(node.rank), node.hit.score.toFixed(2)))));
  } else {
    const most = order.filter((number) => near[number].length > 1 && !nodes[number].gone).slice(0, 8);
    if (most.length) panel.append(make("h2", {}, "Linked the most"),
      make("ul", {}, ...most.map((number) => jump(nodes[number].id, null, String(near[number].length)))));
  }
  const keys = make("p", { class: "small" });
  for (const [key, does] of [["click", "shows a node, "], ["drag", "moves it, "], ["wheel", "zooms; "], ["/", "finds, "], ["Enter", "the next; "],
    ["Tab", "and "], ["arrows", "walk through the graph, "], ["Esc", "comes back here."]]) keys.append(make("kbd", {}, key), ` ${does}`);
  panel.append(make("h2", {}, "To look around"), keys);
}
function tell() {
  panel.replaceChildren();
  panel.scrollTop = 0;
  if (chosen < 0) return overview();
  const node = nodes[chosen], hit = node.hit;
  panel.append(make("div", { class: "kind" }, icon(data.kinds[node.kind]), node.kind,
    make("button", { type: "button", title: "Back (Esc)", on: { click: () => choose(-1) } }, "×")), make("code", {}, node.id));
  if (node.text) panel.append(make("p", { class: "text", dir: "auto" }, node.text));
  if (node.cut) panel.append(make("p", { class: "small" }, `${node.cut.toLocaleString("en")} more characters are left out.`));
  const facts = node.facts;
  if (facts.length) panel.append(make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, value)])));
  if (hit) {
    panel.append(make("h2", {}, `Why it is hit ${node.rank}`), bar("score", hit.score));
    for (const [name, amount] of Object.entries(hit.legs)) if (Math.abs(amount) >= 0.005) panel.append(bar(name, amount));
    const more = [];
    if (hit.similarity !== null) more.push(["similarity", hit.similarity.toFixed(2)]);
    if (hit.coverage !== null) more.push(["coverage", `${Math.round(hit.coverage * 100)}%`]);
    if (hit.words.length) more.push(["words", hit.words.join(", ")]);
    if (hit.duplicates.length) more.push(["near-copies", hit.duplicates.join(", ")]);
    if (more.length) panel.append(make("dl", {}, ...more.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    if (hit.path.length) panel.append(make("h2", {}, "Supported by"),
      make("ul", {}, ...hit.path.map((step) => jump(step.id, step.relation, (step.amount < 0 ? "" : "+") + step.amount.toFixed(2)))));
  }
  const bound = near[chosen].filter((link) => !link.gone);
  if (bound.length) {
    const shown = bound.slice(0, 200).map((link) => {
      const out = link.s === chosen, other = nodes[out ? link.t : link.s];
      return jump(other.id, null, out ? `${link.r} →` : `← ${link.r}`);
    });
    if (bound.length > shown.length) shown.push(make("li", { class: "small" }, `and ${bound.length - shown.length} more`));
    panel.append(make("h2", {}, `Links in this picture: ${bound.length}`), make("ul", {}, ...shown));
  }
}

// --- moving nodes: springs that remember how long they were, and homes to return to -------------------------------------

let held = null, heat = 0, running = 0;
function step() {
  running = 0;
  const fixed = held && held.moves ? held.number : -1, push = nodes.map(() => [0, 0]), cells = new Map();
  for (const link of links) {
    const a = nodes[link.s], b = nodes[link.t];
    if (a === b) continue;
    const rest = Math.hypot(b.home[0] - a.home[0], b.home[1] - a.home[1]);
    const dx = b.x - a.x, dy = b.y - a.y, far = Math.hypot(dx, dy) || 1, pull = (far - rest) / far * 0.09;
    push[link.s][0] += dx * pull; push[link.s][1] += dy * pull;
    push[link.t][0] -= dx * pull; push[link.t][1] -= dy * pull;
  }
  nodes.forEach((node, number) => {
    push[number][0] += (node.home[0] - node.x) * 0.03;
    push[number][1] += (node.home[1] - node.y) * 0.03;
    const key = `${Math.floor(node.x / 90)} ${Math.floor(node.y / 90)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(number);
  });
  nodes.forEach((node, number) => {
    const cx = Math.floor(node.x / 90), cy = Math.floor(node.y / 90);
    for (let x = cx - 1; x <= cx + 1; x += 1) for (let y = cy - 1; y <= cy + 1; y += 1) {
      for (const other of cells.get(`${x} ${y}`) || []) {
        if (other === number) continue;
        const dx = node.x - nodes[other].x, dy = node.y - nodes[other].y, far = Math.hypot(dx, dy) || 1;
        const over = node.r + nodes[other].r + 8 - far;
        if (over > 0) { push[number][0] += dx / far * over * 0.3; push[number][1] += dy / far * over * 0.3; }
      }
    }
  });
  nodes.forEach((node, number) => {
    if (number === fixed) return;
    node.x += push[number][0];
    node.y += push[number][1];
  });
  heat *= held && held.moves ? 1 : 0.96;
  put();
  if (heat > 0.02) running = requestAnimationFrame(step);
}
function warm() {
  heat = 1;
  if (!running) running = requestAnimationFrame(step);
}
function reset() {
  heat = 0;
  nodes.forEach((node, number) => { [node.x, node.y] = [data.nodes[number].first[0], data.nodes[number].first[1]]; node.home = [node.x, node.y]; });
  put();
  fit();
}
for (const node of nodes) node.first = [node.x, node.y];

const touches = new Map();
stage.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, [event.clientX, event.clientY]);
  if (event.button !== 0 && event.pointerType === "mouse") return;
  const drawn = event.target.closest(".node");
  held = { x: event.clientX, y: event.clientY, number: drawn ? numberOf.get(drawn.dataset.id) : -1, moves: false };
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  const before = touches.get(event.pointerId);
  if (!before || !held) return;
  touches.set(event.pointerId, [event.clientX, event.clientY]);
  if (touches.size === 2) {  // two fingers
    const [other] = [...touches.entries()].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
    const is = Math.hypot(event.clientX - other[0], event.clientY - other[1]), box = stage.getBoundingClientRect();
    held.moves = true;
    held.number = -1;
    if (was > 0) zoom(is / was, (event.clientX + other[0]) / 2 - box.left, (event.clientY + other[1]) / 2 - box.top);
    return;
  }
  if (!held.moves && Math.hypot(event.clientX - held.x, event.clientY - held.y) < 4) return;
  held.moves = true;
  stage.classList.add("held");
  tip.hidden = true;
  const dx = event.clientX - before[0], dy = event.clientY - before[1];
  if (held.number >= 0) {
    const node = nodes[held.number];
    node.x += dx / k;
    node.y += dy / k;
    node.home = [node.x, node.y];
    warm();
  } else {
    tx += dx;
    ty += dy;
    look();
  }
});
function release(event) {
  touches.delete(event.pointerId);
  if (held && !held.moves && event.type === "pointerup") choose(held.number, held.number >= 0);
  if (!touches.size) held = null;
  stage.classList.remove("held");
}
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

// --- keys --------------------------------------------------------------------------------------------------------------

function walk(x, y) {
  let best = -1, least = Infinity;
  const here = nodes[wander];
  nodes.forEach((node, number) => {
    const dx = node.x - here.x, dy = node.y - here.y, along = dx * x + dy * y, aside = Math.abs(dx * y) + Math.abs(dy * x);
    if (number === wander || node.gone || along <= 0 || along < aside * 0.5) return;
    if (along + 2 * aside < least) { least = along + 2 * aside; best = number; }
  });
  if (best < 0) return;
  reachable(best);
  show(best);
  nodes[best].drawn.focus({ preventScroll: true });
}
function turnOver(by) {  // the arrows go by sight; this comes past every node
  let number = wander;
  do number = (number + by + nodes.length) % nodes.length; while (nodes[number].gone && number !== wander);
  reachable(number);
  show(number);
  nodes[number].drawn.focus({ preventScroll: true });
}
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", (event) => {
  const typing = event.target === find, onNode = event.target.closest && event.target.closest(".node");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (typing && find.value) { find.value = ""; seek(); } else choose(-1);
  } else if (typing) {
    if (event.key === "Enter") next();
    return;
  } else if (arrows[event.key] && onNode) walk(...arrows[event.key]);
  else if ((event.key === "PageDown" || event.key === "PageUp") && onNode) turnOver(event.key === "PageDown" ? 1 : -1);
  else if ((event.key === "Enter" || event.key === " ") && onNode) choose(numberOf.get(onNode.dataset.id), false);
  else if (event.key === "/") find.focus();
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else if (event.key === "r" || event.key === "R") reset();
  else if (event.key === "t" || event.key === "T") turn();
  else return;
  event.preventDefault();
});
find.addEventListener("input", seek);
at("in").addEventListener("click", () => zoom(1.25));
at("out").addEventListener("click", () => zoom(0.8));
at("fit").addEventListener("click", fit);
at("reset").addEventListener("click", reset);
at("theme").addEventListener("click", turn);

legend();
if (nodes.length) reachable(order[0]);
put();
fit();
tell();
let moved = false;
stage.addEventListener("pointerdown", () => { moved = true; });
stage.addEventListener("wheel", () => { moved = true; }, { passive: true });
new ResizeObserver(() => { if (moved) look(); else fit(); }).observe(stage);
})();
