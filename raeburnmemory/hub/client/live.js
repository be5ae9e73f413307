// What happens in the hub, told to the page: jobs and models, as they change.
//
// A browser has six connections to one server for all its tabs, and a stream takes one: a tab that nobody looks at has
// none, and reads how things stand when it is looked at again.

import { get } from "./api.js";

const listeners = new Map();
const jobs = new Map();
let source = null;
let again = null;
let lost = false;
let over = false;

/** Call *does* with what happens: `job`, `model`, `jobs` (they were read anew) or `link` (with or without the hub). */
export function on(kind, does, signal) {
  const known = listeners.get(kind) ?? new Set();
  listeners.set(kind, known.add(does));
  signal?.addEventListener("abort", () => known.delete(does));
}

function tell(kind, data) {
  for (const does of [...(listeners.get(kind) ?? [])]) does(data);
}

/** Return the jobs that are known, the oldest first. */
export const known = () => [...jobs.values()];

export const underWay = () => known().filter((job) => job.finished_at === null);

/** Take a job as it was answered: events may come later, or were missed. */
export function took(job) {
  if (jobs.get(job.id)?.finished_at && !job.finished_at) return;
  jobs.set(job.id, job);
  tell("job", job);
}

async function read() {
  const found = await get("/api/v1/jobs");
  // What was told while this was on its way may be newer.
  for (const job of found.jobs) if (!jobs.get(job.id)?.finished_at) jobs.set(job.id, job);
  tell("jobs", null);
}

function listen() {
  clearTimeout(again);
  if (source !== null || over || document.hidden) return;
  source = new EventSource("/api/v1/events");
  source.addEventListener("open", () => {
    jobs.clear();
    check();
  });
  source.addEventListener("job", (event) => took(JSON.parse(event.data)));
  source.addEventListener("model", (event) => tell("model", JSON.parse(event.data)));
  source.addEventListener("error", () => {
    broken();
    check();
  });
}

function rest() {
  source?.close();
  source = null;
}

/** Read the jobs, and so learn whether the hub answers, and whether it knows who asks: a stream that fails tells neither. */
async function check() {
  try {
    await read();
    if (lost) tell("link", true);
    lost = false;
  } catch (error) {
    if (over) return;
    if (error.status === 401) {
      dispatchEvent(new CustomEvent("unknown"));
      return;
    }
    if (!lost) tell("link", false);
    lost = true;
    broken();
  }
}

function broken() {
  rest();
  clearTimeout(again);
  if (!document.hidden && !over) again = setTimeout(listen, 2000);
}

/** Listen no more: the hub does not know who asks. */
export function end() {
  over = true;
  rest();
}

/** Begin to listen, for as long as the page is looked at. */
export function begin() {
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", () => listen());
  listen();
}
