// What runs in a page when somebody asks for it to be saved. Each function goes there alone: it may use nothing around it.

/** Return the page: its address, its title and its HTML without what is no text: programs, styles, frames and fields. */
export function readPage() {
  if (document.contentType === "application/pdf") return { pdf: true };
  const copy = document.documentElement.cloneNode(true);
  // Data about the page, such as its author and date, stands in a script of its own type. Fields may hold secrets.
  const unread = 'script:not([type="application/ld+json"]), style, iframe, frame, object, embed, input, template';
  for (const each of copy.querySelectorAll(unread)) each.remove();
  for (const each of copy.querySelectorAll('[src^="data:"]')) each.removeAttribute("src");
  for (const each of copy.querySelectorAll("[srcset]")) each.removeAttribute("srcset");
  return { url: location.href, title: document.title, html: `<!DOCTYPE html>\n${copy.outerHTML}` };
}

/** Return the text that is selected, with where it stands. */
export function readSelection() {
  return { url: location.href, title: document.title, selection: String(getSelection() ?? "") };
}
