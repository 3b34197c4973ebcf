// A window as a staircase: each deposit is a step, the dashed line is the threshold.
import { chart, roof } from "./charts.js";
import { amount, millis, span, time } from "./text.js";

export class Staircase {
  constructor(element) {
    this.view = { from: 0, to: 1, ago: false, threshold: 1 };
    this.give = chart(element, {
      series: [{ colour: "accent", fill: "wash", stepped: true }, { colour: "bad", dash: [6, 5], width: 1.5 }],
      left: 64,
      note: () => ({ at: this.view.threshold, text: `more than ${amount(this.view.threshold)} raises the flag` }),
      x: (s) => this.label(s), y: (n) => amount(+n.toFixed(2)),
      range: {
        x: () => [0, (this.view.to - this.view.from) / 1000],
        xSplits: (min, max) => [0, 0.25, 0.5, 0.75, 1].map((share) => min + share * (max - min)),
        y: (max) => [0, roof(max, this.view.threshold)],
      },
    });
  }

  label(s) {
    const { from, to, ago } = this.view;
    if (!ago) return time(from + s * 1000);
    const left = to - from - s * 1000;
    return left < 1 ? "now" : `−${span(left)}`;
  }

  show({ from, to, parts, threshold, ago = false }) {
    this.view = { from, to, ago, threshold: Number(threshold) };
    const xs = [0];
    const sums = [0];
    for (const p of parts) {
      xs.push(Math.max(0, (millis(p.last_at) - from) / 1000));
      sums.push(sums.at(-1) + Number(p.amount));
    }
    xs.push((to - from) / 1000);
    sums.push(sums.at(-1));
    this.data = [xs, sums, xs.map(() => this.view.threshold)];
    this.draw();
  }

  draw() {
    if (this.data) this.give(this.data);
  }
}
