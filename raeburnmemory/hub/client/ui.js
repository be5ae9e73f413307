// Parts that several pages are made of: notices, buttons that wait, questions, states, progress, and sources.

import { Problem, get, named, remove } from "./api.js";
import { away, h, marked, outside, unit } from "./dom.js";
import { clock, count, ending, moment, number, size } from "./format.js";
import * as live from "./live.js";

const at = (id) => document.getElementById(id);

// --- telling ---------------------------------------------------------------------------------------------------------

/** Tell whoever hears the page instead of seeing it. */
export function announce(text) {
  at("told").textContent = "";
  setTimeout(() => { at("told").textContent = text; }, 50);
}

/** Show a sentence above the page until it is put away, or another page is shown. */
export function notice(text, kind = "bad", ...more) {
  const box = h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" },
    h("p", {}, text), more,
    h("button", { class: "quiet", "aria-label": "Put this notice away", on: { click: () => box.remove() } }, "✕"));
  const known = [...at("notices").children].find((one) => one.firstChild.textContent === text);
  if (known) known.replaceWith(box);
  else at("notices").append(box);
  return box;
}

export const clearNotices = () => at("notices").replaceChildren();

/** Show what went wrong; that somebody went elsewhere is nothing wrong. */
export function failed(error) {
  if (error?.name === "AbortError") return;
  if (error instanceof Problem && error.status === 401) {
    dispatchEvent(new CustomEvent("unknown"));
    return;
  }
  if (!(error instanceof Problem)) console.error(error);
  notice(error instanceof Problem ? error.message : `This page made a mistake: ${error?.message ?? error}`);
}

// --- doing -----------------------------------------------------------------------------------------------------------

/** Make a button that does something which takes a while; meanwhile it cannot be pressed again. */
export function button(text, does, given = {}) {
  const { kind = "", key = text, ...rest } = given;
  const made = h("button", { type: "button", class: kind, "data-key": key, ...rest, on: { click: () => waiting(made, does) } }, text);
  return made;
}

/** Do something while a button waits; what goes wrong is shown. */
export async function waiting(held, does) {
  if (held.getAttribute("aria-disabled") === "true") return undefined;
  held.setAttribute("aria-disabled", "true"); // and not disabled, which would take the focus away
  try {
    return await does();
  } catch (error) {
    failed(error);
    return undefined;
  } finally {
    held.removeAttribute("aria-disabled");
  }
}

/** Make a form that sends itself to a function, and not to the server. */
export function form(given, does, ...inside) {
  const made = h("form", { ...given, on: { submit: (event) => {
    event.preventDefault();
    const held = event.submitter ?? made.querySelector("button[type=submit]");
    waiting(held ?? made, () => does(new FormData(made), made));
  } } }, inside);
  return made;
}

let names = 0;

/** Make a field with its label. */
export function field(label, control, hint) {
  control.id ||= `field-${names += 1}`;
  const about = hint ? h("small", { id: `${control.id}-hint` }, hint) : null;
  if (about) control.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, about);
}

/** Make a choice of one project, or of the whole memory. */
export function chooseProject(projects, chosen, whole = "The whole memory") {
  return h("select", { name: "project" }, h("option", { value: "" }, whole),
    projects.map((one) => h("option", { value: String(one.id), selected: String(one.id) === String(chosen ?? "") }, one.name)));
}

/** Ask before something that cannot be undone; gives what was filled in, null where the answer is no. */
export function sure(title, text, yes, ...fields) {
  return new Promise((settled) => {
    const made = h("dialog", { "aria-labelledby": "asked" },
      h("form", { method: "dialog" },
        h("h2", { id: "asked" }, title), h("p", {}, text), fields,
        h("div", { class: "row end" },
          h("button", { value: "no", autofocus: true }, "Cancel"), h("button", { value: "yes", class: "danger" }, yes))));
    made.addEventListener("close", () => {
      const given = made.returnValue === "yes" ? new FormData(made.querySelector("form")) : null;
      made.remove();
      settled(given);
    });
    document.body.append(made);
    made.showModal();
  });
}

// --- showing ---------------------------------------------------------------------------------------------------------

const KINDS = {
  running: "good", ready: "good", ok: "good", done: "good", downloading: "busy", verifying: "busy", queued: "busy",
  starting: "busy", loading: "busy", stopping: "busy", paused: "warn", empty: "warn", cancelled: "warn",
  interrupted: "warn", error: "bad", failed: "bad", crashed: "bad", corrupt: "bad",
};

/** Show a state as a word on a colour. */
export const pill = (state, text = state) => h("span", { class: `pill ${KINDS[state] ?? ""}` }, text);

/** Show how far something is; without a total only that it goes on. */
export function progress(label, done, total) {
  const known = total > 0;
  return h("progress", { "aria-label": label, max: known ? total : 1, value: known ? Math.min(done, total) : null });
}

/** Head a page. */
export const head = (title, about, ...more) =>
  h("div", { class: "head" }, h("div", {}, h("h1", {}, title), about ? h("p", { class: "soft" }, about) : null),
    more.length ? h("div", { class: "row" }, more) : null);

/** Say that there is nothing yet, and what to do. */
export const nothing = (text, ...more) => h("div", { class: "nothing" }, h("p", {}, text), more);

export const facts = (rows) => h("dl", { class: "facts" },
  rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

// --- jobs ------------------------------------------------------------------------------------------------------------

const DOES = { ingest: "Taking in documents", download: "Downloading", verify: "Checking the file of" };

/** Show a job: what it does, how far it is, and a way to end it. */
export function jobCard(job, projects = []) {
  const project = projects.find((one) => one.id === job.about.project_id)?.name;
  const subject = job.about.model ?? (project ? `of ${project}` : job.about.project_id ? `of project ${job.about.project_id}` : "");
  const title = `${DOES[job.kind] ?? job.kind} ${subject}`.trim();
  const bytes = job.kind !== "ingest";
  const told = job.total ? (bytes ? `${size(job.done)} of ${size(job.total)}` : `${number(job.done)} of ${count(job.total, "document")}`) : "";
  const underWay = job.finished_at === null;
  const said = job.kind === "ingest" ? ending(job.message) : job.message;
  return h("div", { class: "job" },
    h("div", { class: "row" }, h("strong", {}, title), underWay ? null : pill(job.state),
      underWay ? button(job.kind === "download" ? "Pause" : "Stop", async () => live.took(await remove(`/api/v1/jobs/${job.id}`)),
        { kind: "small", key: `end ${job.id}`, "aria-label": `Stop: ${title}` }) : null),
    underWay ? progress(title, job.done, job.total) : null,
    h("p", { class: "soft small" }, [told, job.state === "failed" ? job.message : said].filter(Boolean).join(" · ")));
}

// --- sources ---------------------------------------------------------------------------------------------------------

/** Return where a document can be read, at a place in it. */
export function documentPath(id, place) {
  const query = new URLSearchParams({ id });
  if (place && place.start !== null && place.start !== undefined && place.start >= 0) {
    query.set("start", place.start);
    query.set("end", place.end);
  }
  return `/document?${query}`;
}

/** Say where in its document something stands. */
export function whereabouts(place) {
  const range = (one, many, [first, last]) => (first === last ? `${one} ${first}` : `${many} ${first}–${last}`);
  if (place.lines) return range("line", "lines", place.lines);
  if (place.pages) return range("page", "pages", place.pages);
  return (place.headings ?? []).at(-1) ?? "";
}

/** Read a document, and return it with the part from *start* to *end* marked, which `reveal` brings into view. */
export async function source(id, start, end, signal) {
  const [about, content] = await Promise.all([
    get(named("/api/v1/sources", id), {}, signal), get(named("/api/v1/sources", id, "/content"), {}, signal)]);
  const text = content.text;
  const asked = Number.isInteger(start) && Number.isInteger(end) && end > start;
  const there = asked && unit(text, start) < text.length;
  const body = h("div", { class: "text", tabindex: "0", role: "region", "aria-label": "The text of the document" },
    there ? marked(text, [[start, end]], { id: "cited", tabindex: "-1" }) : text);
  const missing = asked && !there ? h("p", { class: "notice warn" }, "The cited place is not in the text any more: the document has changed.") : null;
  const reveal = () => {
    const mark = body.querySelector("mark");
    mark?.scrollIntoView({ block: "center" });
    mark?.focus({ preventScroll: true });
  };
  return { about, body, missing, reveal };
}

/** Say what is known of a document. */
export const aboutDocument = (about) => facts([
  ["From", outside(about.uri) === null ? about.uri : away(about.uri)],
  ["State", [pill(about.status), about.reason ? ` ${about.reason}` : ""]],
  ["Size", about.size === null ? null : size(about.size)],
  ["Fragments", number(about.fragments)],
  ["Taken in", about.updated_at || about.timestamp ? moment(about.updated_at ?? about.timestamp) : null],
]);

/** Open a source over the page, at the place; the page stays as it is beneath. */
export async function openSource(id, place) {
  const { about, body, missing, reveal } = await source(id, place?.start, place?.end);
  const made = h("dialog", { class: "wide", "aria-labelledby": "source-title" },
    h("div", { class: "row spread" },
      h("h2", { id: "source-title" }, about.title || about.name),
      h("button", { class: "quiet", "aria-label": "Close", on: { click: () => made.close() } }, "✕")),
    h("p", { class: "soft" }, [about.name, whereabouts(place ?? {})].filter(Boolean).join(" · ")),
    missing, body,
    h("p", { class: "row" }, h("a", { href: documentPath(id, place), on: { click: () => made.close() } }, "Open as a page")));
  made.addEventListener("close", () => made.remove());
  made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
  document.body.append(made);
  made.showModal();
  reveal();
}

/** Say how fast a download is, and how long it may take. */
export const pace = (status) => [
  status.bytes_total ? `${size(status.bytes_done)} of ${size(status.bytes_total)}` : size(status.bytes_done),
  status.speed ? `${size(status.speed)}/s` : "", status.eta === null ? "" : `${clock(status.eta)} left`,
].filter(Boolean).join(" · ");
