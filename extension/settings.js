// What is remembered of the hub, and of what was being written.

export const api = globalThis.browser ?? globalThis.chrome;

export const HOSTS = { origins: ["http://localhost/*", "http://127.0.0.1/*"] };

const UNSET = { address: "http://localhost:4444", token: null, project: null, draft: "", state: "unpaired", said: "" };

/** Return the settings by their names: address, token, project, draft, state (ok, away or unpaired) and said. */
export async function settings() {
  return { ...UNSET, ...(await api.storage.local.get(Object.keys(UNSET))) };
}

export function remember(changed) {
  return api.storage.local.set(changed);
}

/** Return an address of the hub as it is kept, or null where it is none of this machine. */
export function checkedAddress(text) {
  let url;
  try {
    url = new URL(/^[a-z]+:\/\//i.test(text.trim()) ? text.trim() : `http://${text.trim()}`);
  } catch {
    return null;
  }
  const known = url.protocol === "http:" && ["localhost", "127.0.0.1"].includes(url.hostname);
  return known && !url.username && !url.password && url.pathname === "/" && !url.search && !url.hash ? url.origin : null;
}
