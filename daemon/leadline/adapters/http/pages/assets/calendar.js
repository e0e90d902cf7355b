// Puts what fires on the days of the viewer's zone: the page comes with days in UTC.
"use strict";
{
  const two = (number) => String(number).padStart(2, "0");
  const dateOf = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const daysOn = (at, days) => new Date(at.getFullYear(), at.getMonth(), at.getDate() + days);

  function entry(item, times) {
    const made = item.cloneNode(true);
    const [first, last] = made.querySelectorAll("time");
    made.dataset.times = times.join(" ");
    first.dateTime = times[0];
    last.dateTime = times.at(-1);
    for (const each of made.querySelectorAll(".several")) each.hidden = times.length === 1;
    made.querySelector(".how-often").textContent = `${times.length} times`;
    return made;
  }

  function lay(calendar) {
    const firing = new Map([...calendar.querySelectorAll("[data-date]")].map((day) => [day.dataset.date, new Map()]));
    for (const item of calendar.querySelectorAll("li")) {
      const schedule = item.querySelector("a").textContent;
      for (const time of item.dataset.times.split(" ")) {
        const there = firing.get(dateOf(new Date(time)));
        if (!there) continue;
        if (!there.has(schedule)) there.set(schedule, { item, times: [] });
        there.get(schedule).times.push(time);
      }
    }
    const links = () => [...calendar.querySelectorAll("a")];
    const place = links().indexOf(document.activeElement);
    const today = dateOf(new Date());
    const last = dateOf(daysOn(new Date(), Number(calendar.dataset.days) - 1));
    for (const day of calendar.querySelectorAll("[data-date]")) {
      const entries = [...firing.get(day.dataset.date).values()].flatMap(({ item, times }) =>
        times.length > Number(calendar.dataset.apart) ? [entry(item, times)] : times.map((time) => entry(item, [time])),
      );
      entries.sort((one, other) => one.dataset.times.localeCompare(other.dataset.times));
      day.querySelector("ul").replaceChildren(...entries);
      showLocalTimes(day);
      day.hidden = day.dataset.date < today || day.dataset.date > last;
      if (day.dataset.date === today) day.setAttribute("aria-current", "date");
      else day.removeAttribute("aria-current");
    }
    links()[place]?.focus({ preventScroll: true });
  }

  const layAll = (root) => root.querySelectorAll(".calendar").forEach(lay);
  const layAtMidnight = () => setTimeout(() => (layAll(document), layAtMidnight()), daysOn(new Date(), 1) - new Date());
  layAll(document);
  layAtMidnight();
  document.addEventListener("leadline:replaced", (event) => layAll(event.detail));
}
