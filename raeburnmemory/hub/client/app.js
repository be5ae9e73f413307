// The frame: which page is shown, and what to do when the hub does not know this browser, or does not answer.

import { Problem } from "./api.js";
import { add, fill, h } from "./dom.js";
import * as live from "./live.js";
import { announce, clearNotices, failed, field, form } from "./ui.js";

const PAGES = [
  [/^\/$/, () => import("./pages/home.js")],
  [/^\/chat(?:\/(?<id>\d+))?$/, () => import("./pages/chat.js")],
  [/^\/search$/, () => import("./pages/search.js")],
  [/^\/projects$/, () => import("./pages/projects.js")],
  [/^\/projects\/(?<id>\d+)$/, () => import("./pages/project.js")],
  [/^\/document$/, () => import("./pages/document.js")],
  [/^\/graph$/, () => import("./pages/graph.js")],
  [/^\/models$/, () => import("./pages/models.js")],
  [/^\/settings$/, () => import("./pages/settings.js")],
];

const main = document.getElementById("main");
let leave = new AbortController();
let first = true;
let shown = null; // the path of the page, without what follows a #

/** Show the page that the address names. */
async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const container = h("div", { class: "page" });
  shown = location.pathname + location.search;
  clearNotices();
  mark();
  const found = PAGES.map(([path, load]) => [location.pathname.match(path), load]).find(([match]) => match);
  try {
    if (!found) return missing();
    const page = await found[1]();
    if (signal.aborted) return undefined;
    document.title = `${page.title} · RaeburnMemory`;
    main.setAttribute("aria-busy", "true");
    if (page.name) container.classList.add(page.name);
    await page.show({
      main: container, signal, go, replace, params: found[0].groups ?? {}, query: new URLSearchParams(location.search),
      on: (kind, does) => live.on(kind, does, signal),
      every: (seconds, does) => every(seconds, does, signal),
      // A page shows its frame as soon as it has one; what follows fills it.
      ready: () => put(container, signal),
    });
    put(container, signal);
  } catch (error) {
    if (!signal.aborted) {
      failed(error);
      if (error?.status !== 401 && !container.isConnected) put(add(container, h("h1", {}, "This page cannot be shown")), signal);
    }
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
  return undefined;
}

function put(container, signal) {
  if (signal.aborted || container.isConnected) return;
  main.replaceChildren(container);
  scrollTo(0, 0);
  if (!first) {
    main.focus({ preventScroll: true }); // what is read aloud begins with the page that was opened
    announce(document.title);
  }
  first = false;
}

function missing() {
  document.title = "No such page · RaeburnMemory";
  fill(main, h("div", { class: "page" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "/" }, "Go home"))));
}

function mark() {
  for (const link of document.querySelectorAll("nav a")) {
    const path = link.getAttribute("href");
    const here = path === "/" ? location.pathname === "/" : location.pathname.startsWith(path);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Go to another page of this client. */
function go(path) {
  history.pushState(null, "", path);
  show();
}

/** Let the address say what is shown, so that a reload shows it again. */
function replace(path) {
  history.replaceState(null, "", path);
  shown = location.pathname + location.search;
}

/** Do something now and then, while the page is looked at. */
function every(seconds, does, signal) {
  let busy = false;
  const timer = setInterval(async () => {
    if (document.hidden || busy) return;
    busy = true;
    try {
      await does();
    } catch (error) {
      if (!signal.aborted && error?.status !== 0) failed(error); // that the hub is away is shown beside the pages
    } finally {
      busy = false;
    }
  }, seconds * 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
}

// --- who is not known ------------------------------------------------------------------------------------------------

let unknown = false;

function ask() {
  if (unknown) return;
  unknown = true;
  live.end();
  leave.abort();
  main.removeAttribute("aria-busy");
  const given = new URLSearchParams(location.search).has("code");
  document.title = "Let this browser in · RaeburnMemory";
  document.body.classList.add("unknown");
  clearNotices();
  const typed = h("input", { name: "address", required: true, autocomplete: "off", spellcheck: "false", placeholder: "http://localhost:4444/?code=…" });
  fill(main, h("div", { class: "page door" },
    h("h1", {}, "Let this browser in"),
    given ? h("p", { class: "notice bad", role: "alert" }, "The code in this address is not good, or not any more: each is good once.") : null,
    h("p", {}, "The hub does not know this browser yet. When it starts it prints an address that lets one browser in, once. This makes another one:"),
    h("pre", { tabindex: "0" }, "raeburnmemory hub --new-code"),
    form({ class: "stack" }, (data) => {
      const code = /(?:[?&]code=)?([A-Za-z0-9_-]{32,})(?:$|[&#\s])/.exec(data.get("address"))?.[1];
      if (!code) throw new Problem(0, "", "There is no code in that. Paste the whole address that was printed.");
      location.assign(`/?code=${encodeURIComponent(code)}`);
    }, field("The address that was printed", typed), h("button", { type: "submit", class: "primary" }, "Open"))));
  typed.focus();
}

// --- beginning -------------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const path = link.getAttribute("href");
  if (!path.startsWith("/") || link.target || link.hasAttribute("download")) return;
  if (!PAGES.some(([known]) => known.test(link.pathname))) return;
  event.preventDefault();
  go(path);
});
addEventListener("popstate", () => { if (location.pathname + location.search !== shown) show(); });
addEventListener("unknown", ask);
addEventListener("unhandledrejection", (event) => failed(event.reason));
addEventListener("error", (event) => { if (event.error) failed(event.error); });

live.on("link", (there) => {
  document.getElementById("away").textContent = there ? "" : "The hub does not answer. Trying again…";
  if (there && !unknown) show();
});
live.on("jobs", () => {
  if (!unknown && new URLSearchParams(location.search).has("code")) replace(location.pathname);
});
live.begin();
show();
