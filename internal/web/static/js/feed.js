// The latest deposits and flags. When many come these are samples, shown once a
// second, and held still while the pointer or the focus is on them.
import { ask } from "./ask.js";
import { amount, count, delay, element, exact, millis, time } from "./text.js";

const ROWS = 10;
const FLAGS = 9;
const MANY = 20; // deposits a second
const PAUSE = 1000;

export class Feed {
  constructor(at, look) {
    Object.assign(this, { at, look, deposits: [], flags: [], last: null, drawn: 0, dirty: false });
  }

  begin(deposits, flags) {
    this.deposits = deposits.slice(0, ROWS);
    this.flags = flags.slice(0, FLAGS);
    this.last = null;
    this.draw();
    if (this.flags.length < FLAGS) this.standing();
  }

  // standing fills the list up with the flags that stand already.
  async standing() {
    const answer = await ask(`/api/flags?limit=${FLAGS}`).catch(() => null);
    if (!answer?.ok) return; // those that come will be seen
    const { flags } = exact(await answer.text());
    const known = new Set(this.flags.map((f) => f.wallet_id));
    const more = flags.filter((f) => !known.has(f.wallet_id)).map((f) => ({
      wallet_id: f.wallet_id, raised: true, at: millis(f.raised_at), total: f.raised_by === "crossing" ? f.evidence?.total : "",
    }));
    this.flags = [...this.flags, ...more].slice(0, FLAGS);
    this.draw();
  }

  add({ at, total, deposits, flags }, show) {
    this.deposits = [...deposits, ...this.deposits].slice(0, ROWS);
    this.flags = [...flags, ...this.flags].slice(0, FLAGS);
    this.dirty ||= deposits.length > 0 || flags.length > 0;
    const rate = this.last ? (total - this.last.total) * 1000 / (at - this.last.at) : 0;
    this.last = { at, total };
    if (!show || !this.dirty) return;
    if (at - this.drawn < PAUSE && rate > MANY) return;
    this.at("deposits-note").textContent = rate > MANY ? `a few of ${count(rate)} a second` : "";
    this.drawn = at;
    this.draw();
  }

  draw() {
    this.dirty = false;
    const held = (list) => list.matches(":hover, :focus-within");
    const deposits = this.at("deposits").tBodies[0];
    if (this.deposits.length && !held(deposits)) deposits.replaceChildren(...this.deposits.map((d) => this.deposit(d)));
    const flags = this.at("flags");
    if (this.flags.length && !held(flags)) flags.replaceChildren(...this.flags.map((f) => this.flag(f)));
  }

  name(wallet) {
    const b = element("button", { type: "button", class: "name", text: wallet, title: `Look up ${wallet}` });
    b.addEventListener("click", () => this.look(wallet));
    return b;
  }

  deposit(d) {
    return element("tr", {},
      element("td", {}, element("time", { text: time(d.at), datetime: new Date(d.at).toISOString() })),
      element("td", {}, this.name(d.wallet_id)),
      element("td", { class: "n", text: amount(d.amount) }),
      element("td", { class: "n spare", text: amount(d.balance) }),
      element("td", { class: "n spare", text: delay(d.delay_ms) }));
  }

  flag(f) {
    const why = !f.raised ? "removed by an operator"
      : f.total ? `${amount(f.total)} within the window` : "raised by an operator";
    return element("li", {},
      element("span", { class: "pill", "data-state": f.raised ? "flagged" : "up" }, element("i", { "aria-hidden": "true" }), this.name(f.wallet_id)),
      element("time", { text: time(f.at), datetime: new Date(f.at).toISOString() }),
      element("p", { class: "facts", text: why }));
  }
}
