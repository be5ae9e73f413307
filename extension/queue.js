// What waits for the hub. It is in the browser's storage before anything is sent, and goes from there once the hub has it.
//
// `queue` is a list of { id, kind, title, url, created, tries, said, refused }; the body of each is a value of its own, so
// that long pages are neither read nor written to look at the list. Only the background changes them, one change at a time.

import { api } from "./settings.js";

const bodyOf = (id) => `body:${id}`;

let last = Promise.resolve();

function alone(change) {
  const done = last.then(change);
  last = done.catch(() => {});
  return done;
}

export async function waiting() {
  return (await api.storage.local.get({ queue: [] })).queue;
}

export async function bodyFor(id) {
  return (await api.storage.local.get(bodyOf(id)))[bodyOf(id)] ?? null;
}

export function add(entry, body) {
  return alone(async () => api.storage.local.set({ queue: [...(await waiting()), entry], [bodyOf(entry.id)]: body }));
}

export function change(id, changed) {
  return alone(async () => {
    const queue = (await waiting()).map((one) => (one.id === id ? { ...one, ...changed } : one));
    await api.storage.local.set({ queue });
  });
}

export function remove(id) {
  return alone(async () => {
    await api.storage.local.set({ queue: (await waiting()).filter((one) => one.id !== id) });
    await api.storage.local.remove(bodyOf(id));
  });
}

/** Remove bodies that no entry speaks of: the browser ended between two steps of a removal. */
export function sweep() {
  return alone(async () => {
    const known = new Set((await waiting()).map((one) => bodyOf(one.id)));
    const stored = Object.keys(await api.storage.local.get(null));
    await api.storage.local.remove(stored.filter((name) => name.startsWith("body:") && !known.has(name)));
  });
}
