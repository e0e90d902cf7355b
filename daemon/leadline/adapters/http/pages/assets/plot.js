// How fast a job was, drawn from the table of the same numbers, in the colours of the page.
"use strict";
{
  const plots = new Map(); // element → { plot, watch }

  function colour(element, token) {
    element.style.color = `var(${token})`; // what a token comes to in the present theme
    const found = getComputedStyle(element).color;
    element.style.color = "";
    return found;
  }

  const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400];

  function points(element) {
    const rows = [...document.querySelectorAll(`#${CSS.escape(element.dataset.table)} tbody tr`)];
    const read = (name) => rows.map((row) => Number(row.dataset[name]));
    return [read("at"), read("rate"), read("done")];
  }

  function draw(element) {
    forget(element);
    const unit = element.dataset.unit;
    const line = colour(element, "--accent");
    const fill = colour(element, "--busy-soft");
    const faint = colour(element, "--faint");
    const grid = colour(element, "--line");
    const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
    const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
    const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
    const reading = element.closest("section").querySelector(".plot-reading");
    const axis = { stroke: faint, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: 220,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] }, done: { auto: true } },
        axes: [
          { ...axis, values: (self, splits) => splits.map((at) => time.format(new Date(at * 1000))), space: 90, incrs: SECONDS },
          { ...axis, values: (self, splits) => splits.map((value) => short.format(value)), size: 52 },
        ],
        series: [
          {},
          { stroke: line, fill, width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: -1 }) },
          { scale: "done", show: false },
        ],
        hooks: {
          setCursor: [
            (self) => {
              const at = self.cursor.idx;
              reading.textContent =
                at == null
                  ? ""
                  : `Until ${time.format(new Date(self.data[0][at] * 1000))}: ${number.format(self.data[1][at])} ${unit} a minute, ${number.format(self.data[2][at])} at their end`;
            },
          ],
        },
      },
      points(element),
      element,
    );
    const watch = new ResizeObserver(() => {
      if (element.clientWidth && element.clientWidth !== plot.width) plot.setSize({ width: element.clientWidth, height: 220 });
    });
    watch.observe(element);
    plots.set(element, { plot, watch });
  }

  function forget(element) {
    const drawn = plots.get(element);
    if (!drawn) return;
    drawn.watch.disconnect();
    drawn.plot.destroy();
    plots.delete(element);
  }

  function drawAll() {
    for (const element of [...plots.keys()]) if (!element.isConnected) forget(element);
    for (const element of document.querySelectorAll(".plot")) draw(element);
  }

  drawAll();
  document.addEventListener("leadline:replaced", (event) => {
    if (event.detail.querySelector(".plot")) drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
