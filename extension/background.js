// The part that is always there: it reads pages, keeps what is to be saved, and sends it when the hub answers.

import { send } from "./hub.js";
import { readPage, readSelection } from "./page.js";
import * as queue from "./queue.js";
import { api, remember, settings } from "./settings.js";

const RETRY = "retry";
const EACH_MINUTES = 1;
const CLOSED = "The browser lets no extension read this page. A note can be saved all the same.";

// --- reading ---------------------------------------------------------------------------------------------------------

async function inPage(tabId, func, frameId = 0) {
  try {
    const [answer] = await api.scripting.executeScript({ target: { tabId, frameIds: [frameId] }, func });
    if (answer?.result) return answer.result;
  } catch {
    // said below
  }
  throw new Error(CLOSED);
}

async function pageOf(tabId) {
  const page = await inPage(tabId, readPage);
  if (page.pdf) throw new Error("This is a PDF. Save the file into a folder of a project, which the hub reads.");
  return page;
}

async function selectionOf(tabId, frameId, fallback) {
  const found = await inPage(tabId, readSelection, frameId);
  const selection = found.selection.trim() ? found.selection : fallback ?? "";
  if (!selection.trim()) throw new Error("Nothing is selected.");
  return { ...found, selection };
}

// --- saving ----------------------------------------------------------------------------------------------------------

/** Keep a capture, then try to deliver it. Return { state, said }: saved, waiting or refused. */
async function save(kind, capture) {
  const { project } = await settings();
  const created = new Date().toISOString();
  const { url = null, title = "" } = capture;
  const entry = { id: crypto.randomUUID(), kind, title: title || url || kind, url, created, tries: 0, said: "", refused: false };
  const body = { captured_at: created };
  for (const [name, value] of Object.entries(capture)) {
    if (typeof value === "string" && value !== "") body[name] = value.toWellFormed?.() ?? value;
  }
  if (body.title) body.title = body.title.slice(0, 1000).toWellFormed?.() ?? body.title.slice(0, 1000);
  if (project !== null) body.project = project;
  await queue.add(entry, JSON.stringify(body));
  if (kind === "note") await remember({ draft: "" });
  await deliver();
  const left = (await queue.waiting()).find((one) => one.id === entry.id);
  if (left === undefined) return { state: "saved", said: "Saved." };
  if (left.refused) return { state: "refused", said: left.said };
  const { said } = await settings();
  return { state: "waiting", said: `It waits here. ${left.said || said}`.trim() };
}

let delivery = Promise.resolve();

/** Send what waits, the oldest first. Two of these never run at once, and each sees what was added before it was called. */
function deliver() {
  const done = delivery.then(deliverAll);
  delivery = done.catch((error) => console.error("What waits could not be sent:", error.message));
  return delivery;
}

async function deliverAll() {
  const tried = new Set();
  try {
    for (;;) {
      const known = await settings();
      const next = (await queue.waiting()).find((one) => !one.refused && !tried.has(one.id));
      if (next === undefined) break;
      if (known.token === null) {
        await remember({ state: "unpaired", said: "Pair with the hub first, in the settings." });
        break;
      }
      tried.add(next.id);
      const { state, said } = await send(known, next.id, await queue.bodyFor(next.id));
      if (state === "away" || state === "unpaired") {
        await remember({ state, said });
        break;
      }
      await remember({ state: "ok", said: "" });
      if (state === "saved") await queue.remove(next.id);
      else await queue.change(next.id, { refused: state === "refused", said, tries: next.tries + 1 });
    }
  } finally {
    await show();
  }
}

/** Say on the button what waits, and come back for it in a minute. */
async function show() {
  const all = await queue.waiting();
  const refused = all.filter((one) => one.refused).length;
  const later = all.length - refused;
  const parts = [];
  if (later) parts.push(`${later} ${later === 1 ? "waits" : "wait"} for the hub`);
  if (refused) parts.push(`${refused} refused, see the settings`);
  await api.action.setBadgeText({ text: refused ? "!" : later ? String(later) : "" });
  await api.action.setBadgeBackgroundColor({ color: refused ? "#a32020" : "#0a5ea8" });
  await api.action.setTitle({ title: parts.length ? `RaeburnMemory: ${parts.join(", ")}` : "Save to RaeburnMemory" });
  if (!later) await api.alarms.clear(RETRY);
  else if (!(await api.alarms.get(RETRY))) await api.alarms.create(RETRY, { periodInMinutes: EACH_MINUTES });
}

// --- who asks --------------------------------------------------------------------------------------------------------

const ORDERS = {
  page: async ({ tabId }) => save("page", await pageOf(tabId)),
  selection: async ({ tabId }) => save("selection", await selectionOf(tabId, 0)),
  note: async ({ note }) => save("note", note),
  deliver: async () => deliver(),
  again: async ({ id }) => {
    await queue.change(id, { refused: false, said: "" });
    await deliver();
  },
  discard: async ({ id }) => {
    await queue.remove(id);
    await show();
  },
};

api.runtime.onMessage.addListener((message, sender, answer) => {
  if (sender.id !== api.runtime.id || !Object.hasOwn(ORDERS, message?.order)) return false;
  ORDERS[message.order](message).then(
    (done) => answer(done ?? {}),
    (error) => answer({ state: "failed", said: error.message }),
  );
  return true; // the answer comes later
});

api.contextMenus.onClicked.addListener(async (info, tab) => {
  let done;
  try {
    const capture =
      info.menuItemId === "selection"
        ? await selectionOf(tab.id, info.frameId ?? 0, info.selectionText)
        : await pageOf(tab.id);
    done = await save(info.menuItemId, capture);
  } catch (error) {
    done = { state: "failed", said: error.message };
  }
  // The only place where a click in a menu can be answered.
  if (done.state === "saved") await api.action.setBadgeText({ text: "✓", tabId: tab.id });
  if (done.state === "failed") await api.action.setBadgeText({ text: "!", tabId: tab.id });
  await api.action.setTitle({ title: `RaeburnMemory: ${done.said}`, tabId: tab.id });
});

api.runtime.onInstalled.addListener(async () => {
  await api.contextMenus.removeAll();
  api.contextMenus.create({ id: "page", title: "Save this page to RaeburnMemory", contexts: ["page", "link", "image"] });
  api.contextMenus.create({ id: "selection", title: "Save the selection to RaeburnMemory", contexts: ["selection"] });
  await begin();
});
api.runtime.onStartup.addListener(begin);
api.alarms.onAlarm.addListener((alarm) => (alarm.name === RETRY ? deliver() : undefined));

async function begin() {
  // The token is for our own pages, not for what runs beside a page.
  await api.storage.local.setAccessLevel?.({ accessLevel: "TRUSTED_CONTEXTS" });
  await queue.sweep();
  await deliver();
}
