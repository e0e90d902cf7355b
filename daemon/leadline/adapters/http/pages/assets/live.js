// What makes a page move while one looks on. Without it every page is whole, and moves by loading it again.
//
// Two kinds of news come by the stream of events. How far a job is (`progress`) is written into the page where it
// stands. When a job comes, starts or ends, the page itself is asked for again and what it shows anew takes the place
// of what it showed: the server alone decides how things look.
"use strict";

const REFRESH_MIN_MS = 400; // after an event, so that several at once are one question
const REFRESH_SPREAD_MS = 1000; // and by chance so much later: the pages of a teamspace do not ask all at once
const REFRESH_GAP_MS = 4000; // between two questions, however much happens
const REFRESH_IDLE_MS = 20000; // estimates and places in line change without an event of one's own jobs

// -- times in the viewer's zone ----------------------------------------------------------------------------------

const SHAPES = {
  moment: { dateStyle: "medium", timeStyle: "medium" },
  clock: { hour: "2-digit", minute: "2-digit" },
  second: { timeStyle: "medium" },
  hour: { hour: "numeric", minute: "2-digit" },
  day: { dateStyle: "medium" },
};

function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[data-shape]")) {
    const at = new Date(element.dateTime);
    let shape = SHAPES[element.dataset.shape];
    if (element.dataset.shape === "clock" && at.toDateString() !== new Date().toDateString()) {
      shape = { ...shape, day: "numeric", month: "short" };
    }
    element.textContent = new Intl.DateTimeFormat(undefined, shape).format(at);
    element.title = at.toISOString();
  }
}

// -- questions before something is done --------------------------------------------------------------------------

function ask(form) {
  const dialog = document.createElement("dialog");
  const question = document.createElement("p");
  question.textContent = form.dataset.confirm;
  const buttons = document.createElement("form");
  buttons.method = "dialog";
  buttons.className = "row";
  const label = form.querySelector("button:not([type=button])")?.textContent ?? "Go on";
  for (const [value, text, kind] of [["yes", label, "primary"], ["no", "Leave it", ""]]) {
    const button = document.createElement("button");
    button.value = value;
    button.textContent = text;
    button.className = kind;
    buttons.append(button);
  }
  dialog.append(question, buttons);
  dialog.setAttribute("aria-label", form.dataset.confirm);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "yes") {
      form.dataset.confirmed = "yes";
      form.requestSubmit();
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && form.dataset.confirmed !== "yes") {
    event.preventDefault();
    ask(form);
    return;
  }
  setTimeout(() => { // the browser has read the fields by then: a disabled button would not be among them
    if (event.defaultPrevented) return;
    for (const button of form.querySelectorAll("button")) button.disabled = form.method !== "dialog";
  });
});

window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
});

// -- how far a job is --------------------------------------------------------------------------------------------

const number = new Intl.NumberFormat("en");

// What is the job's own: the steps of a chain stand within it, and each of them is a job too.
function own(root, selector) {
  return [...root.querySelectorAll(selector)].filter((element) => element.closest("[data-job]") === root);
}

function write(root, name, text) {
  for (const element of own(root, `[data-field="${name}"]`)) {
    if (element.textContent !== text) element.textContent = text;
  }
}

function settledOf(counts) {
  return counts.done + counts.skipped + counts.failed + counts.unknown;
}

const heard = new Map(); // job → the last that was said of it since the page was last asked for

function showProgress(job) {
  const counts = job.counts;
  const settled = settledOf(counts);
  for (const root of document.querySelectorAll(`[data-job="${job.job}"]`)) {
    heard.set(job.job, job);
    for (const bar of own(root, ".bar")) {
      bar.setAttribute("aria-valuemax", counts.total);
      bar.setAttribute("aria-valuenow", settled);
      let x = 0;
      for (const rect of bar.querySelectorAll("rect")) {
        const width = (1000 * counts[rect.dataset.part]) / (counts.total || 1);
        rect.setAttribute("x", x.toFixed(2));
        rect.setAttribute("width", width.toFixed(2));
        x += width;
      }
    }
    for (const [name, count] of Object.entries({ ...counts, settled })) write(root, name, number.format(count));
    const word = job.stalled ? "stalled" : job.shown;
    for (const state of own(root, '[data-field="state"]')) {
      if (state.textContent !== word) {
        state.textContent = word;
        state.className = `state ${word}`;
        refreshSoon(); // the reason why stands elsewhere on the page
      }
    }
    const isNews = counts.total && !own(root, '[data-field="settled"], [data-field="done"]').length;
    const rate = job.leads_per_second;
    if (isNews || (rate && own(root, '[data-field="rate"]').some((each) => !each.textContent))) {
      refreshSoon(); // from now on there is a bar to be shown, or an estimate
    }
    write(root, "rate", rate ? `${number.format(Math.round(rate * 60))} ${root.dataset.unit ?? "leads"} a minute` : "");
    write(root, "activity", job.activity ?? "");
    root.dispatchEvent(new CustomEvent("leadline:progress", { detail: job, bubbles: true }));
  }
}

// -- the page anew -----------------------------------------------------------------------------------------------

let refreshedAt = 0;
let refreshTimer = 0;
let refreshing = false;
const shown = new WeakMap(); // element → the HTML that it was made from

function refreshSoon() {
  if (refreshTimer || !document.querySelector("[data-live]")) return;
  const wait = Math.max(REFRESH_MIN_MS, refreshedAt + REFRESH_GAP_MS - Date.now());
  refreshTimer = setTimeout(refresh, wait + Math.random() * REFRESH_SPREAD_MS);
}

async function refresh() {
  refreshTimer = 0;
  if (document.hidden) return;
  if (refreshing) return refreshSoon();
  refreshing = true;
  heard.clear();
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    if (response.status === 401) return location.reload();
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const replacement = fresh.getElementById(old.id);
      if (replacement && replacement.outerHTML !== shown.get(old)) replace(old, replacement);
    }
    document.title = fresh.title;
    for (const job of heard.values()) showIfAhead(job);
  } catch {
    // the stream tells the viewer that the daemon is away
  } finally {
    refreshing = false;
    refreshedAt = Date.now();
  }
}

// What was said while the page was on its way may be newer than the page, and no bar is to step back.
function showIfAhead(job) {
  const bars = [...document.querySelectorAll(`[data-job="${job.job}"]`)].flatMap((root) => own(root, ".bar"));
  if (bars.some((bar) => bar.ariaValueNow < settledOf(job.counts))) showProgress(job);
}

// Whoever is about to press a button, to write in a field or reads an opened detail is not disturbed.
function replace(old, replacement) {
  const active = document.activeElement;
  if (old.contains(active) && active.matches("input, select, textarea")) return;
  const open = new Set([...old.querySelectorAll("details[open][id]")].map((each) => each.id));
  const place = old.contains(active) ? [...old.querySelectorAll("a, button, summary")].indexOf(active) : -1;
  shown.set(replacement, replacement.outerHTML);
  for (const id of open) replacement.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
  showLocalTimes(replacement);
  old.replaceWith(replacement);
  if (place >= 0) replacement.querySelectorAll("a, button, summary")[place]?.focus({ preventScroll: true });
  document.dispatchEvent(new CustomEvent("leadline:replaced", { detail: replacement }));
}

// -- the stream --------------------------------------------------------------------------------------------------

function listen(address) {
  const connection = document.querySelector(".connection");
  let stream = null;
  let lost = 0;
  const from = new URL(address, location.href);
  from.searchParams.set("seen", document.body.dataset.seen);
  function open() {
    stream = new EventSource(from);
    stream.addEventListener("open", () => {
      clearTimeout(lost);
      if (!connection.hidden) refreshSoon();
      connection.hidden = true;
    });
    stream.addEventListener("progress", (event) => showProgress(JSON.parse(event.data)));
    for (const word of ["queued", "started", "ended", "missed"]) {
      stream.addEventListener(word, (event) => {
        const notice = JSON.parse(event.data);
        if (word === "ended") {
          showProgress({ ...notice, shown: notice.state });
          if (from.searchParams.has("job")) stream.close(); // of this job nothing more will be said
        }
        refreshSoon();
      });
    }
    stream.addEventListener("error", () => {
      lost = setTimeout(() => {
        connection.textContent = "The connection is lost. What you see may be old; it is tried again.";
        connection.hidden = false;
      }, 3000);
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, 5000);
    });
  }
  open();
  setInterval(() => {
    if (!document.hidden && Date.now() - refreshedAt >= REFRESH_IDLE_MS) refreshSoon();
  }, REFRESH_IDLE_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refreshSoon();
  });
  window.addEventListener("pagehide", () => stream.close());
}

showLocalTimes(document);
if (new URLSearchParams(location.search).has("said")) {
  const address = new URL(location.href);
  address.searchParams.delete("said"); // said once; a page that is loaded again has nothing to say
  history.replaceState(null, "", address);
}
refreshedAt = Date.now();
if (document.body.dataset.stream) listen(document.body.dataset.stream);
