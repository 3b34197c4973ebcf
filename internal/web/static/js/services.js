// How each service is: a sign, a word, and how far it is behind in each partition.
import { count, element } from "./text.js";

const WORDS = { up: "Up", starting: "Starting", rebalancing: "Rebalancing", away: "Away", unknown: "Unknown" };
const CELLS = 16; // partitions shown; of more, those that are furthest behind

// showServices fills list; state null means that nobody tells.
export function showServices(list, state) {
  const unknown = { state: "unknown", why: "the API does not answer", lag: [] };
  const groups = state?.groups ?? ["balance", "threshold", "flagger"].map((name) => ({ name, ...unknown }));
  list.replaceChildren(
    service("api", state?.api ?? { ...unknown, state: "away" }),
    service("kafka", state?.kafka ?? unknown),
    ...groups.map((g) => service(g.name, g)));
}

function service(name, part) {
  const word = part.members > 0 && part.state === "up" ? `Up, ${part.members === 1 ? "1 instance" : `${part.members} instances`}` : WORDS[part.state];
  const behind = part.lag?.length ? lag(part) : element("p", { class: "why", text: part.why ?? "" });
  return element("li", { "data-service": name, "data-is": part.state },
    element("b", { text: name }),
    element("span", { class: "pill", "data-state": part.state }, element("i", { "aria-hidden": "true" }), element("span", { text: word })),
    behind);
}

function lag({ name, topic, lag, state, why }) {
  const sum = lag.reduce((a, b) => a + b, 0);
  const cells = lag.map((n, p) => ({ n, p })).sort((a, b) => b.n - a.n || a.p - b.p).slice(0, CELLS).sort((a, b) => a.p - b.p);
  const all = sum === 0 ? "nothing waits" : `${count(sum)} wait`;
  const list = element("ul", { class: "lag", "aria-label": `${name}: messages of ${topic} that wait, by partition` },
    ...cells.map(({ n, p }) => {
      const cell = element("li", {}, element("span", { text: `p${p}` }), count(n));
      cell.style.setProperty("--heat", Math.min(1, Math.log10(1 + n) / 5).toFixed(2));
      return cell;
    }),
    element("li", { class: "sum", text: lag.length > CELLS ? `${all}; ${CELLS} of ${lag.length} partitions` : all }));
  return state === "up" ? list : element("div", {}, element("p", { class: "why", text: why }), list);
}
