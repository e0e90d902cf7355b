// Lines that a run prints while one looks on are added as they come: the server waits for the next ones.
"use strict";
{
  const LINES_MAX = 2000; // on the page; older ones are behind a link
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const seen = () => new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));

  async function ask(lines) {
    const { news, attempt, after } = lines.dataset;
    const address = new URL(news, location.href);
    address.searchParams.set("attempt", attempt);
    address.searchParams.set("after", after);
    const response = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    return new DOMParser().parseFromString(await response.text(), "text/html").querySelector("ol.lines");
  }

  function add(lines, fresh) {
    const box = lines.parentElement;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    showLocalTimes(fresh);
    if (fresh.children.length) document.getElementById("log-empty")?.remove();
    lines.append(...fresh.children);
    while (lines.children.length > LINES_MAX) lines.firstElementChild.remove();
    lines.dataset.attempt = fresh.dataset.attempt;
    lines.dataset.after = fresh.dataset.after;
    if ("ended" in fresh.dataset) lines.dataset.ended = "";
    if (atEnd) box.scrollTop = box.scrollHeight; // whoever has scrolled back goes on reading there
  }

  async function follow(lines) {
    lines.parentElement.scrollTop = lines.parentElement.scrollHeight;
    while (!("ended" in lines.dataset)) {
      while (document.hidden) await seen();
      let wait = 300;
      try {
        const fresh = await ask(lines);
        if (fresh) add(lines, fresh);
      } catch {
        wait = 5000; // the stream of events tells the viewer that the daemon is away
      }
      await pause(wait);
    }
  }

  const lines = document.querySelector(".log ol.lines");
  if (lines) follow(lines);
}
