// Refreshes regions of the page, and sends commands from dialogs. Everything else is plain HTML.
"use strict";

const csrf = document.querySelector('meta[name="csrf"]')?.content;
const status = document.getElementById("status");

// Leaves an unchanged region alone; otherwise keeps its open details and focus, without scrolling.
function replace(old, fresh) {
  if (!fresh || old.outerHTML === fresh.outerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const open = [...old.querySelectorAll("details[open]")].map((each) => each.id);
  const label = focused?.getAttribute("aria-label");
  const place = focused?.id ? `#${CSS.escape(focused.id)}` : `[aria-label="${CSS.escape(label ?? "")}"]`;
  old.replaceWith(fresh);
  for (const id of open) fresh.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
  if (focused) (fresh.matches(place) ? fresh : fresh.querySelector(place))?.focus({ preventScroll: true });
}

async function refresh(regions) {
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    if (new URL(response.url).pathname === "/login") {
      status.textContent = "Session expired; reload the page to sign in.";
      return;
    }
    if (!response.ok) throw new Error(`the service returned HTTP ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const region of regions()) replace(region, page.getElementById(region.id));
    status.textContent = "";
  } catch (error) {
    status.textContent = `Not refreshed: ${error.message}`;
  }
}

function regions(every) {
  return () => document.querySelectorAll(every ? `[data-every="${every}"]` : "[data-every]");
}

for (const every of ["30", "60"]) {
  setInterval(() => document.hidden || refresh(regions(every)), every * 1000);
}
document.getElementById("refresh")?.addEventListener("click", async () => {
  await refresh(regions());
  status.textContent ||= "Refreshed.";
});

function openDialog(opener) {
  const dialog = document.getElementById(opener.dataset.dialog);
  const form = dialog.querySelector("form");
  form.reset();
  form.dataset.url = opener.dataset.url;
  for (const slot of form.querySelectorAll("[data-slot]")) slot.textContent = opener.dataset[slot.dataset.slot];
  for (const field of form.querySelectorAll('input[type="hidden"]')) field.value = opener.dataset[field.name];
  form.querySelector(".result").replaceChildren();
  form.querySelector("[data-close]").textContent = "Cancel";
  Object.assign(form.querySelector('[type="submit"]'), { hidden: false, disabled: false });
  form.removeAttribute("aria-busy");
  form.dataset.turn = Number(form.dataset.turn ?? 0) + 1;
  dialog.showModal();
}

function tell(form, good, sentence, replicas) {
  const result = form.querySelector(".result");
  result.className = `result ${good ? "good" : "bad"}`;
  const lines = [["p", sentence], ...replicas.map((each) => ["li", `${each.name}: ${each.reloaded ? "reloaded" : each.error}`])];
  result.replaceChildren(...lines.map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })));
}

// Sends a command. The dialog shows the result and stays open until the operator closes it.
async function order(form) {
  const button = form.querySelector('[type="submit"]');
  const turn = form.dataset.turn;
  const stale = () => form.dataset.turn !== turn; // the dialog was reopened for another command
  button.disabled = true;
  form.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(form.dataset.url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": csrf },
      body: JSON.stringify(Object.fromEntries(new FormData(form))),
    });
    const answer = await response.json();
    if (stale()) return;
    const done = answer.replicas ? "All replicas reloaded." : `Done: ${answer.detail}.`;
    tell(form, response.ok, response.ok ? done : `${answer.title}: ${answer.detail}`, answer.replicas ?? []);
    if (response.ok) settle(form, button);
  } catch (error) {
    if (!stale()) tell(form, false, `The command got no answer: ${error.message}`, []);
  } finally {
    if (!stale()) {
      button.disabled = false;
      form.removeAttribute("aria-busy");
    }
  }
}

// The effect of a command is visible only once the read model has recorded it from the log.
function settle(form, button) {
  button.hidden = true;
  const close = form.querySelector("[data-close]");
  close.textContent = "Close";
  close.focus();
  for (const delay of [400, 1500, 4000]) setTimeout(() => refresh(regions()), delay);
}

// The command may have removed the button that opened the dialog: focus the content then.
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => {
    const focused = document.activeElement;
    if (focused === document.body || dialog.contains(focused)) document.getElementById("main").focus();
  });
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) openDialog(opener);
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});
document.addEventListener("submit", (event) => {
  if (!event.target.dataset.url) return;
  event.preventDefault();
  order(event.target);
});
