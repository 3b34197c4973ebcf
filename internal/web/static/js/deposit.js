// The form that deposits. A key of its own goes with each deposit, and stays with
// it until the answer is certain, so that trying again is safe.
import { ask, problem } from "./ask.js";
import { amount, delay } from "./text.js";

const NUMBER = /^\d{1,13}(\.\d{1,9})?$/;

export class Deposit {
  constructor(at, made) {
    Object.assign(this, { at, made, open: null }); // open: {what, key} not known to count or not to
    at("deposit").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(at("deposit-wallet").value.trim(), at("deposit-amount").value.trim().replace(/^\./, "0."));
    });
  }

  async send(wallet, text) {
    if (!NUMBER.test(text)) {
      this.say("The amount must be a number such as 6000.01, with at most 9 decimal places.", "bad");
      this.at("deposit-amount").focus();
      return;
    }
    const what = JSON.stringify([wallet, text]);
    if (this.open?.what !== what) this.open = { what, key: newKey() };
    const button = this.at("deposit").querySelector("button");
    button.disabled = true;
    this.say("Sending …");
    const began = performance.now();
    try {
      const answer = await ask("/api/deposit", {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": this.open.key },
        // The amount goes as the digits that were typed, never through a binary fraction.
        body: `{"wallet_id":${JSON.stringify(wallet)},"amount":${text.replace(/^0+(?=\d)/, "")}}`,
      });
      if (answer.status === 504) throw new Error(await problem(answer));
      this.open = null;
      if (!answer.ok) return this.say(`Not deposited: ${await problem(answer)}.`, "bad");
      const position = answer.headers.get("X-Deposit-Position");
      this.say(`${amount(text)} deposited to ${wallet}, at ${position}. It counted after ${delay(performance.now() - began)}.`, "good");
      this.at("deposit-amount").value = "";
      this.made(wallet, position);
    } catch (err) {
      const why = err instanceof TypeError ? "the API does not answer" : err.message;
      this.say(`Not known whether it counts: ${why}. Deposit again: with the same key it cannot count twice.`, "bad");
    } finally {
      button.disabled = false;
    }
  }

  say(text, kind = "") {
    this.at("deposit-said").className = `said ${kind}`;
    this.at("deposit-said").textContent = text;
  }
}

// newKey is 128 random bits; crypto.randomUUID would want HTTPS.
const newKey = () => `page-${[...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
