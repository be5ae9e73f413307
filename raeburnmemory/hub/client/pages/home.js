// Home: what to do first, what is under way, and the way to everything else.

import { get } from "../api.js";
import { add, fill, h } from "../dom.js";
import { ago, number } from "../format.js";
import * as live from "../live.js";
import { field, form, head, jobCard, nothing, pill } from "../ui.js";

export const title = "Home";
export const name = "home";

export async function show(page) {
  const [info, { projects }, { threads }] = await Promise.all([
    get("/api/v1/info", {}, page.signal), get("/api/v1/projects", {}, page.signal), get("/api/v1/threads", {}, page.signal)]);
  const jobs = h("div", { class: "stack" });
  const underWay = h("section", { class: "card", "aria-label": "Under way" }, h("h2", {}, "Under way"), jobs);
  const tiles = h("div", { class: "tiles" });
  let shown = info;

  const showJobs = () => {
    const found = live.underWay();
    underWay.hidden = found.length === 0;
    fill(jobs, found.map((job) => jobCard(job, projects)));
  };
  const showTiles = () => fill(tiles,
    tile("/models", "Model", shown.upstream ? "A server you named" : (shown.model ?? "None runs"),
      shown.upstream || shown.model ? "answers questions" : "choose one to chat", shown.upstream || shown.model ? "good" : "warn"),
    tile("/projects", "Projects", number(projects.length), "folders and files"),
    tile("/graph", "Memory", number(shown.nodes), "things that are known"),
    tile("/chat", "Chats", number(threads.length), "with citations"));
  const again = async () => { shown = await get("/api/v1/info", {}, page.signal); showTiles(); };

  const question = h("input", { name: "q", type: "search", placeholder: "Find in everything that is known", required: true, autocomplete: "off" });
  add(page.main,
    head("Home", "Everything stays on this machine."),
    form({ class: "ask row", role: "search" }, (data) => page.go(`/search?${new URLSearchParams({ q: data.get("q") })}`),
      field("Find", question), h("button", { type: "submit", class: "primary" }, "Find")),
    tiles, underWay, steps(info, projects, threads),
    h("div", { class: "two" },
      list("Projects", projects.slice(-6).reverse(), (one) => `/projects/${one.id}`, (one) => one.name, (one) => one.created_at, "No project yet."),
      list("Chats", threads.slice(-6).reverse(), (one) => `/chat/${one.id}`, (one) => one.title, (one) => one.created_at, "No chat yet.")));
  showJobs();
  showTiles();
  page.on("jobs", showJobs);
  page.on("job", (job) => { showJobs(); if (job.finished_at) again().catch(() => {}); });
  page.on("model", () => again().catch(() => {}));
}

const tile = (href, what, value, about, kind = "") =>
  h("a", { href, class: `tile ${kind}` }, h("span", { class: "soft" }, what), h("strong", {}, value), h("small", {}, about));

function steps(info, projects, threads) {
  const all = [
    [projects.length > 0, "/projects", "Make a project", "and name a folder, or upload files"],
    [info.upstream || info.model !== null, "/models", "Start a model", "or download one first"],
    [threads.length > 0, "/chat", "Ask something", "and open what the answer cites"],
  ];
  if (all.every(([done]) => done)) return null;
  return h("section", { class: "card" }, h("h2", {}, "First steps"),
    h("ol", { class: "steps" }, all.map(([done, href, what, more]) =>
      h("li", { class: done ? "done" : "" }, h("span", {}, h("a", { href }, what), ` ${more}`), done ? pill("done") : null))));
}

const list = (heading, found, path, text, when, none) => h("section", { class: "card" }, h("h2", {}, heading),
  found.length === 0 ? nothing(none) : h("ul", { class: "plain" },
    found.map((one) => h("li", { class: "row spread" }, h("a", { href: path(one) }, text(one)), h("small", { class: "soft" }, ago(when(one)))))));

