// The memory as a graph that one walks: a picture, and the same as a list. What stands around a node is read on demand.

import { get, post } from "../api.js";
import { add, draw, fill, h } from "../dom.js";
import { Drawing, shape } from "../drawing.js";
import { moment, number, short } from "../format.js";
import { announce, button, documentPath, facts, failed, field, form, head, nothing } from "../ui.js";

export const title = "Graph";
export const name = "graph";

const AT_ONCE = 60; // nodes that are shown around one
const WAYS = {
  responded_with: ["was answered with", "answers"], belongs_to: ["belongs to", "holds"], generated_by: ["comes from", "said"],
  part_of: ["is part of", "has the part"], cites: ["cites", "is cited by"], semantically_similar: ["is similar to", "is similar to"],
  supersedes: ["replaces", "is replaced by"], derived_from: ["derives from", "is the origin of"],
};

export async function show(page) {
  const svg = draw("svg", { class: "stage", role: "group", "aria-label": "Graph", "aria-describedby": "graph-keys" });
  const panel = h("section", { class: "card panel", "aria-label": "What is chosen" });
  const pictured = h("div", { class: "picture" }, svg, h("div", { class: "row tools" },
    button("+", () => drawing.zoom(1.25), { "aria-label": "Larger" }), button("−", () => drawing.zoom(0.8), { "aria-label": "Smaller" }),
    button("All", () => drawing.fit(), { "aria-label": "Show all of it" })));
  const drawing = new Drawing(svg, (id) => go(id).catch(failed));
  const found = h("div");
  const text = h("input", { type: "search", name: "q", required: true, autocomplete: "off", placeholder: "roses" });

  /** Go to a node: read what stands around it, and show both. */
  async function go(id, { focus = true } = {}) {
    const read = await around(id, page.signal);
    const nodes = read.nodes.map((node) => ({ ...node, name: called(node) }));
    drawing.add(nodes, read.links, id);
    drawing.select(id);
    const here = nodes.find((node) => node.id === id);
    page.replace(`/graph?${new URLSearchParams({ id })}`);
    tell(here, nodes, read);
    if (focus) drawing.nodes.get(id)?.element.focus({ preventScroll: true });
    announce(`${here.type}: ${short(here.name, 80)}. ${number(nodes.length - 1)} beside it.`);
  }

  function tell(here, nodes, read) {
    const names = new Map(nodes.map((node) => [node.id, node]));
    const groups = new Map();
    for (const link of read.links) {
      if (link.source !== here.id && link.target !== here.id) continue;
      const out = link.source === here.id;
      const way = (WAYS[link.relation] ?? [link.relation, `${link.relation} (from)`])[out ? 0 : 1];
      const other = names.get(out ? link.target : link.source);
      if (other && other.id !== here.id) groups.set(way, [...(groups.get(way) ?? []), other]);
    }
    const document = here.type === "document" ? here.id : here.type === "fragment" ? here.document : null;
    fill(panel,
      h("p", { class: "row" }, h("span", { class: "kind" }, draw("svg", { viewBox: "-16 -16 32 32", "aria-hidden": "true", width: 18, height: 18 }, shape(here.type)), here.type)),
      h("h2", {}, short(here.name, 120)),
      here.text ? h("p", { class: "quoted" }, here.text) : null,
      facts([["When", here.timestamp ? moment(here.timestamp) : null], ["Id", h("code", {}, here.id)]]),
      document ? h("p", {}, h("a", { href: documentPath(document) }, "Read the document")) : null,
      groups.size ? [...groups].map(([way, ones]) => h("div", {}, h("h3", {}, way), h("ul", { class: "plain walk" },
        ones.map((one) => h("li", {}, button(short(one.name, 90) || one.id, () => go(one.id, { focus: false }).then(() => panel.focus()), { kind: "linked", key: `walk ${one.id}` })))))) : nothing("Nothing stands beside it."),
      read.cut ? h("p", { class: "soft" }, `More than ${number(AT_ONCE)} stand around it; these are the first.`) : null);
  }
  panel.tabIndex = -1;

  add(page.main,
    head("Graph", "What is known, and how it hangs together. Choose something to see what stands around it."),
    form({ class: "row ask", role: "search" }, async (data) => {
      const { hits } = await post("/api/v1/search", { query: data.get("q"), k: 8 }, page.signal);
      fill(found, hits.length ? h("ul", { class: "plain walk card" }, hits.map((hit) => h("li", {}, button(short(called(hit), 90), () => go(hit.id), { kind: "linked", key: `hit ${hit.id}` })))) : nothing("Nothing was found."));
    }, field("Begin with", text), h("button", { type: "submit", class: "primary" }, "Find")),
    found,
    h("p", { id: "graph-keys", class: "soft small" }, "Arrow keys go from one to the next, Enter opens what stands around it, + and − change the size, 0 shows all. The list says the same in words."),
    h("div", { class: "walked" }, pictured, panel));
  page.ready();
  const first = page.query.get("id") ?? (await beginning(page.signal));
  if (first === null) fill(panel, nothing("The memory is empty. Take in documents, or ask something."));
  else await go(first, { focus: false });
}

/** Read a node, what stands beside it, and the links between all of them. */
const around = (id, signal) => get("/api/v1/graph/neighbors", { id, limit: AT_ONCE + 1 }, signal);

/** Return the node to begin with where none was named: one that others hang on. */
async function beginning(signal) {
  for (const kind of ["document", "session", "prompt", "memory"]) {
    const { nodes } = await get("/v1/nodes", { kind, limit: 1 }, signal);
    if (nodes.length) return nodes[0].id;
  }
  return null;
}

const called = (node) => node.title || node.name || node.text || node.id;
