// Projects: which there are, and making one.

import { get, post } from "../api.js";
import { add, fill, h } from "../dom.js";
import { ago, moment } from "../format.js";
import * as live from "../live.js";
import { field, form, head, nothing, pill } from "../ui.js";

export const title = "Projects";

export async function show(page) {
  const list = h("ul", { class: "plain cards" });
  const { projects } = await get("/api/v1/projects", {}, page.signal);
  const named = h("input", { name: "name", required: true, maxlength: "200", autocomplete: "off", placeholder: "Garden" });
  const showAll = () => {
    const busy = new Set(live.underWay().map((job) => job.about.project_id));
    fill(list, projects.map((one) => h("li", {}, h("a", { class: "card link", href: `/projects/${one.id}`, "data-key": `project ${one.id}` },
      h("strong", {}, one.name), busy.has(one.id) ? pill("loading", "taking in") : null,
      h("small", { class: "soft", title: moment(one.created_at) }, `made ${ago(one.created_at)}`)))));
  };
  add(page.main,
    head("Projects", "A project holds folders that are read where they lie, and files that you upload."),
    form({ class: "row ask" }, async (data) => {
      const made = await post("/api/v1/projects", { name: data.get("name") });
      page.go(`/projects/${made.id}`);
    }, field("Name of a new project", named), h("button", { type: "submit", class: "primary" }, "Make it")),
    projects.length ? list : nothing("There is no project yet. Name one above: its folders and files come next."));
  showAll();
  page.on("jobs", showAll);
  page.on("job", showAll);
}
