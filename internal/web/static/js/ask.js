// Asks the API, with the key that it wants. The key stays in this tab.

const KEPT = "coinbit-key";
let asking = null; // one dialog for all who wait

// ask is fetch, again with a key for as long as the API answers 401.
export async function ask(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEPT);
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    const answer = await fetch(path, { ...options, headers, cache: "no-store" });
    if (answer.status !== 401) return answer;
    if (key === sessionStorage.getItem(KEPT)) sessionStorage.removeItem(KEPT); // it was this one
    await givenKey();
  }
}

// problem is why an answer is not what was asked for, in the API's own words.
export async function problem(answer) {
  const body = await answer.json().catch(() => null);
  return body?.detail ?? `the API answered ${answer.status}`;
}

// givenKey waits until somebody gave a key.
function givenKey() {
  if (sessionStorage.getItem(KEPT)) return;
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-text");
    const closed = () => {
      if (!field.value) return dialog.showModal(); // closed without: it is still needed
      sessionStorage.setItem(KEPT, field.value);
      field.value = "";
      dialog.removeEventListener("close", closed);
      asking = null;
      resolve();
    };
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
  return asking;
}
