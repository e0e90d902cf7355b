// Puts what fires on the days of the viewer's zone: the page comes with days in UTC.
"use strict";
{
  const two = (number) => String(number).padStart(2, "0");
  const dateOf = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

  function lay(calendar) {
    const days = new Map([...calendar.querySelectorAll("[data-date]")].map((day) => [day.dataset.date, day]));
    for (const item of [...calendar.querySelectorAll("li")]) { // in the order of time, which each day so keeps
      days.get(dateOf(new Date(item.querySelector("time").dateTime)))?.querySelector("ul").append(item);
    }
    const now = new Date();
    const today = dateOf(now);
    const last = dateOf(new Date(now.getFullYear(), now.getMonth(), now.getDate() + Number(calendar.dataset.days) - 1));
    for (const [date, day] of days) {
      day.hidden = date < today || date > last;
      if (date === today) day.setAttribute("aria-current", "date");
      else day.removeAttribute("aria-current");
    }
  }

  const layAll = (root) => root.querySelectorAll(".calendar").forEach(lay);
  layAll(document);
  document.addEventListener("leadline:replaced", (event) => layAll(event.detail));
}
