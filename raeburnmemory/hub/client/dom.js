// Making what is on the page.
//
// Texts come from anywhere: pages that were saved, documents, names of files, what a model says. They only ever become
// text nodes. Nothing in this client parses HTML, and the policy that it is served with forbids that, too.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["checked", "disabled", "hidden", "indeterminate", "multiple", "open", "required", "selected", "value"]);
const NEVER = /^(on.*|style|srcdoc|src|action|formaction|ping)$/i;

/** Make an element: attributes, `on` with listeners, then what is in it: texts, elements, lists of them, or nothing. */
export function h(tag, given = {}, ...inside) {
  return filled(document.createElement(tag), given, inside);
}

/** Make an element of a drawing. */
export function draw(tag, given = {}, ...inside) {
  return filled(document.createElementNS(SVG, tag), given, inside);
}

function filled(element, given, inside) {
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") {
      for (const [event, does] of Object.entries(value)) element.addEventListener(event, does);
    } else if (value === null || value === undefined || value === false) {
      continue;
    } else if (PROPERTIES.has(name)) {
      element[name] = value;
    } else if (NEVER.test(name)) {
      throw new Error(`the attribute ${name} is never set from here`);
    } else if (name === "href" && !isOurs(value) && outside(value) === null) {
      throw new Error("a link leads to a page of ours, or to http");
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...flat(inside));
  return element;
}

function flat(inside) {
  return inside.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : String(one)));
}

const isOurs = (address) => /^[/#](?!\/)/.test(address);

/** Return an address of the web as it may stand in a link, null for any other kind. */
export function outside(address) {
  try {
    const found = new URL(address);
    return found.protocol === "https:" || found.protocol === "http:" ? found.href : null;
  } catch {
    return null;
  }
}

/** Make a link that leads away: in another tab, which learns nothing of this one. What is no such address is a text. */
export function away(address, text = address) {
  const href = outside(address);
  if (href === null) return h("span", {}, text);
  return h("a", { href, target: "_blank", rel: "noopener noreferrer" }, text);
}

/** Put things at the end of an element. */
export function add(element, ...inside) {
  element.append(...flat(inside));
  return element;
}

/** Put other things into an element; who had the focus keeps it, if something with the same data-key is there. */
export function fill(element, ...inside) {
  const held = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(...flat(inside));
  if (held !== undefined) element.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  return element;
}

/** Return where a character is in a string, given its number as Python counts. */
export function unit(text, number) {
  let at = 0;
  for (let left = number; left > 0 && at < text.length; left -= 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

/** Return a text with parts of it marked; *marks* are pairs of numbers of characters, as Python counts. */
export function marked(text, marks, given = {}) {
  const found = [];
  let at = 0;
  for (const [start, end] of [...marks].sort((a, b) => a[0] - b[0])) {
    const from = unit(text, start), to = unit(text, end);
    if (from < at || to <= from) continue;
    found.push(text.slice(at, from), h("mark", given, text.slice(from, to)));
    at = to;
  }
  return [...found, text.slice(at)];
}
