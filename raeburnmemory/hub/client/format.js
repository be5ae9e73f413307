// Numbers, sizes and times as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

export const number = (value) => value.toLocaleString("en");

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** Return a number of bytes, such as `1.20 GB`. */
export function size(bytes) {
  let at = 0;
  let value = bytes;
  while (value >= 999.5 && at < UNITS.length - 1) [value, at] = [value / 1000, at + 1];
  return `${value.toFixed(at === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${UNITS[at]}`;
}

/** Return a number of seconds, such as `1:05`. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Return how long ago a moment was. */
export function ago(text) {
  const then = Date.parse(text);
  if (Number.isNaN(then)) return text ?? "";
  let value = (then - Date.now()) / 1000;
  for (const [unit, most] of STEPS) {
    if (Math.abs(value) < most) return unit === "second" ? "just now" : RELATIVE.format(Math.round(value), unit);
    value /= most;
  }
  return text;
}

/** Return a moment in full, in the time of whoever reads it. */
export function moment(text) {
  const then = new Date(text);
  return Number.isNaN(then.getTime()) ? (text ?? "") : then.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** Return the beginning of a text, as one line. */
export function short(text, most) {
  const line = [...(text ?? "").slice(0, most * 4).replace(/\s+/g, " ").trim()];
  return line.length > most ? `${line.slice(0, most - 1).join("")}…` : line.join("");
}

/** Return the last part of a path or address, which says most. */
export const ending = (text) => (text ?? "").replace(/\/+$/, "").split("/").pop() || (text ?? "");
