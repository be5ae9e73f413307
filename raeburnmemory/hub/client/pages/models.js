// Models: fetching them, starting, stopping, what they print, and taking them off this machine.

import { get, named, post, remove } from "../api.js";
import { add, away, fill, h } from "../dom.js";
import { size } from "../format.js";
import * as live from "../live.js";
import { announce, button, field, form, head, notice, nothing, pace, pill, progress, sure } from "../ui.js";

export const title = "Models";

export async function show(page) {
  const list = h("div", { class: "stack" });
  const cards = new Map();
  let known = [];
  const [info, first] = await Promise.all([get("/api/v1/info", {}, page.signal), get("/api/v1/models", {}, page.signal)]);
  const may = info.scopes.includes("models");

  let asked = 0, newest = 0; // events and answers come thick: what was asked for earlier must not replace what is newer
  const read = async (found) => {
    const mine = asked += 1;
    const told = found ?? await get("/api/v1/models", {}, page.signal);
    if (mine < newest) return;
    newest = mine;
    known = told.models;
    for (const name of [...cards.keys()]) if (!known.some((model) => model.name === name)) cards.delete(name);
    for (const model of known) {
      if (!cards.has(model.name)) cards.set(model.name, card(model.name));
      cards.get(model.name).show(model);
    }
    const order = [...known].sort((a, b) => rank(a) - rank(b)).map((model) => cards.get(model.name).element);
    if (order.some((element, at) => list.children[at] !== element) || order.length !== list.children.length) fill(list, order.length ? order : nothing("No model is known. Add one below."));
  };
  // The answer of each call is how things stand then; what comes later is told by events.
  const does = (name, what) => async () => { await what(named("/api/v1/models", name)); await read(); };

  function card(name) {
    const element = h("article", { class: "card model", "aria-labelledby": `model ${name}`.replaceAll(" ", "-") });
    const top = h("div"), buttons = h("div", { class: "row" }), lines = h("pre", { tabindex: "0", "aria-label": `What ${name} printed` });
    const log = h("details", {}, h("summary", {}, "Logs"), lines);
    const readLog = async () => {
      const found = await get(named("/api/v1/models", name, "/logs"), { n: 200 }, page.signal);
      const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
      lines.textContent = found.lines.join("\n") || "Nothing was printed yet.";
      if (atEnd) lines.scrollTop = lines.scrollHeight;
    };
    log.addEventListener("toggle", () => { if (log.open) readLog().catch((error) => notice(error.message)); });
    page.every(2, () => (log.open && log.isConnected ? readLog() : null));
    element.append(top, buttons, log);
    let before = null;
    return { element, show(model) {
      const here = JSON.stringify(model);
      if (here === before) return;
      if (before !== null && JSON.parse(before).state !== model.state) announce(`${model.title ?? name}: ${model.message}`);
      before = here;
      fill(top, about(model));
      fill(buttons, may ? actions(model, does, read) : null);
      log.hidden = ["absent", "downloading"].includes(model.state);
    } };
  }

  add(page.main,
    head("Models", info.upstream
      ? "A server that was named at the start answers questions. Models started here are not asked meanwhile."
      : "They run on this machine, and answer from what is in the memory."),
    list,
    info.scopes.includes("admin") ? adding(read) : null);
  await read(first);
  page.on("model", () => read().catch((error) => notice(error.message)));
  page.on("job", (job) => { if (job.about.model) read().catch(() => {}); });
  page.every(4, () => read());
}

const rank = (model) => ["running", "downloading", "error", "idle", "absent"].indexOf(model.state);

function about(model) {
  const shown = model.size_text ?? (model.size ? size(model.size) : "");
  const loading = model.status.file_state;
  return [
    h("div", { class: "row spread" },
      h("h2", { id: `model ${model.name}`.replaceAll(" ", "-") }, model.title ?? model.name),
      pill(model.state, loading === "paused" ? "paused" : WORDS[model.state])),
    h("p", { class: "soft" }, [shown, model.kind === "embedding" ? "for embeddings" : "", model.license ?? ""].filter(Boolean).join(" · "),
      model.license_url ? [" · ", away(model.license_url, "licence")] : null),
    model.state === "downloading" && loading !== "paused"
      ? [progress(`Downloading ${model.name}`, model.status.bytes_done, model.status.bytes_total), h("p", { class: "soft small" }, loading === "verifying" ? "It is compared with its digest." : pace(model.status))]
      : null,
    loading === "paused" ? h("p", { class: "soft small" }, `${pace(model.status)} are here; the download goes on from there.`) : null,
    ["error", "running"].includes(model.state) ? h("p", { class: model.state === "error" ? "bad-text" : "soft small" }, model.message) : null,
  ];
}

const WORDS = { absent: "not here", downloading: "downloading", idle: "here", running: "running", error: "error" };

function actions(model, does, read) {
  const { name, state } = model;
  const paused = model.status.file_state === "paused";
  const made = [];
  const add = (text, what, given) => made.push(button(text, what, { "aria-label": `${text} ${model.title ?? name}`, key: `${text} ${name}`, ...given }));
  if (state === "absent" || paused || (state === "error" && model.status.file_state !== "ready")) {
    add(paused ? "Go on" : "Download", async () => {
      const plan = await get(named("/api/v1/models", name, "/plan"));
      if (plan.problems.length) notice(`${model.title ?? name}: ${plan.problems.join(" ")}`, plan.fits ? "warn" : "bad");
      if (plan.fits) await does(name, async (path) => live.took(await post(`${path}/download`)))();
    }, { kind: "primary" });
  }
  if (state === "downloading" && !paused) add("Pause", does(name, (path) => remove(`${path}/download`)));
  if (state === "idle" || (state === "error" && model.status.file_state === "ready")) add("Start", does(name, (path) => post(`${path}/start`, {})), { kind: "primary" });
  if (state === "running") add("Stop", does(name, (path) => post(`${path}/stop`)), { kind: "primary" });
  if (state === "idle") add("Check the file", does(name, async (path) => live.took(await post(`${path}/verify`))));
  if (state !== "absent" || paused) {
    add("Remove", async () => {
      const answer = await sure(`Remove ${model.title ?? name}?`, "Its file is deleted. To have it again it must be downloaded again.", "Remove");
      if (answer) await does(name, (path) => remove(path))().catch(async (error) => { await read(); throw error; });
    });
  }
  return made;
}

function adding(read) {
  const input = (name, given = {}) => h("input", { name, autocomplete: "off", spellcheck: "false", ...given });
  return h("details", { class: "card" }, h("summary", {}, "Add a model"),
    h("p", { class: "soft" }, "A model is a program that runs on this machine with your rights: take it from somebody you trust. With its SHA-256 the file is checked before it runs."),
    form({ class: "stack" }, async (data, made) => {
      const body = Object.fromEntries([...data].filter(([, value]) => value !== ""));
      body.filename ??= new URL(body.url).pathname.split("/").pop();
      await post("/api/v1/models", body);
      made.reset();
      await read();
      announce(`${body.name} was added.`);
    },
    field("Name", input("name", { required: true, placeholder: "tiny-chat" })),
    field("Address", input("url", { type: "url", required: true, placeholder: "https://example.org/tiny-chat.llamafile" })),
    field("Format", h("select", { name: "format" }, h("option", { value: "llamafile" }, "llamafile"), h("option", { value: "gguf" }, "GGUF"))),
    field("SHA-256", input("sha256", { pattern: "[0-9a-fA-F]{64}" }), "64 digits; may be left out."),
    h("button", { type: "submit", class: "primary" }, "Add")));
}
