// Follows a text/event-stream with fetch, which can send a key (EventSource
// cannot), and connects again by itself, ever more slowly.
import { ask } from "./ask.js";

const SILENCE = 5000; // a tick comes every 250 ms: this long without one is an end
const FIRST = 500;
const LONGEST = 10000;

// follow calls on.message(name, data) for each event and on.link({state, why, wait})
// for each change: "starting", "up", or "away" with the milliseconds until it tries again.
export function follow(path, on) {
  let wait = FIRST;
  let skip = () => {}; // ends the pause

  async function once() {
    const stop = new AbortController();
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stop.abort(new Error("nothing came for 5 s")), SILENCE);
    };
    heard();
    try {
      const answer = await ask(path, { signal: stop.signal });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        throw new Error(problem.detail ?? `the API answered ${answer.status}`);
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the API ended the stream");
        heard();
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const text of events) {
          wait = FIRST;
          on.link({ state: "up" });
          on.message(...parse(text));
        }
      }
    } finally {
      clearTimeout(silence);
      stop.abort();
    }
  }

  (async () => {
    for (;;) {
      on.link({ state: "starting" });
      let why = "";
      try {
        await once();
      } catch (err) {
        why = err instanceof TypeError ? "the API does not answer" : err.message;
      }
      const pause = Math.round(wait * (0.8 + 0.4 * Math.random())); // not all pages at once
      wait = Math.min(2 * wait, LONGEST);
      await new Promise((resolve) => {
        skip = resolve;
        let left = pause;
        const say = () => on.link({ state: "away", why, wait: left });
        say();
        const count = setInterval(() => {
          left -= 1000;
          if (left > 0) return say();
          clearInterval(count);
        }, 1000);
        setTimeout(() => { clearInterval(count); resolve(); }, pause);
      });
    }
  })();

  addEventListener("online", () => skip());
  return { retry: () => { wait = FIRST; skip(); } };
}

// parse takes an event apart: its name, and its data from JSON.
export function parse(text) {
  let name = "message";
  let data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  return [name, data ? JSON.parse(data) : null];
}
