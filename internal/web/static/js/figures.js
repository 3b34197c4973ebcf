// The two figures at the top, and their charts of the last minute.
import { chart, roof } from "./charts.js";
import { count, delay } from "./text.js";

const MINUTE = 60000;
const SMOOTH = 4; // ticks that a rate is taken over: a second

export class Figures {
  constructor(at) {
    this.at = at;
    this.points = [];
    const ago = (s) => (s === 0 ? "now" : `−${-s} s`);
    const x = () => [-60, 0];
    const xSplits = () => [-60, -40, -20, 0];
    this.rates = chart(at("rate-chart"), {
      series: [{ colour: "accent", fill: "wash" }],
      x: ago, y: short, range: { x, xSplits, y: (max) => [0, roof(max, 5)] },
    });
    this.delays = chart(at("delay-chart"), {
      series: [{ colour: "second" }, { colour: "accent", fill: "wash" }],
      x: ago, y: (ms) => (ms === 0 ? "0" : delay(ms)), range: { x, xSplits, y: (max) => [0, roof(max, 20)] },
    });
  }

  begin(points) {
    this.points = points.slice();
    this.draw();
  }

  add({ at, total, p50, p99 }, show) {
    this.points.push({ at, total, p50, p99 });
    const old = this.points.findIndex((p) => at - p.at <= MINUTE + 2000);
    this.points.splice(0, old);
    if (show) this.draw();
  }

  draw() {
    const points = this.points;
    if (points.length < 2) return;
    const now = points.at(-1);
    const rate = (i) => {
      const from = points[Math.max(0, i - SMOOTH)];
      return i === 0 ? null : Math.max(0, (points[i].total - from.total) * 1000 / (points[i].at - from.at));
    };
    const x = points.map((p) => (p.at - now.at) / 1000);
    const rates = points.map((_, i) => rate(i));
    const latest = rates.at(-1);
    this.at("rate").textContent = latest > 0 && latest < 10 ? latest.toFixed(1) : count(latest);
    for (const p of ["p50", "p99"]) {
      this.at(p).classList.toggle("none", now[p] === null);
      this.at(p).textContent = now[p] === null ? "–" : delay(now[p]);
    }
    this.rates([x, rates]);
    this.delays([x, points.map((p) => p.p99), points.map((p) => p.p50)]);
  }
}

// short is a number in little room: 12k.
const short = (n) => (n >= 10000 ? `${n / 1000}k` : count(n) === "0" ? "0" : String(+n.toFixed(1)));
