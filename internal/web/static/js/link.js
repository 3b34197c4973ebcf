// How this page is connected, and what is wrong behind it.

let said = "";

// showLink says how the stream is. It is read aloud when the words change, so the
// seconds that are left are not among them.
export function showLink(at, { state, why, wait }) {
  const words = { up: "Live", starting: "Connecting", away: "Reconnecting" }[state];
  at("retry").hidden = state !== "away";
  at("retry").textContent = state === "away" ? `Try now (${Math.ceil(wait / 1000)} s)` : "Try now";
  if (words === said) return;
  said = words;
  at("link").dataset.state = state;
  at("link").title = why ?? "";
  at("link").lastElementChild.textContent = words;
}

// showOutage says what does not work; null when nothing is known.
export function showOutage(element, state) {
  const text = state === null ? "The API does not answer. What stands here is as it was; the page reconnects by itself."
    : state.kafka.state === "away" ? `Kafka is away: ${state.kafka.why}. It goes on by itself when Kafka is back.`
    : "";
  if (element.textContent === text) return;
  element.textContent = text;
  element.hidden = !text;
}
