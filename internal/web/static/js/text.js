// Texts for numbers. An amount is an exact decimal: it stays a text from the API's
// answer to the screen, and is a number only where a picture is drawn.

// exact reads an answer's JSON with every amount as the text that it was.
const AMOUNTS = /("(?:balance|amount|total|headroom|threshold_amount)"\s*:\s*)(-?\d[\d.eE+-]*)/g;
export const exact = (json) => JSON.parse(json.replace(AMOUNTS, '$1"$2"'));

// amount groups the digits: 12000.01 is 12,000.01.
export function amount(text) {
  const [whole, part] = String(text).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part ? `${grouped}.${part}` : grouped;
}

// count is a number of things: 1,234.
export const count = (n) => amount(Math.round(n));

// delay is milliseconds as a person says them.
export function delay(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
  return span(ms);
}

// span is a length of time: 2 min, 1 h 30 min.
export function span(ms) {
  const s = Math.round(ms / 1000);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  return parts.filter(([n]) => n > 0).slice(0, 2).map(([n, unit]) => `${n} ${unit}`).join(" ") || `${ms} ms`;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { year: "numeric", month: "short", day: "numeric" });

// time is the time of day, with the day where it is another one.
export function time(ms) {
  const d = new Date(ms);
  return day.format(d) === day.format(new Date()) ? clock.format(d) : `${day.format(d)}, ${clock.format(d)}`;
}

// millis is a moment of an answer in Unix milliseconds.
export const millis = (at) => Date.parse(at);

// element makes one, with text in it: nothing that comes in is ever taken for HTML.
export function element(tag, { text, ...more } = {}, ...children) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  for (const [name, value] of Object.entries(more)) {
    if (value !== undefined && value !== false) e.setAttribute(name, value);
  }
  e.append(...children);
  return e;
}
