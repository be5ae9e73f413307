import { projects } from "./hub.js";
import { readSelection } from "./page.js";
import { waiting } from "./queue.js";
import { api, remember, settings } from "./settings.js";

const at = (id) => document.getElementById(id);

function say(text, failed = false) {
  at("said").textContent = text;
  at("said").className = failed ? "failed" : "";
}

const tab = (await api.tabs.query({ active: true, currentWindow: true }))[0];
let busy = false;

async function order(what, more = {}) {
  if (busy) return null;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  at("note").readOnly = true; // what is written now would be lost with what is saved
  say("Saving…");
  try {
    const done = await api.runtime.sendMessage({ order: what, ...more });
    say(done.said, done.state === "failed" || done.state === "refused");
    return done;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
    at("note").readOnly = false;
    await count();
  }
}

async function count() {
  const all = await waiting();
  const refused = all.filter((one) => one.refused).length;
  const parts = [];
  if (all.length > refused) parts.push(`${all.length - refused} waiting for the hub`);
  if (refused) parts.push(`${refused} refused`);
  at("waiting").textContent = parts.join(", ");
}

async function offerProjects(known) {
  let found;
  try {
    found = await projects(known);
  } catch (error) {
    say(error.message, true);
    return;
  }
  const choice = at("project");
  choice.replaceChildren(new Option("the memory, no project", ""), ...found.map((one) => new Option(one.name, one.id)));
  choice.value = found.some((one) => one.id === known.project) ? String(known.project) : "";
  if (choice.value === "" && known.project !== null) await remember({ project: null });
  at("where").hidden = found.length === 0;
}

at("page").addEventListener("click", () => order("page", { tabId: tab.id }));
at("selection").addEventListener("click", () => order("selection", { tabId: tab.id }));
at("project").addEventListener("change", (event) => remember({ project: event.target.value === "" ? null : Number(event.target.value) }));
at("settings").addEventListener("click", async () => {
  await api.runtime.openOptionsPage();
  window.close();
});

// The popup may be closed at any letter, so each is kept.
at("note").addEventListener("input", async () => {
  at("keep").disabled = at("note").value.trim() === "";
  await remember({ draft: at("note").value });
});
at("writing").addEventListener("submit", async (event) => {
  event.preventDefault();
  const note = { markdown: at("note").value };
  if (at("address").checked && /^https?:/.test(tab?.url ?? "")) Object.assign(note, { url: tab.url, title: tab.title });
  const done = await order("note", { note });
  if (done !== null && done.state !== "failed") {
    at("note").value = "";
    at("keep").disabled = true;
    at("note").focus();
  }
});

const known = await settings();
at("note").value = known.draft;
at("keep").disabled = known.draft.trim() === "";
await count();
try {
  const [answer] = await api.scripting.executeScript({ target: { tabId: tab.id }, func: readSelection });
  at("selection").disabled = !answer.result.selection.trim();
} catch {
  at("page").disabled = true;
  at("address").checked = false;
  at("address").disabled = true;
  say("The browser lets no extension read this page. A note can be saved all the same.");
}
if (known.token === null) {
  say("Pair with the hub first, in the settings. What is saved before then waits here.");
} else {
  await api.runtime.sendMessage({ order: "deliver" });
  await count();
  await offerProjects(known);
}
document.documentElement.dataset.ready = "yes";
