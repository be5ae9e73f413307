// Asking the hub. The cookie of this page goes along by itself; it can be used from nowhere else.

/** What the hub said is wrong, or that it said nothing: `status` is 0 then. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.name = "Problem";
    Object.assign(this, { status, code });
  }
}

/** Return an address below the hub's routes; what is null or empty is left out of the query. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function answered(method, path, { body, query, signal, form } = {}) {
  const options = { method, signal, headers: { Accept: "application/json" }, cache: "no-store" };
  if (form !== undefined) options.body = form;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(address(path, query), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The hub does not answer. Look whether it still runs.");
  }
  if (!answer.ok) throw await problem(answer);
  return answer;
}

async function problem(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch { /* an answer that is no JSON says no more than its status */ }
  const detail = typeof told.detail === "string" ? told.detail : `The hub answered with the status ${answer.status}.`;
  return new Problem(answer.status, told.code ?? "", detail);
}

/** Ask, and return what JSON says. */
export async function ask(method, path, options) {
  const found = await (await answered(method, path, options)).json();
  // Calls of the original tell of errors in what they answer.
  if (found?.status === "error") throw new Problem(200, "", found.message ?? "It failed, and the hub does not say why.");
  return found;
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });
export const post = (path, body, signal) => ask("POST", path, { body, signal });
export const remove = (path, query) => ask("DELETE", path, { query });

/** Return the path of something by its name, which may have any letters but those that end a path. */
export const named = (folder, name, more = "") => `${folder}/${name.split("/").map(encodeURIComponent).join("/")}${more}`;

/** Ask, and yield the events of the answer as they come: a kind and its data. */
export async function* events(method, path, options) {
  const answer = await answered(method, path, options);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const kind = lines.find((line) => line.startsWith("event: "))?.slice(7);
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (kind && data) yield [kind, JSON.parse(data)];
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "broken_off", "The connection to the hub broke off before the answer was whole.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
