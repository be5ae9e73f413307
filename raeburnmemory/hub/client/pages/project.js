// One project: its folders, its uploads, and what became of each document.

import { ask, get, named, post, remove } from "../api.js";
import { add, fill, h } from "../dom.js";
import { ago, count, moment, number, size } from "../format.js";
import * as live from "../live.js";
import { announce, button, documentPath, failed, field, form, head, jobCard, nothing, notice, pill, sure, waiting } from "../ui.js";

export const title = "Project";

const PAGE = 100; // rows of documents at a time

export async function show(page) {
  const id = Number(page.params.id), path = `/api/v1/projects/${id}`;
  const [first, info] = await Promise.all([get(path, {}, page.signal), get("/api/v1/info", {}, page.signal)]);
  document.title = `${first.name} · RaeburnMemory`;
  const folders = h("div"), job = h("div"), report = h("div"), documents = h("div");
  let project = first, sources = [], filter = "", rows = PAGE;

  // --- taking in -----------------------------------------------------------------------------------------------------

  const again = `again ${id}`; // what was added while documents were taken in is taken in afterwards, also after a reload
  const sync = async (force = false) => {
    try {
      live.took(await ask("POST", `${path}/sync`, { query: force ? { force: "true" } : {} }));
      sessionStorage.removeItem(again);
    } catch (error) {
      if (error.code !== "already_under_way") throw error;
      sessionStorage.setItem(again, "yes");
    }
  };
  const ours = () => live.known().filter((one) => one.kind === "ingest" && one.about.project_id === id);
  const showJob = () => {
    const found = ours().at(-1);
    fill(job, found && found.finished_at === null ? jobCard(found, [project]) : null);
    fill(report, found && found.finished_at !== null ? reported(found) : null);
  };
  const read = async () => {
    const [about, told] = await Promise.all([get(path, {}, page.signal), get(`${path}/sources`, {}, page.signal)]);
    project = about;
    sources = told.sources;
    showFolders();
    showDocuments();
  };

  // --- folders and uploads -------------------------------------------------------------------------------------------

  const showFolders = () => fill(folders, project.directories.length === 0 ? nothing("No folder yet.") : h("ul", { class: "plain" },
    project.directories.map((one) => h("li", { class: "row spread" }, h("code", {}, one.path),
      button("Remove", async () => {
        const yes = await sure("Remove this folder?", `The documents from ${one.path} leave the memory. The files stay where they are.`, "Remove");
        if (!yes) return;
        await remove(`/api/v1/directories/${one.id}`);
        await read();
      }, { kind: "small", key: `remove ${one.id}`, "aria-label": `Remove the folder ${one.path}` })))));
  const upload = async (files) => {
    for (const file of files) {
      announce(`Uploading ${file.name}`);
      const data = new FormData();
      data.append("project", id);
      data.append("path", file.webkitRelativePath || file.name);
      data.append("file", file);
      try {
        const { notes } = await ask("POST", "/api/v1/ingest/file", { form: data });
        notes.forEach((one) => notice(one, "warn"));
      } catch (error) {
        if (!error.message.includes(file.name)) error.message = `${file.name}: ${error.message}`;
        failed(error);
      }
    }
    await read();
    announce("The uploads are done.");
  };
  const chosen = h("input", { type: "file", name: "files", multiple: true, id: "files" });
  chosen.addEventListener("change", async () => {
    await waiting(drop, () => upload([...chosen.files]));
    chosen.value = "";
  });
  const drop = h("div", { class: "drop", on: {
    dragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
    dragleave: () => drop.classList.remove("over"),
    drop: (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      waiting(drop, () => upload([...event.dataTransfer.files]));
    },
  } }, h("label", { for: "files" }, "Upload files"), chosen, h("small", { class: "soft" }, "or drop them here. Each has at most 100 MB."));

  // --- documents -----------------------------------------------------------------------------------------------------

  const showDocuments = () => {
    const found = sources.filter((one) => `${one.name} ${one.title} ${one.status}`.toLowerCase().includes(filter.toLowerCase()));
    // What went wrong stands first: it is what wants to be looked at.
    found.sort((a, b) => (a.status === "ok") - (b.status === "ok") || a.name.localeCompare(b.name));
    fill(documents, sources.length === 0 ? nothing("No document yet. Name a folder or upload files, and they are read.") : [
      h("table", {}, h("caption", { class: "unseen" }, "Documents"),
        h("thead", {}, h("tr", {}, ["Document", "State", "Size", "Taken in", ""].map((one) => h("th", { scope: "col" }, one || h("span", { class: "unseen" }, "What to do"))))),
        h("tbody", {}, found.slice(0, rows).map(row))),
      found.length > rows ? button(`Show more of ${number(found.length)}`, () => { rows += PAGE * 5; showDocuments(); }, { key: "more" }) : null,
    ]);
  };
  const row = (one) => h("tr", {},
    h("th", { scope: "row" }, one.status === "ok" ? h("a", { href: documentPath(one.id) }, one.name) : one.name, one.title && one.title !== one.name ? h("small", { class: "soft block" }, one.title) : null),
    h("td", {}, pill(one.status), one.reason ? h("small", { class: "block" }, one.reason) : null),
    h("td", { class: "number" }, one.size === null ? "" : size(one.size)),
    h("td", { title: moment(one.updated_at ?? one.timestamp) }, ago(one.updated_at ?? one.timestamp)),
    h("td", {}, button("Remove", async () => {
      const yes = await sure("Remove this document?", `${one.name} leaves the memory. Its file stays, and comes back when the project is read again.`, "Remove");
      if (!yes) return;
      await remove(named("/api/v1/sources", one.id));
      await read();
    }, { kind: "small", key: `drop ${one.id}`, "aria-label": `Remove ${one.name}` })));

  const search = h("input", { type: "search", name: "filter", autocomplete: "off", on: { input: () => { filter = search.value; rows = PAGE; showDocuments(); } } });
  const folder = h("input", { name: "path", required: true, autocomplete: "off", spellcheck: "false", placeholder: "/home/you/Documents" });
  const heading = head(first.name, "",
    h("a", { class: "button", href: `/chat?project=${id}` }, "Ask"), h("a", { class: "button", href: `/search?project=${id}` }, "Search"));
  add(page.main,
    heading, job, report,
    h("div", { class: "two" },
      h("section", { class: "card" }, h("h2", {}, "Folders"), folders,
        info.scopes.includes("admin") ? form({ class: "row ask" }, async (data, made) => {
          await post(`${path}/directories`, { path: data.get("path").trim() });
          made.reset();
          await read();
          await sync();
        }, field("Path of a folder on this machine", folder), h("button", { type: "submit" }, "Add")) : null),
      h("section", { class: "card" }, h("h2", {}, "Uploads"), drop)),
    h("section", { class: "card" },
      h("div", { class: "row spread" }, h("h2", {}, "Documents"),
        h("div", { class: "row" }, button("Look for changes", () => sync(), { kind: "primary" }), button("Read everything again", () => sync(true)))),
      field("Show only those with", search), documents),
    h("details", { class: "card" }, h("summary", {}, "Name and removal"),
      form({ class: "row ask" }, async (data) => {
        project = { ...project, ...(await ask("PATCH", path, { body: { name: data.get("name") } })) };
        heading.querySelector("h1").textContent = project.name;
        document.title = `${project.name} · RaeburnMemory`;
        announce("It was renamed.");
      }, field("Name", h("input", { name: "name", required: true, maxlength: "200", value: first.name })), h("button", { type: "submit" }, "Rename")),
      button("Remove this project", async () => {
        const also = h("label", { class: "check" }, h("input", { type: "checkbox", name: "files", value: "true" }), "Delete its uploads and summaries, too");
        const given = await sure(`Remove ${project.name}?`, "Its documents leave the memory. Folders stay as they are.", "Remove", also);
        if (!given) return;
        await remove(path, { files: given.get("files") ?? "" });
        page.go("/projects");
      }, { kind: "danger" })));
  const pending = async () => {
    if (sessionStorage.getItem(again) && !ours().some((one) => one.finished_at === null)) await sync();
  };
  page.on("jobs", () => { showJob(); pending().catch(failed); });
  page.on("job", (told) => {
    if (told.about.project_id !== id) return;
    showJob();
    if (told.finished_at !== null) {
      announce(`The documents of ${project.name} were taken in: ${told.state}.`);
      read().then(pending).catch(failed);
    }
  });
  await read();
  showJob();
}

function reported(job) {
  if (job.state === "failed") return h("p", { class: "notice bad" }, `Taking in documents failed: ${job.message}`);
  const found = job.result;
  if (!found) return job.state === "done" ? null : h("p", { class: "notice warn" }, `Taking in documents was ${job.state}. What is done stays; the rest comes with the next time.`);
  const parts = ["added", "updated", "renamed", "pruned", "unchanged", "empty", "skipped", "failed"]
    .filter((what) => found[what]).map((what) => `${number(found[what])} ${what === "pruned" ? "gone" : what}`);
  const wrong = found.items.filter((item) => item.outcome === "failed" || item.outcome === "empty");
  return h("div", { class: "job" },
    h("p", { class: "soft" }, `Read ${ago(job.finished_at)}: ${parts.join(", ") || "there is nothing"}.`, found.duplicates ? ` ${count(found.duplicates, "document")} with the bytes of another.` : ""),
    wrong.length ? h("details", {}, h("summary", {}, `${count(wrong.length, "document")} without text, or that could not be read`),
      h("ul", {}, wrong.slice(0, 200).map((item) => h("li", {}, h("strong", {}, item.name || item.uri), `: ${item.reason}`)))) : null,
    found.notes.map((note) => h("p", {}, note)));
}
