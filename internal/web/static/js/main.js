// Puts the page together: one stream comes in, each part takes what is for it.
import { follow } from "./stream.js";
import { showLink, showOutage } from "./link.js";
import { Figures } from "./figures.js";
import { Feed } from "./feed.js";
import { showServices } from "./services.js";
import { Lookup } from "./lookup.js";
import { Deposit } from "./deposit.js";
import { amount, span } from "./text.js";

const at = (id) => document.getElementById(id);

const figures = new Figures(at);
const lookup = new Lookup(at);
const feed = new Feed(at, (wallet) => lookup.show(wallet, { move: true }));
new Deposit(at, (wallet, position) => lookup.show(wallet, { position }));

let paused = false;
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  at("pause").textContent = paused ? "Go on" : "Pause";
});

const take = {
  hello({ about, points, deposits, flags }) {
    at("rule").textContent = `more than ${amount(about.threshold)} within ${span(about.period_ms)}`;
    lookup.rule = about;
    figures.begin(points);
    feed.begin(deposits, flags);
  },
  tick(tick) {
    figures.add(tick, !paused);
    feed.add(tick, !paused);
    lookup.heard(tick);
  },
  state(state) {
    showServices(at("services"), state);
    showOutage(at("outage"), state);
  },
};

const stream = follow("/api/live", {
  message: (name, data) => take[name]?.(data),
  link(link) {
    showLink(at, link);
    document.body.classList.toggle("stale", link.state !== "up");
    if (link.state === "away") {
      showServices(at("services"), null);
      showOutage(at("outage"), null);
    }
  },
});
at("retry").addEventListener("click", () => stream.retry());
