"use strict";
// Zoom, hover and copy.  Everything is readable without this script; it only moves what is already drawn.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("run-data").textContent);
  const timeline = byId("timeline"), axis = byId("axis"), cross = byId("cross"), selection = byId("selection"), tip = byId("tip");
  const charts = [...timeline.querySelectorAll("svg.zoomable")].map((svg) => [svg, svg.viewBox.baseVal.height]);
  const NARROWEST = 1e-4;
  let from = 0, to = 1;

  const secondsOf = (fraction) => (fraction * data.end) / 1e9;
  const text = (seconds, digits = 3) => `${seconds.toFixed(digits)} s`;

  function show(newFrom, newTo) {
    const span = Math.min(Math.max(newTo - newFrom, NARROWEST), 1);
    from = Math.min(Math.max(newFrom, 0), 1 - span);
    to = from + span;
    timeline.style.setProperty("--from", from);
    timeline.style.setProperty("--to", to);
    for (const [svg, height] of charts) svg.setAttribute("viewBox", `${from * 1000} 0 ${(to - from) * 1000} ${height}`);
    drawAxis();
  }

  function drawAxis() {
    const span = secondsOf(to - from), power = 10 ** Math.floor(Math.log10(span / 4));
    const step = [1, 2, 5, 10].map((s) => s * power).find((s) => span / s <= 9);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const ticks = [];
    for (let k = Math.ceil(secondsOf(from) / step); k * step <= secondsOf(to) + 1e-12; k++) {
      const tick = document.createElement("span");
      tick.className = "xtick";
      tick.style.setProperty("--b", (k * step * 1e9) / data.end);
      tick.textContent = `${(k * step).toFixed(digits)} s`;
      ticks.push(tick);
    }
    axis.replaceChildren(...ticks);
  }

  function fractionAt(event) {
    const box = axis.getBoundingClientRect();
    return from + (Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1)) * (to - from);
  }

  function place(element, begin, end) {
    const percent = (fraction) => `${((fraction - from) / (to - from)) * 100}%`;
    element.style.left = percent(begin);
    if (end !== undefined) element.style.width = `${((end - begin) / (to - from)) * 100}%`;
    element.hidden = false;
  }

  function line(tag, content) {
    const element = document.createElement(tag);
    element.textContent = content;
    return element;
  }

  function describe(fraction) {
    const ns = fraction * data.end, bin = Math.min(Math.floor(ns / data.bin), data.ok.length - 1), perSecond = 1e9 / data.bin;
    const rate = (column) => Math.round(column[bin] * perSecond).toLocaleString("en");
    const lines = [line("b", text(ns / 1e9))];
    for (const [begin, end, kind, description] of data.faults) if (begin <= ns && ns <= end) lines.push(line("span", `${kind}: ${description}`));
    for (const { node, groups } of data.nodes) {
      const now = groups.map(([group, segments]) => [group, segments.find(([b, e]) => b <= ns && ns < e)]).filter(([, s]) => s);
      const leads = now.filter(([, s]) => s[2] === "leader").map(([group, s]) => `${group} (term ${s[3]})`);
      const roles = [...new Set(now.map(([, s]) => (s[2] === "down" ? "no answer" : s[2])))];
      if (now.length) lines.push(line("span", `node ${node}: ${leads.length ? `leads ${leads.join(", ")}` : roles.join(", ")}`));
    }
    lines.push(line("span", `${rate(data.ok)} ok, ${rate(data.info)} info, ${rate(data.fail)} fail a second`));
    if (data.p50[bin] !== null && data.p50[bin] !== undefined) lines.push(line("span", `median ${data.p50[bin]} ms, 99th percentile ${data.p99[bin]} ms`));
    return lines;
  }

  let dragFrom = null;
  timeline.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.clientX < axis.getBoundingClientRect().left) return;
    dragFrom = fractionAt(event);
  });
  timeline.addEventListener("pointermove", (event) => {
    if (event.clientX < axis.getBoundingClientRect().left) { cross.hidden = tip.hidden = true; return; }
    const here = fractionAt(event);
    place(cross, here);
    if (dragFrom !== null && event.pointerType === "mouse") place(selection, Math.min(dragFrom, here), Math.max(dragFrom, here));
    tip.replaceChildren(...describe(here));
    tip.hidden = false;
    const left = event.clientX + 18 + tip.offsetWidth > innerWidth ? event.clientX - 18 - tip.offsetWidth : event.clientX + 18;
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)}px`;
  });
  addEventListener("pointerup", (event) => {
    if (dragFrom !== null && !selection.hidden) {
      const here = fractionAt(event), [a, b] = [Math.min(dragFrom, here), Math.max(dragFrom, here)];
      if (b - a > (to - from) * 0.005) show(a, b);
    }
    dragFrom = null;
    selection.hidden = true;
  });
  timeline.addEventListener("pointerleave", () => { cross.hidden = tip.hidden = true; });
  timeline.addEventListener("dblclick", () => show(0, 1));

  const scale = (factor) => { const middle = (from + to) / 2, half = ((to - from) / 2) * factor; show(middle - half, middle + half); };
  const pan = (share) => show(from + (to - from) * share, to + (to - from) * share);
  byId("zoom-in").addEventListener("click", () => scale(0.5));
  byId("zoom-out").addEventListener("click", () => scale(2));
  byId("pan-left").addEventListener("click", () => pan(-0.5));
  byId("pan-right").addEventListener("click", () => pan(0.5));
  byId("zoom-all").addEventListener("click", () => show(0, 1));
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const [begin, end] = button.dataset.zoom.split(",").map((ns) => Number(ns) / data.end), margin = Math.max((end - begin) * 0.25, 0.01);
      show(begin - margin, end + margin);
      byId("timeline-card").scrollIntoView({ behavior: "smooth" });
    });
  }

  byId("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const copy = byId("copy");
  if (copy) copy.addEventListener("click", async () => {
    const command = byId("replay");
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      // Browsers refuse the clipboard to some local files; a selection can be copied by hand.
      getSelection().selectAllChildren(command);
      return;
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
  show(0, 1);
})();
