// Search: what matters for a question, with the words that were found, and why each hit was.

import { get, post } from "../api.js";
import { add, draw, fill, h, marked } from "../dom.js";
import { moment, number, short } from "../format.js";
import { announce, chooseProject, documentPath, field, form, head, nothing, pill, whereabouts } from "../ui.js";

export const title = "Search";

const LEGS = { dense: "meaning", lexical: "words", graph: "surroundings", time: "time", form: "form" };

export async function show(page) {
  const { projects } = await get("/api/v1/projects", {}, page.signal);
  const query = page.query.get("q") ?? "", project = page.query.get("project") ?? "";
  const results = h("div", { class: "stack" });
  const asked = h("input", { type: "search", name: "q", required: true, value: query, autocomplete: "off", placeholder: "When are the roses watered?" });
  add(page.main,
    head("Search", "By meaning, by words, and by what stands around them."),
    form({ class: "row ask", role: "search" }, (data) => find(data.get("q"), data.get("project")),
      field("What to find", asked), field("In", chooseProject(projects, project)),
      h("button", { type: "submit", class: "primary" }, "Find")),
    results);

  async function find(text, within) {
    page.replace(`/search?${new URLSearchParams({ q: text, ...(within ? { project: within } : {}) })}`);
    results.setAttribute("aria-busy", "true");
    try {
      const found = await post("/api/v1/search", { query: text, k: 20, ...(within ? { project: Number(within) } : {}) }, page.signal);
      const left = Object.entries(found.skipped).map(([leg, why]) => h("p", { class: "notice warn" }, `Without ${LEGS[leg] ?? leg}: ${why}`));
      fill(results, left, found.hits.length ? found.hits.map((hit, at) => shown(hit, at, found.hits)) : nothing("Nothing was found. Try other words, or the whole memory."));
      announce(`${number(found.hits.length)} found`);
    } finally {
      results.removeAttribute("aria-busy");
    }
  }
  if (query) await find(query, project);
  else page.ready();
  if (!query) asked.focus();
}

function shown(hit, at, hits) {
  const place = hit.place;
  const heading = place ? h("a", { href: documentPath(place.document, place) }, place.title || place.name) : h("span", {}, hit.speaker ?? hit.type);
  const about = place ? [place.name, whereabouts(place)] : [hit.type, hit.timestamp ? moment(hit.timestamp) : "", hit.session ?? ""];
  return h("article", { class: "card hit", "aria-label": `Hit ${at + 1}` },
    h("div", { class: "row spread" }, h("h2", {}, heading), h("span", { class: "score", title: "The score orders the hits of one search, and says nothing across searches" }, hit.score.toFixed(2))),
    h("p", { class: "soft small" }, about.filter(Boolean).join(" · ")),
    h("p", { class: "quoted" }, hit.text ? marked(hit.text, hit.marks) : "It has no text."),
    h("details", {}, h("summary", {}, "Why"), because(hit, hits)),
    h("p", { class: "row small" },
      place ? h("a", { href: documentPath(place.document, place), "aria-label": `Open ${place.name} at the place` }, "Open at the place") : null,
      h("a", { href: `/graph?${new URLSearchParams({ id: hit.id })}`, "aria-label": `Show hit ${at + 1} in the graph` }, "In the graph")));
}

/** Show a share as a bar; its number stands beside it. */
const bar = (share) => draw("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
  draw("rect", { width: 100, height: 8 }), draw("rect", { class: "full", width: (100 * share).toFixed(1), height: 8 }));

/** Say why something was found: what each leg of the search gave, the words, and what supported it. */
function because(hit, hits) {
  const legs = Object.entries(hit.why?.legs ?? {});
  const most = Math.max(...hits.map((one) => one.score), 0.001);
  return h("div", { class: "why" },
    legs.map(([leg, amount]) => h("div", { class: "leg" }, h("span", {}, LEGS[leg] ?? leg),
      bar(Math.max(0, amount) / most), h("span", { class: "number" }, amount.toFixed(2)))),
    h("p", { class: "small" },
      hit.similarity === undefined ? null : `Similarity ${hit.similarity.toFixed(2)}. `,
      hit.coverage === undefined ? null : `${Math.round(hit.coverage * 100)} % of the question's words. `),
    hit.why?.words?.length ? h("p", { class: "row small" }, "Words: ", hit.why.words.map((word) => pill("", word))) : null,
    hit.why?.path?.length ? h("ul", { class: "small" }, hit.why.path.map((step) => h("li", {}, `${step.relation} `,
      h("a", { href: `/graph?${new URLSearchParams({ id: step.id })}` }, short(step.name, 70) || step.id), ` gave ${step.amount.toFixed(2)}`))) : null,
    hit.duplicates?.length ? h("p", { class: "small" }, `${number(hit.duplicates.length)} near-copies are left out.`) : null);
}
