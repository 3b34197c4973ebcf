// Look-up of a wallet: what it holds, its flag, and its window against the threshold.
import { ask, problem } from "./ask.js";
import { Staircase } from "./staircase.js";
import { amount, count, element, exact, millis, span, time } from "./text.js";

const AGAIN = 2000; // a shown wallet is asked for again so often
const SLOWLY = 15000; // after an answer that was none

export class Lookup {
  constructor(at) {
    Object.assign(this, { at, wallet: "", timer: 0, asked: 0, rule: null });
    this.window = new Staircase(at("window-chart"));
    this.tipping = new Staircase(at("evidence-chart"));
    at("lookup").addEventListener("submit", (event) => {
      event.preventDefault();
      this.show(at("lookup-wallet").value.trim());
    });
    at("evidence").addEventListener("toggle", () => this.tipping.draw());
    const linked = decoded(location.hash.slice(1));
    if (linked && linked !== "main") this.show(linked);
  }

  // show looks a wallet up, once the deposit at position counts if there is one.
  show(wallet, { position, move } = {}) {
    if (!wallet) return;
    if (wallet !== this.wallet) this.at("wallet").hidden = true;
    this.wallet = wallet;
    this.at("lookup-wallet").value = wallet;
    history.replaceState(null, "", `#${encodeURIComponent(wallet)}`);
    if (move) this.at("lookup-title").scrollIntoView({ block: "nearest" });
    return this.ask({ position, aloud: true });
  }

  // heard asks again when the stream tells of the wallet that is shown.
  heard({ deposits, flags }) {
    const ours = ({ wallet_id }) => wallet_id === this.wallet;
    if (this.wallet && performance.now() - this.asked > 500 && (deposits.some(ours) || flags.some(ours))) this.ask({});
  }

  async ask({ position, aloud }) {
    clearTimeout(this.timer);
    this.asked = performance.now();
    const wallet = this.wallet;
    let next = AGAIN;
    try {
      const got = document.hidden ? null : await this.read(wallet, position);
      if (wallet !== this.wallet) return; // another was asked for meanwhile
      if (got) this.draw(got, aloud);
    } catch (err) {
      if (wallet !== this.wallet) return;
      if (position) return this.ask({ aloud }); // not all has got to that deposit: show what has
      next = SLOWLY;
      this.say(err instanceof TypeError ? "The API does not answer." : `${err.message}.`, true);
    }
    this.timer = setTimeout(() => this.ask({}), next);
  }

  async read(wallet, position) {
    const headers = position ? { "X-Deposit-Position": position } : {};
    const answer = await ask(`/api/wallets/${encodeURIComponent(wallet)}`, { headers });
    if (!answer.ok) throw new Error(await problem(answer));
    return exact(await answer.text());
  }

  say(text, bad = false) {
    const said = this.at("lookup-said");
    said.classList.toggle("bad", bad);
    if (said.textContent !== text) said.textContent = text;
  }

  draw(got, aloud) {
    const { at } = this;
    const { flag } = got;
    if (aloud || at("lookup-said").classList.contains("bad")) this.say("");
    at("wallet").hidden = false;
    at("lookup-hint").hidden = true;
    at("wallet-id").textContent = got.wallet_id;
    at("wallet-balance").textContent = amount(got.balance);
    at("wallet-flag").dataset.state = flag.raised ? "flagged" : "up";
    at("wallet-flag").lastElementChild.textContent = flag.raised ? "Flagged" : "Not flagged";
    at("wallet-facts").textContent = facts(got);
    this.drawWindow(got.window);
    this.drawEvidence(flag.raised_by === "crossing" ? flag.evidence : null);
  }

  drawWindow({ window_start, window_end, total, headroom, oldest_expires_at, rule, parts }) {
    const { at } = this;
    const [from, to] = [millis(window_start), millis(window_end)];
    at("window-title").textContent = `Within the last ${span(rule.rolling_period_ms)}:`;
    at("window-sum").textContent = `${amount(total)} of ${amount(rule.threshold_amount)}`;
    const said = [];
    if (parts.length === 0) said.push("Nothing is in the window.");
    else if (Number(headroom) > 0) said.push(`${amount(headroom)} more would not raise the flag.`);
    else said.push("Anything more is above the threshold.");
    if (oldest_expires_at) said.push(`The oldest deposit leaves in ${span(Math.max(1000, millis(oldest_expires_at) - to))}.`);
    at("window-facts").textContent = said.join(" ");
    at("window-chart").setAttribute("aria-label", `The window's sum as a staircase up to ${amount(total)}, the threshold at ${amount(rule.threshold_amount)}`);
    this.window.show({ from, to, parts, threshold: rule.threshold_amount, ago: true });
  }

  drawEvidence(evidence) {
    const { at } = this;
    at("evidence").hidden = !evidence;
    if (!evidence) return;
    const { window_start, window_end, total, deposits, position, rule, parts } = evidence;
    at("evidence-facts").textContent = `${deposits === 1 ? "1 deposit" : `${count(deposits)} deposits`} of ${amount(total)} within ${span(rule.rolling_period_ms)}, ` +
      `more than ${amount(rule.threshold_amount)}. The one at ${position} tipped it, ${time(millis(window_end))}.`;
    at("evidence-chart").setAttribute("aria-label", `The sum of the window that tipped, up to ${amount(total)}, the threshold at ${amount(rule.threshold_amount)}`);
    this.tipping.show({ from: millis(window_start), to: millis(window_end), parts, threshold: rule.threshold_amount });
    at("evidence-parts").hidden = parts.length === 0;
    at("evidence-parts").tBodies[0].replaceChildren(...parts.map((p) => element("tr", {},
      element("td", { text: time(millis(p.last_at)) }),
      element("td", { class: "n", text: amount(p.amount) + (p.deposits > 1 ? ` (${p.deposits} deposits)` : "") }),
      element("td", { class: "n", text: p.position }))));
  }
}

function facts({ deposits, first_deposit_at, last_deposit_at, flag }) {
  if (deposits === 0) return "No deposit yet.";
  const said = [deposits === 1 ? "1 deposit" : `${count(deposits)} deposits`];
  if (first_deposit_at) said.push(`first ${time(millis(first_deposit_at))}`, `last ${time(millis(last_deposit_at))}`);
  if (flag.raised_by) said.push(`flagged ${time(millis(flag.raised_at))}${flag.raised_by === "operator" ? " by an operator" : ""}`);
  if (flag.removals) said.push(flag.removals === 1 ? "1 removal by an operator" : `${flag.removals} removals by operators`);
  return said.join(" · ");
}

// decoded is a part of an address as its author meant it, or as it is if he wrote it otherwise.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
