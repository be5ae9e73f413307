// Requests to the hub. It is on this machine or nowhere: no other address is ever asked.

export const LARGEST = 20 * 1024 * 1024; // bytes that the hub takes at once
const PATIENCE = 25_000; // milliseconds for an answer; a browser ends a background that waits for 30 seconds
const QUICK = 5_000;

/** The hub did not answer. */
export class Away extends Error {}

async function ask(address, path, { token = null, body = null, key = null, patience = QUICK } = {}) {
  const headers = {};
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  if (key !== null) headers["Idempotency-Key"] = key;
  let answer;
  let told = null;
  try {
    answer = await fetch(address + path, {
      method: body === null ? "GET" : "POST",
      headers,
      body,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(patience),
    });
    told = await answer.json().catch((error) => {
      if (error instanceof SyntaxError) return null; // somebody else listens there
      throw error;
    });
  } catch {
    throw new Away(`No hub answers at ${address}.`);
  }
  return { status: answer.status, told };
}

const detail = (answer) => String(answer.told?.detail ?? `The hub answered ${answer.status}.`);

/** Turn a code into a token; the hub gives it to this extension alone. Throws an Error with what the hub said. */
export async function pair(address, code, name) {
  const answer = await ask(address, "/api/v1/pair", { body: JSON.stringify({ code, name }) });
  if (answer.status !== 201 || typeof answer.told?.token !== "string") throw new Error(detail(answer));
  return answer.told.token;
}

/** Return the projects of the hub, each with its id and name. */
export async function projects({ address, token }) {
  const answer = await ask(address, "/api/v1/projects", { token });
  if (answer.status !== 200 || !Array.isArray(answer.told?.projects)) throw new Error(detail(answer));
  return answer.told.projects;
}

async function here(address) {
  try {
    return (await ask(address, "/api/v1/health")).status === 200;
  } catch {
    return false;
  }
}

/**
 * Send one capture under its key, which makes it safe to send again. Return { state, said }; state is
 *   saved     the hub has it,
 *   refused   the hub does not want it, and will not tomorrow,
 *   later     the hub could not take it now,
 *   away      the hub does not answer,
 *   unpaired  the hub does not know us.
 */
export async function send({ address, token }, key, body) {
  if (new TextEncoder().encode(body).length > LARGEST) {
    return { state: "refused", said: "It is longer than the 20 MiB that the hub takes." };
  }
  let answer;
  try {
    answer = await ask(address, "/api/v1/capture", { token, key, body, patience: PATIENCE });
  } catch (error) {
    const up = await here(address); // or else one that the hub never finishes would hold up all behind it
    return { state: up ? "later" : "away", said: up ? "The hub has not finished it yet; it is asked again in a minute." : error.message };
  }
  return judged(answer);
}

function judged(answer) {
  const { status, told } = answer;
  if ((status === 200 || status === 201) && typeof told?.outcome === "string") {
    if (["added", "updated", "unchanged", "renamed"].includes(told.outcome)) return { state: "saved", said: "" };
    return { state: "refused", said: `The hub kept nothing of it: ${told.reason || told.outcome}` };
  }
  if (status === 401) return { state: "unpaired", said: "The hub does not know this extension any more. Pair it again." };
  if (status === 403) return { state: "unpaired", said: detail(answer) };
  if ([404, 413, 415, 422].includes(status) && told?.detail) return { state: "refused", said: detail(answer) };
  return { state: "later", said: detail(answer) };
}
