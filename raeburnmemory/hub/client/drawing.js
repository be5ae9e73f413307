// A graph as a drawing: where nodes are put, how they look, and how one moves among them.

import { draw } from "./dom.js";
import { short } from "./format.js";

// The colours and shapes are those of the pictures that the library draws, see raeburnmemory.picture.looks.
const SHAPES = {
  circle: "M0-11A11 11 0 1 1 0 11A11 11 0 1 1 0-11Z", square: "M-10-10H10V10H-10Z", diamond: "M0-13 13 0 0 13-13 0Z",
  hexagon: "M-6.5-11.500H6.500L13 0 6.5 11.500H-6.500L-13 0Z", page: "M-9-12H4L9-7V12H-9Z", triangle: "M0-12 12 10H-12Z",
  star: "M0-14 3.8-5 13-4.5 6-1.5 8.5 11 0 5.5-8.5 11-6 1.5-13-4.5-3.8-5Z", pentagon: "M0-12.5 12-4 7.5 10.500H-7.500L-12-4Z",
};
export const LOOKS = {
  prompt: "circle", response: "square", session: "hexagon", agent: "diamond", fact: "star", fragment: "page",
  document: "page", entity: "pentagon", memory: "circle", message: "triangle", observation: "diamond", item: "square",
};
const LENGTH = 130, PUSH = 9000, MOST = 40; // how long a link likes to be, how far nodes keep apart, how far one goes at once

const still = matchMedia("(prefers-reduced-motion: reduce)");

export function shape(kind, given = {}) {
  return draw("path", { class: `shape kind-${LOOKS[kind] ? kind : "other"}`, d: SHAPES[LOOKS[kind] ?? "circle"], ...given });
}

export class Drawing {
  /** Draw into *svg*; *choose* is called with the id of a node that somebody goes to. */
  constructor(svg, choose) {
    Object.assign(this, { svg, choose, nodes: new Map(), links: new Map(), chosen: null });
    Object.assign(this, { at: { x: 0, y: 0, zoom: 1 }, heat: 0, running: false, following: false });
    this.lines = draw("g");
    this.dots = draw("g");
    this.view = draw("g", {}, this.lines, this.dots);
    svg.append(this.view);
    svg.addEventListener("pointerdown", (event) => this.hold(event));
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls as ever
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300));
    }, { passive: false });
    svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => { this.follow(); this.place(); }).observe(svg);
  }

  /** Add nodes and links around the node *from*; what is known stays where it is. */
  add(nodes, links, from) {
    const centre = this.nodes.get(from) ?? { x: 0, y: 0 };
    const fresh = nodes.filter((node) => !this.nodes.has(node.id));
    fresh.forEach((node, number) => {
      const turn = (number / Math.max(fresh.length, 1)) * 2 * Math.PI + this.nodes.size;
      const far = node.id === from ? 0 : LENGTH * (1 + (number % 3) * 0.15);
      const made = { id: node.id, kind: node.type, x: centre.x + Math.cos(turn) * far, y: centre.y + Math.sin(turn) * far, dx: 0, dy: 0, beside: new Set() };
      const name = short(node.name, 26);
      made.element = draw("g", { class: "node", role: "button", tabindex: "-1", "aria-label": `${node.type}: ${short(node.name, 80)}`,
        on: { click: () => this.choose(node.id) } },
      draw("circle", { class: "halo", r: 19 }), shape(node.type), draw("text", { y: 30 }, name));
      this.nodes.set(node.id, made);
      this.dots.append(made.element);
    });
    for (const link of links) {
      const key = JSON.stringify([link.source, link.relation, link.target]);
      const [source, target] = [this.nodes.get(link.source), this.nodes.get(link.target)];
      if (!source || !target || source === target || this.links.has(key)) continue;
      const element = draw("line", { class: "link" }, draw("title", {}, link.relation));
      this.links.set(key, { source, target, element });
      source.beside.add(target);
      target.beside.add(source);
      this.lines.append(element);
    }
    this.warm(fresh.length ? 1 : 0.3);
  }

  select(id) {
    this.chosen = this.nodes.get(id) ?? null;
    for (const node of this.nodes.values()) {
      const here = node === this.chosen;
      node.element.classList.toggle("chosen", here);
      node.element.classList.toggle("aside", this.chosen !== null && !here && !this.chosen.beside.has(node));
      node.element.setAttribute("tabindex", here ? "0" : "-1");
      if (here) node.element.setAttribute("aria-current", "true");
      else node.element.removeAttribute("aria-current");
    }
    for (const link of this.links.values()) link.element.classList.toggle("near", link.source === this.chosen || link.target === this.chosen);
    this.following = this.chosen !== null;
    this.follow();
    this.place();
  }

  /** Keep what is chosen in the middle, with all that stands around it in view. */
  follow() {
    if (!this.following) return;
    const { width, height } = this.svg.getBoundingClientRect();
    const { x, y, beside } = this.chosen;
    const wide = Math.max(60, ...[...beside].map((one) => Math.abs(one.x - x))), high = Math.max(60, ...[...beside].map((one) => Math.abs(one.y - y)));
    this.at = { x, y, zoom: Math.min(1.2, Math.max(0.4, Math.min(width / 2 / (wide + 90), height / 2 / (high + 60)))) };
  }

  // --- where nodes are -------------------------------------------------------------------------------------------------

  warm(heat) {
    this.heat = Math.max(this.heat, heat);
    if (still.matches) {
      while (this.heat > 0.01) this.step();
      this.follow();
      this.place();
    } else if (!this.running) {
      this.running = true;
      requestAnimationFrame(() => this.frame());
    }
  }

  frame() {
    for (let many = 0; many < 4 && this.heat > 0.01; many += 1) this.step();
    this.follow();
    this.place();
    this.running = this.heat > 0.01 && this.svg.isConnected;
    if (this.running) requestAnimationFrame(() => this.frame());
  }

  step() {
    const all = [...this.nodes.values()];
    for (const node of all) [node.dx, node.dy] = [-node.x * 0.012, -node.y * 0.012];
    for (let one = 0; one < all.length; one += 1) {
      for (let other = one + 1; other < all.length; other += 1) {
        const a = all[one], b = all[other];
        const x = a.x - b.x || (one - other) * 0.01, y = a.y - b.y || 0.01;
        const push = PUSH / Math.max(x * x + y * y, 100);
        const far = Math.hypot(x, y);
        a.dx += (x / far) * push;
        a.dy += (y / far) * push;
        b.dx -= (x / far) * push;
        b.dy -= (y / far) * push;
      }
    }
    for (const { source, target } of this.links.values()) {
      const x = target.x - source.x, y = target.y - source.y, far = Math.hypot(x, y) || 1;
      const pull = (far - LENGTH) * 0.06;
      source.dx += (x / far) * pull;
      source.dy += (y / far) * pull;
      target.dx -= (x / far) * pull;
      target.dy -= (y / far) * pull;
    }
    for (const node of all) {
      const far = Math.hypot(node.dx, node.dy) || 1, go = Math.min(far, MOST) * this.heat;
      node.x += (node.dx / far) * go;
      node.y += (node.dy / far) * go;
    }
    this.heat *= 0.965;
  }

  place() {
    const { width, height } = this.svg.getBoundingClientRect();
    for (const node of this.nodes.values()) node.element.setAttribute("transform", `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})`);
    for (const { source, target, element } of this.links.values()) {
      for (const [name, value] of [["x1", source.x], ["y1", source.y], ["x2", target.x], ["y2", target.y]]) element.setAttribute(name, value.toFixed(1));
    }
    const { x, y, zoom } = this.at;
    this.view.setAttribute("transform", `translate(${width / 2} ${height / 2}) scale(${zoom.toFixed(3)}) translate(${-x} ${-y})`);
  }

  // --- moving ----------------------------------------------------------------------------------------------------------

  look(node) {
    this.following = false;
    this.at.x = node.x;
    this.at.y = node.y;
    this.place();
  }

  zoom(by) {
    this.following = false;
    this.at.zoom = Math.min(3, Math.max(0.25, this.at.zoom * by));
    this.place();
  }

  fit() {
    const all = [...this.nodes.values()];
    if (!all.length) return;
    const { width, height } = this.svg.getBoundingClientRect();
    const [left, right] = [Math.min(...all.map((one) => one.x)), Math.max(...all.map((one) => one.x))];
    const [top, bottom] = [Math.min(...all.map((one) => one.y)), Math.max(...all.map((one) => one.y))];
    this.following = false;
    this.at = { x: (left + right) / 2, y: (top + bottom) / 2, zoom: Math.min(1.4, width / (right - left + 180), height / (bottom - top + 120)) };
    this.place();
  }

  hold(event) {
    if (event.target.closest(".node") || event.button !== 0) return;
    let { clientX, clientY } = event;
    this.svg.setPointerCapture(event.pointerId);
    this.following = false;
    const move = (to) => {
      this.at.x -= (to.clientX - clientX) / this.at.zoom;
      this.at.y -= (to.clientY - clientY) / this.at.zoom;
      [clientX, clientY] = [to.clientX, to.clientY];
      this.place();
    };
    const end = () => {
      this.svg.removeEventListener("pointermove", move);
      this.svg.removeEventListener("pointerup", end);
      this.svg.removeEventListener("pointercancel", end);
    };
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerup", end);
    this.svg.addEventListener("pointercancel", end);
  }

  key(event) {
    const from = [...this.nodes.values()].find((node) => node.element === document.activeElement);
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in ways && from) {
      const to = this.towards(from, ways[event.key]);
      to?.element.focus();
      if (to) this.look(to);
    }
    else if ((event.key === "Enter" || event.key === " ") && from) this.choose(from.id);
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  /** Return the node that one comes to, going from another in a direction: near, and not too far aside. */
  towards(from, [right, down]) {
    let best = null, least = Infinity;
    for (const node of this.nodes.values()) {
      const x = node.x - from.x, y = node.y - from.y;
      const ahead = x * right + y * down, aside = Math.abs(x * down) + Math.abs(y * right);
      if (node === from || ahead <= 0 || aside > ahead * 2) continue;
      const far = ahead + aside * 2;
      if (far < least) [best, least] = [node, far];
    }
    return best;
  }
}
