// One document: its text as it was read, opened at the place that something cites.

import { get } from "../api.js";
import { add, h } from "../dom.js";
import { aboutDocument, head, source } from "../ui.js";

export const title = "Document";

export async function show(page) {
  const id = page.query.get("id") ?? "";
  const whole = (name) => (/^\d+$/.test(page.query.get(name) ?? "") ? Number(page.query.get(name)) : null);
  const { about, body, missing, reveal } = await source(id, whole("start"), whole("end"), page.signal);
  document.title = `${about.title || about.name} · RaeburnMemory`;
  const file = await fileOf(about, page.signal);
  add(page.main,
    head(about.title || about.name, about.title ? about.name : "",
      h("a", { class: "button", href: `/graph?${new URLSearchParams({ id })}` }, "In the graph"),
      file ? h("a", { class: "button", href: `/files/${file.split("/").map(encodeURIComponent).join("/")}`, download: true }, "Save the file") : null),
    missing, aboutDocument(about), body);
  page.ready();
  reveal();
}

/** Return the path under which a project lists the file of a document, null for what is no such file. */
async function fileOf(about, signal) {
  if (about.source !== "file") return null;
  const { projects } = await get("/api/v1/projects", {}, signal);
  const end = `/${decoded(about.uri).split("/").pop()}`;
  for (const project of projects) {
    const { files } = await get(`/api/v1/projects/${project.id}/files`, {}, signal);
    const found = files.filter((path) => path.endsWith(`/${about.name}`));
    if (found.length === 1 && found[0].endsWith(end)) return found[0];
  }
  return null;
}

function decoded(uri) {
  try {
    return decodeURIComponent(uri);
  } catch {
    return uri;
  }
}
