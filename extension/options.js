import { pair } from "./hub.js";
import { waiting } from "./queue.js";
import { HOSTS, api, checkedAddress, remember, settings } from "./settings.js";

const at = (id) => document.getElementById(id);
const NAME = /Firefox\//.test(navigator.userAgent) ? "the extension in Firefox" : "the extension in Chromium";

function say(text, failed = false) {
  at("said").textContent = text;
  at("said").className = failed ? "failed" : "";
}

// Asked for beforehand: a browser grants it at a click alone, and not after a wait.
let allowed = await api.permissions.contains(HOSTS);

async function show() {
  const known = await settings();
  if (!at("address").value) at("address").value = known.address;
  at("paired").textContent =
    known.token === null
      ? "Not paired yet."
      : `Paired with ${known.address}.${known.state === "ok" ? "" : ` ${known.said}`}`;
  at("forget").hidden = known.token === null;
  const all = await waiting();
  at("none").hidden = all.length > 0;
  at("now").hidden = !all.some((one) => !one.refused);
  at("list").replaceChildren(...all.map(entry));
}

function entry(one) {
  const item = document.createElement("li");
  const title = document.createElement("strong");
  title.textContent = one.title;
  const about = document.createElement("span");
  about.className = "soft";
  about.textContent = ` ${one.kind}, ${new Date(one.created).toLocaleString()}`;
  item.append(title, about);
  if (one.said) {
    const why = document.createElement("p");
    why.className = one.refused ? "failed" : "soft";
    why.textContent = one.said;
    item.append(why);
  }
  const row = document.createElement("div");
  row.className = "row";
  if (one.refused) row.append(button("Try again", one, "again"));
  row.append(button("Discard", one, "discard"));
  item.append(row);
  return item;
}

function button(text, one, order) {
  const made = document.createElement("button");
  made.textContent = text;
  made.setAttribute("aria-label", `${text}: ${one.title}`);
  made.addEventListener("click", async () => {
    await api.runtime.sendMessage({ order, id: one.id });
    await show();
  });
  return made;
}

at("pair").addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = allowed ? Promise.resolve(true) : api.permissions.request(HOSTS);
  const address = checkedAddress(at("address").value);
  if (address === null) {
    say("The hub is on this machine: write an address like http://localhost:4444.", true);
    at("address").focus();
    return;
  }
  try {
    allowed = await asked;
    if (!allowed) throw new Error("Without the permission to ask this machine, the extension cannot reach the hub.");
    const token = await pair(address, at("code").value.trim(), NAME);
    await remember({ address, token, project: null, state: "ok", said: "" });
  } catch (error) {
    say(error.message, true);
    return;
  }
  at("code").value = "";
  say("Paired.");
  await api.runtime.sendMessage({ order: "deliver" });
  await show();
});

at("forget").addEventListener("click", async () => {
  await remember({ token: null, project: null, state: "unpaired", said: "" });
  say("Forgotten here. The hub lists the token until it is taken back there.");
  await show();
});
at("now").addEventListener("click", async () => {
  await api.runtime.sendMessage({ order: "deliver" });
  await show();
});
api.storage.onChanged.addListener((changed) => {
  if (["queue", "state", "token", "said"].some((name) => name in changed)) show();
});

await show();
document.documentElement.dataset.ready = "yes";
