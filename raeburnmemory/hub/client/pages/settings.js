// Settings: how it looks, who was let in, letting others in, and what the hub was started with.

import { Problem, get, post, remove } from "../api.js";
import { add, fill, h } from "../dom.js";
import { ago, moment, number } from "../format.js";
import { announce, button, facts, field, form, head, nothing, pill, sure } from "../ui.js";

export const title = "Settings";

const SCOPES = [
  ["read", "Read", "search and look at everything"],
  ["write", "Write", "save pages, ask, change projects"],
  ["models", "Models", "fetch, start, stop and delete models"],
  ["admin", "Administer", "let others in, name folders: whoever may may read every file that you may"],
];

export async function show(page) {
  const info = await get("/api/v1/info", {}, page.signal);
  add(page.main, head("Settings"), appearance(), about(info));
  if (!info.scopes.includes("admin")) {
    add(page.main, h("p", { class: "notice warn" }, "This browser may not let others in. A browser that was let in by the address that the hub printed may."));
    return;
  }
  const rules = await get("/api/v1/access", {}, page.signal);
  const list = h("div");
  const read = async () => {
    const { tokens } = await get("/api/v1/tokens", {}, page.signal);
    fill(list, tokens.length ? h("ul", { class: "plain" }, tokens.map((one) => row(one, rules, read))) : nothing("Nobody yet."));
  };
  add(page.main, pairing(read, page), h("section", { class: "card" }, h("h2", {}, "Who was let in"), list), legacy(rules));
  await read();
}

function appearance() {
  const kept = () => { try { return localStorage.getItem("theme") ?? "system"; } catch { return "system"; } };
  const choose = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme);
    } catch { /* a browser that keeps nothing forgets it with the page */ }
  };
  return h("section", { class: "card" }, h("fieldset", { class: "row" }, h("legend", {}, "Colours"),
    [["system", "As the system has them"], ["light", "Light"], ["dark", "Dark"]].map(([value, text]) =>
      h("label", { class: "check" }, h("input", { type: "radio", name: "theme", value, checked: kept() === value, on: { change: () => choose(value) } }), text))));
}

const about = (info) => h("section", { class: "card" }, h("h2", {}, "This hub"), facts([
  ["Version", info.version], ["Embedding model", info.embedder], ["Things in the memory", number(info.nodes)], ["Projects", number(info.projects)],
  ["Who answers", info.upstream ? "the server named by --completions-url" : (info.model ?? "no model runs")],
  ["This browser may", info.scopes.join(", ")],
  ["For programs", h("a", { href: "/docs", target: "_blank" }, "the routes")],
]));

function pairing(read, page) {
  const made = h("div", { role: "status" });
  const boxes = SCOPES.map(([value, text, what]) => h("label", { class: "check" },
    h("input", { type: "checkbox", name: "scope", value, checked: value === "read" || value === "write" }), h("span", {}, h("strong", {}, text), `: ${what}`)));
  page.every(5, () => (made.firstChild ? read() : null)); // whoever pairs meanwhile is seen
  return h("section", { class: "card" }, h("h2", {}, "Let an extension or a program in"),
    h("p", { class: "soft" }, "A code is good once, for ten minutes. Whoever is given it turns it into a token. For another browser, run ", h("code", {}, "raeburnmemory hub --new-code"), "."),
    form({ class: "stack" }, async (data) => {
      const scopes = data.getAll("scope");
      if (scopes.length === 0) throw new Problem(0, "", "Choose something that it may do.");
      const found = await post("/api/v1/pair/codes", { scopes, minutes: 10 });
      fill(made, h("p", { class: "code" }, h("output", { "aria-label": "The code" }, found.code),
        button("Copy", async () => { await navigator.clipboard.writeText(found.code); announce("The code was copied."); })),
      h("p", { class: "soft" }, `It may ${found.scopes.join(" and ")}, and is good until ${moment(new Date(Date.now() + found.minutes * 60000).toISOString())}.`));
    }, h("fieldset", {}, h("legend", {}, "It may"), boxes), h("button", { type: "submit", class: "primary" }, "Make a code")), made);
}

function row(one, rules, read) {
  const own = one.id === rules.credential;
  return h("li", { class: "row spread" },
    h("div", {}, h("strong", {}, one.name), own ? pill("ok", "this browser") : null,
      h("small", { class: "soft block" }, [one.cookie ? "a browser" : (one.origin ?? "a program"), one.scopes.join(", "), `let in ${ago(one.created_at)}`].join(" · "))),
    button("Revoke", async () => {
      const yes = await sure(`Revoke ${one.name}?`, own ? "This is the browser that you look at: it is let in again only by an address that the hub prints." : "It can do nothing more here from then on.", "Revoke");
      if (!yes) return;
      await remove(`/api/v1/tokens/${one.id}`);
      await read();
    }, { kind: "small", key: `revoke ${one.id}`, "aria-label": `Revoke ${one.name}` }));
}

const legacy = (rules) => h("section", { class: "card" }, h("h2", {}, "Without a token"),
  h("p", { class: "soft" }, "Chosen when the hub starts, for clients of the original that know no token."),
  facts([
    ["--trust-origin", rules.trusted.length ? rules.trusted.join(", ") : "no page"],
    ["--legacy-open", rules.legacy_open ? h("span", {}, pill("paused", "on"), " any program of this machine may use the original's calls") : "off"],
    ["RAEBURN_HUB_TOKEN", rules.fixed ? "set: that token may do everything" : "not set"],
  ]));
