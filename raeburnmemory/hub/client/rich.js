// What a model wrote, as elements: paragraphs, lists, code, emphasis, and numbers of sources as links.
//
// A part of Markdown and nothing else. What is not understood stays as it was written; no HTML is ever read.

import { h } from "./dom.js";

const FENCE = /^\s{0,3}(```|~~~)/;
const ITEM = /^\s*(?:([-*+])|\d{1,3}[.)])\s+(.*)$/;
const HEADING = /^\s{0,3}#{1,6}\s+(.*?)#*\s*$/;
const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\[(\d{1,3})\]/g;

/** Return the elements of a text; *cite* makes what stands for the number of a source. */
export function rich(text, cite) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line)?.[1];
    if (fence) {
      const from = at += 1;
      while (at < lines.length && !lines[at].trimStart().startsWith(fence)) at += 1;
      found.push(h("pre", { tabindex: "0" }, h("code", {}, lines.slice(from, at).join("\n"))));
      at += 1;
    } else if (ITEM.test(line)) {
      const ordered = ITEM.exec(line)[1] === undefined, items = [];
      while (at < lines.length && ITEM.test(lines[at]) && (ITEM.exec(lines[at])[1] === undefined) === ordered) {
        items.push(h("li", {}, inline(ITEM.exec(lines[at])[2], cite)));
        at += 1;
      }
      found.push(h(ordered ? "ol" : "ul", {}, items));
    } else if (HEADING.test(line)) {
      found.push(h("p", {}, h("strong", {}, inline(HEADING.exec(line)[1], cite))));
      at += 1;
    } else if (line.trim() === "") {
      at += 1;
    } else {
      const from = at;
      while (at < lines.length && lines[at].trim() !== "" && (at === from || ![FENCE, ITEM, HEADING].some((one) => one.test(lines[at])))) at += 1;
      found.push(h("p", {}, inline(lines.slice(from, at).join("\n"), cite)));
    }
  }
  return found;
}

function inline(text, cite) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, , code, strong, source] = match;
    found.push(text.slice(at, match.index));
    if (code !== undefined) found.push(h("code", {}, code));
    else if (strong !== undefined) found.push(h("strong", {}, inline(strong, cite)));
    else found.push(cite?.(Number(source)) ?? whole);
    at = match.index + whole.length;
  }
  return [...found, text.slice(at)];
}
