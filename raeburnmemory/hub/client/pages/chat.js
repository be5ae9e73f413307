// Chat: threads, answers as they come, and citations that open their source at the place.

import { Problem, events, get, post, remove } from "../api.js";
import { add, fill, h } from "../dom.js";
import { ago, moment, number, short } from "../format.js";
import { rich } from "../rich.js";
import { announce, button, chooseProject, documentPath, failed, field, head, nothing, openSource, sure, waiting, whereabouts } from "../ui.js";

export const title = "Chat";
export const name = "chat";

export async function show(page) {
  const [{ threads }, { projects }, info] = await Promise.all([
    get("/api/v1/threads", {}, page.signal), get("/api/v1/projects", {}, page.signal), get("/api/v1/info", {}, page.signal)]);
  const { id } = page.params;
  let thread = id === undefined ? null : await get(`/api/v1/threads/${id}`, {}, page.signal);
  let wanted = false; // whether Enter was pressed while an answer was being made
  const list = h("nav", { "aria-label": "Chats" });
  const log = h("div", { class: "log", role: "log", "aria-label": "What was said" });
  const about = h("div", { class: "row spread" });
  const project = chooseProject(projects, page.query.get("project"));
  const draft = () => `draft ${thread?.id ?? "new"}`;
  const keepDraft = () => { if (box.value) sessionStorage.setItem(draft(), box.value); else sessionStorage.removeItem(draft()); };
  const box = h("textarea", { name: "content", rows: "2", required: true, maxlength: "100000", placeholder: "Ask something", value: sessionStorage.getItem(draft()) ?? "",
    on: {
      input: () => { wanted = false; keepDraft(); },
      keydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        compose.requestSubmit();
      },
    } });
  const send = h("button", { type: "submit", class: "primary" }, "Ask");
  const stop = button("Stop", () => remove(`/api/v1/threads/${thread.id}/answer`));
  stop.hidden = true;
  const compose = h("form", { class: "compose", on: { submit: (event) => { event.preventDefault(); turn(() => ask(box.value.trim())); } } },
    thread === null ? field("Answer from", project) : null,
    field("Your question", box, "Enter asks, Shift and Enter begins a line."), send, stop);

  const projectName = (id) => projects.find((one) => one.id === id)?.name;
  const showList = () => fill(list, threads.length === 0 ? h("p", { class: "soft" }, "No chat yet.") : h("ul", { class: "plain" },
    [...threads].reverse().map((one) => h("li", {}, h("a", { href: `/chat/${one.id}`, "aria-current": one.id === thread?.id ? "page" : null },
      h("span", {}, one.title), h("small", { class: "soft" }, ago(one.created_at)))))));
  const showAbout = () => fill(about, thread === null ? null : [
    h("p", { class: "soft" }, thread.project_id === null ? "From the whole memory" : ["From ", h("a", { href: `/projects/${thread.project_id}` }, projectName(thread.project_id) ?? `project ${thread.project_id}, which is gone`)]),
    button("Forget this chat", async () => {
      if (!(await sure("Forget this chat?", "What was asked and answered leaves the memory.", "Forget"))) return;
      await remove(`/api/v1/threads/${thread.id}`);
      page.go("/chat");
    }, { kind: "small" })]);

  // --- asking --------------------------------------------------------------------------------------------------------

  /** Do one thing at a time. Enter is not lost meanwhile: what is in the field then is asked next, if that goes well. */
  async function turn(does) {
    if (send.getAttribute("aria-disabled") === "true") {
      wanted = true;
      announce("It is asked when the answer is there.");
      return;
    }
    const well = await waiting(send, async () => { await does(); return true; });
    const next = wanted && well;
    wanted = false;
    if (next) turn(() => ask(box.value.trim()));
  }

  async function ask(content) {
    if (!content) return;
    if (thread === null) {
      const chosen = project.value, before = draft();
      thread = { ...(await post("/api/v1/threads", { title: short(content, 80), ...(chosen ? { project: Number(chosen) } : {}) })), messages: [] };
      threads.push(thread);
      sessionStorage.removeItem(before);
      heading.querySelector("h1").textContent = thread.title;
      page.replace(`/chat/${thread.id}`);
      compose.querySelector("select")?.closest(".field").remove();
      showList();
      showAbout();
    }
    log.querySelector(".nothing")?.remove();
    const said = message({ role: "user", text: content });
    log.append(said);
    box.value = "";
    toEnd();
    try {
      // The hub answers to the end also when this page is gone; opened again, it goes on reading.
      await follow(events("POST", `/api/v1/threads/${thread.id}/messages`, { body: { content, stream: true, keep: true }, signal: page.signal }), keepDraft);
    } catch (error) {
      if (error.name !== "AbortError" && !said.nextElementSibling) { // it was not even begun: the question is not lost
        said.remove();
        box.value = content;
        keepDraft();
      }
      throw error;
    }
  }

  /** Read the events of an answer, and show it as it comes. */
  async function follow(found, begun = () => {}) {
    let answer = null, text = "", sources = [], ended = false;
    stop.hidden = false;
    send.hidden = true;
    const redraw = () => fill(answer.body, rich(text, (one) => citeSource(sources.find((source) => source.number === one))));
    try {
      for await (const [kind, data] of found) {
        // Whoever scrolled up to read is left there.
        const below = document.documentElement.scrollHeight - innerHeight - scrollY < 160;
        if (answer === null) {
          answer = message({ role: "assistant", text: "" });
          answer.setAttribute("aria-busy", "true");
          answer.body = answer.querySelector(".said");
          log.append(answer);
          begun();
        }
        if (kind === "retrieval") {
          sources = data.sources;
          fill(answer.body, h("p", { class: "soft thinking" }, sources.length ? `Reading ${number(sources.length)} ${sources.length === 1 ? "place" : "places"}…` : "Looking…"));
        } else if (kind === "delta") {
          text += data.text;
          redraw();
        } else if (kind === "done") {
          ended = true;
          answer.replaceWith(message({ role: "assistant", text: data.text, citations: data.citations, problems: data.problems, timestamp: new Date().toISOString() }));
          announce("The answer is there.");
        } else if (kind === "error") {
          ended = true;
          throw new Problem(data.status, data.code, data.detail);
        } else if (kind === "stopped") {
          ended = true;
          answer.append(h("p", { class: "soft small" }, "It was stopped."));
        }
        if (below) toEnd();
      }
      if (answer !== null && !ended) throw new Problem(0, "broken_off", "The answer broke off. Open the chat again to see what was kept of it.");
    } finally {
      answer?.removeAttribute("aria-busy");
      answer?.querySelector(".thinking")?.remove();
      stop.hidden = true;
      send.hidden = false;
    }
  }

  /** Go on reading an answer that was begun before this page was opened. */
  async function resume() {
    log.querySelector(".nothing")?.remove();
    log.append(message({ role: "user", text: thread.answering }));
    try {
      await follow(events("GET", `/api/v1/threads/${thread.id}/answer`, { signal: page.signal }));
    } catch (error) {
      if (error.status !== 404) throw error; // it has ended meanwhile, and is kept
    }
    thread = await get(`/api/v1/threads/${thread.id}`, {}, page.signal);
    if (!thread.answering) fill(log, thread.messages.map(message));
    toEnd();
  }

  // --- the page ------------------------------------------------------------------------------------------------------

  const heading = head(thread === null ? "Chat" : thread.title, "", h("a", { class: "button", href: "/chat" }, "New chat"));
  const can = info.upstream || info.model !== null;
  add(page.main,
    heading,
    h("div", { class: "talk" },
      h("details", { class: "threads", open: matchMedia("(min-width: 60rem)").matches }, h("summary", {}, "Chats"), list),
      h("div", { class: "conversation" }, about,
        can ? null : h("p", { class: "notice warn" }, "No model runs that could answer. ", h("a", { href: "/models" }, "Start one")),
        log, compose)));
  showList();
  showAbout();
  if (!thread?.messages.length) fill(log, nothing("Ask about what is in the memory. Each statement of an answer names the place it rests on."));
  else fill(log, thread.messages.map(message));
  page.ready();
  toEnd();
  if (matchMedia("(min-width: 60rem)").matches) box.focus();
  if (thread?.answering) turn(resume);
}

const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);

/** Show something that was said. */
function message(said) {
  const mine = said.role === "user";
  const byNumber = new Map();
  for (const one of said.citations ?? []) if (!byNumber.has(one.number)) byNumber.set(one.number, one);
  const body = h("div", { class: "said" }, mine ? h("p", { class: "typed" }, said.text) : rich(said.text, (one) => cite(byNumber.get(one))));
  return h("article", { class: `message ${mine ? "mine" : "theirs"}`, "aria-label": mine ? "You" : "Answer" },
    body,
    said.citations?.length ? h("ol", { class: "sources", "aria-label": "Sources" }, distinct(said.citations).map(sourceRow)) : null,
    said.problems?.length ? h("ul", { class: "problems" }, said.problems.map((one) => h("li", {}, one))) : null,
    said.timestamp ? h("small", { class: "soft when", title: moment(said.timestamp) }, ago(said.timestamp)) : null);
}

/** Make a number in a text the way to its source. */
function cite(citation, text = `${citation?.number}`) {
  if (!citation) return null;
  if (!citation.document) return h("span", { class: "cite" }, text);
  return h("a", { class: "cite", href: documentPath(citation.document, citation), "aria-label": `Source ${citation.number}: ${citation.title ?? "document"}`,
    on: { click: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return; // in a tab of its own
      event.preventDefault();
      openSource(citation.document, citation).catch(failed);
    } } }, text);
}

const citeSource = (source) => (source ? h("span", { class: "cite", title: source.title ?? "" }, String(source.number)) : null);

/** Leave out what several statements rest on a second time. */
const distinct = (citations) => [...new Map(citations.map((one) => [JSON.stringify([one.number, one.quote]), one])).values()];

const sourceRow = (one) => h("li", {},
  h("span", { class: "row" }, cite(one), h("strong", {}, one.title ?? one.said ?? one.kind ?? "A text"), h("span", { class: "soft" }, whereabouts(one)),
    one.verified ? h("span", { class: "pill good", title: "The words stand in the source, and the statement rests on them" }, "checked") : h("span", { class: "pill warn", title: "No words in the source were found that the statement rests on" }, "not found")),
  one.quote ? h("q", {}, short(one.quote, 300)) : null);
