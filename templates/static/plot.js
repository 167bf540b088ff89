/* The live plot of a run, drawn by uPlot from the JSON in the page. The table has the numbers. */
"use strict";

(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const text = (value) => document.createTextNode(value);
  let plot = null;

  const read = () => {
    const source = document.getElementById("plot-data");
    return source ? JSON.parse(source.textContent) : null;
  };

  // Values far out are drawn at the edge; the server says where that is, and why.
  const columns = (data) => {
    const clip = (m) => (m === null ? null : Math.min(Math.max(m, data.low), data.high));
    const inside = (m) => m !== null && m === clip(m);
    const pick = (status) => data.trials.map((t) => (t.status === status && inside(t.metric) ? t.metric : null));
    return [data.trials.map((t) => t.number), data.trials.map((t) => clip(t.best)),
      pick("kept"), pick("discarded"),
      data.trials.map((t) => (t.status === "failed" ? data.worst : null)),
      data.trials.map((t) => (t.metric === null || inside(t.metric) ? null : clip(t.metric)))];
  };

  // As many digits as tell neighbours apart.
  const labels = (ticks) => ticks.map((t) => String(Number(t.toPrecision(12))));

  const bands = (u) => {
    const data = u.escapement;
    const { ctx } = u;
    ctx.save();
    for (const span of data.spans) {
      const left = Math.max(u.valToPos(span.first - 0.5, "x", true), u.bbox.left);
      const right = Math.min(u.valToPos(span.last + 0.5, "x", true), u.bbox.left + u.bbox.width);
      ctx.globalAlpha = 0.13;
      ctx.fillStyle = css(`--band-${span.colour}`);
      ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
      ctx.globalAlpha = 1;
      ctx.fillRect(left, u.bbox.top, right - left, 3 * devicePixelRatio);
    }
    if (data.noise) noise(u, data.noise);
    ctx.restore();
  };

  const names = (u) => {
    const { ctx } = u;
    ctx.save();
    for (const span of u.escapement.spans) {
      const left = Math.max(u.valToPos(span.first - 0.5, "x", true), u.bbox.left);
      const right = Math.min(u.valToPos(span.last + 0.5, "x", true), u.bbox.left + u.bbox.width);
      ctx.font = `${11 * devicePixelRatio}px Inter, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "top";
      ctx.fillStyle = css("--muted");
      if (ctx.measureText(span.name).width < right - left - 8) {
        ctx.fillText(span.name, left + 5 * devicePixelRatio, u.bbox.top + 7 * devicePixelRatio);
      }
    }
    ctx.restore();
  };

  const noise = (u, [mean, low, high]) => {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    const y = (value) => Math.min(Math.max(u.valToPos(value, "y", true), top), top + height);
    ctx.fillStyle = ctx.strokeStyle = css("--muted");
    ctx.globalAlpha = 0.22;
    ctx.fillRect(left, y(high), width, y(low) - y(high));
    ctx.globalAlpha = 0.8;
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(left, y(mean)); ctx.lineTo(left + width, y(mean));
    ctx.stroke();
  };

  // The points of one series, each drawn by `shape` on a path of its own.
  const marks = (colour, shape) => (u, series) => {
    const { ctx } = u;
    ctx.save();
    ctx.strokeStyle = css(colour);
    ctx.lineWidth = 1.6 * devicePixelRatio;
    u.data[0].forEach((x, i) => {
      const value = u.data[series][i];
      if (value === null) return;
      ctx.beginPath();
      shape(ctx, u.valToPos(x, "x", true), u.valToPos(value, "y", true), 4 * devicePixelRatio, value > u.escapement.low);
      ctx.stroke();
    });
    ctx.restore();
    return false;
  };
  const cross = (ctx, x, y, size) => {
    ctx.moveTo(x - size, y - size); ctx.lineTo(x + size, y + size);
    ctx.moveTo(x + size, y - size); ctx.lineTo(x - size, y + size);
  };
  const arrow = (ctx, x, y, size, above) => {
    const base = y + (above ? 2 : -2) * size;
    ctx.moveTo(x, y); ctx.lineTo(x - size, base); ctx.lineTo(x + size, base); ctx.closePath();
  };

  const tip = (u) => {
    const box = u.tip;
    const { idx } = u.cursor;
    const trial = idx === null || idx === undefined ? null : u.escapement.trials[idx];
    box.hidden = !trial;
    if (!trial) return;
    const line = (...parts) => {
      const p = document.createElement("p");
      parts.forEach((part) => p.append(part));
      return p;
    };
    const strong = document.createElement("b");
    strong.append(text(`trial ${trial.number}`));
    const shown = trial.metric === null ? trial.failure || "failed" : trial.metric.toPrecision(5);
    box.replaceChildren(
      line(strong, text(` ${trial.status}: ${shown}${trial.measurements > 1 ? ` (mean of ${trial.measurements})` : ""}`)),
      line(text(trial.changes || "baseline")),
      line(text(`by ${trial.mechanism || "baseline"}`)),
    );
    const left = u.valToPos(trial.number, "x");
    const room = u.over.clientWidth;
    box.style.left = `${Math.min(Math.max(left + 12, 0), Math.max(room - 200, 0)) + u.over.offsetLeft}px`;
    box.style.top = `${u.over.offsetTop + 26}px`;
  };

  const draw = () => {
    const data = read();
    const place = document.querySelector(".plot");
    if (!data || data.low === null || !place || !window.uPlot) return;
    const reach = data.high - data.low;
    if (!(reach > 1e-12 && reach < 1e12)) return; // no ticks out there: the drawing stays
    document.documentElement.classList.add("has-plot");
    if (plot && place.contains(plot.root)) {
      plot.escapement = data;
      plot.setData(columns(data));
      return;
    }
    place.replaceChildren();
    const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px Inter, sans-serif" };
    const dots = (colour, fill) => ({ paths: () => null, points: { show: true, size: 7, width: 1.4, stroke: css(colour), fill: fill ? css(colour) : css("--surface") } });
    plot = new uPlot({
      width: place.clientWidth, height: 340,
      cursor: { y: false, points: { show: false } }, legend: { show: false },
      scales: {
        x: { time: false, range: (u, low, high) => [low - 0.5, Math.max(high, low + 5) + 0.5] },
        y: { range: (u) => [(u.escapement || data).low, (u.escapement || data).high] },
      },
      axes: [
        { ...axis, size: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], values: (u, ticks) => ticks.map((t) => (Number.isInteger(t) ? t : "")) },
        { ...axis, values: (u, ticks) => labels(ticks), size: (u, shown) => Math.max(58, ...(shown || []).map((s) => s.length * 6.5 + 16)) },
      ],
      series: [
        {},
        { label: "best", stroke: css("--text"), width: 1.6, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }, spanGaps: true },
        { label: "kept", ...dots("--good", true) },
        { label: "discarded", ...dots("--muted", false) },
        { label: "failed", paths: () => null, points: { show: marks("--bad", cross) } },
        { label: "off the scale", paths: () => null, points: { show: marks("--muted", arrow) } },
      ],
      hooks: {
        drawClear: [(u) => u.escapement && bands(u)],
        draw: [(u) => u.escapement && names(u)],
        setCursor: [(u) => u.tip && tip(u)],
      },
    }, columns(data), (u, init) => {
      u.escapement = data;
      u.tip = document.createElement("div");
      u.tip.className = "plot-tip";
      u.tip.hidden = true;
      place.append(u.tip);
      init();
    });
    place.append(plot.root);
  };

  addEventListener("DOMContentLoaded", draw);
  document.addEventListener("htmx:afterSettle", draw);
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const place = document.querySelector(".plot");
      if (plot && place) plot.setSize({ width: place.clientWidth, height: 340 });
    }, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot = null; draw(); });
})();
