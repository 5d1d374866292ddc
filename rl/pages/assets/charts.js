"use strict";
// The numbers of a chart under the pointer.

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);

function showNumbers(event) {
  const chart = event.target.closest?.("svg.chart");
  tip.hidden = !chart;
  document.querySelector("svg.chart .rule")?.remove();
  if (!chart) return;
  const lines = JSON.parse(chart.dataset.lines);
  const box = chart.getBoundingClientRect();
  const [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
  const place = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
  const all = lines.flatMap(([, xs]) => xs);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const wanted = low + ((place - left) / (right - left)) * (high - low);
  const nearest = (xs) => xs.reduce((best, x, at) => (Math.abs(x - wanted) < Math.abs(xs[best] - wanted) ? at : best), 0);
  const step = lines[0][1][nearest(lines[0][1])];
  const texts = lines.map(([name, xs, ys]) => {
    const at = nearest(xs);
    return `${name}: ${ys[at] ?? "–"}${xs[at] === step ? "" : ` (at ${xs[at]})`}`;
  });
  tip.textContent = [`step ${step}`, ...texts].join("\n");
  const x = high === low ? (left + right) / 2 : left + ((step - low) / (high - low)) * (right - left);
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ class: "rule", x1: x, x2: x, y1: 8, y2: chart.viewBox.baseVal.height - 22 })) {
    rule.setAttribute(name, String(value));
  }
  chart.append(rule);
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
}

document.addEventListener("pointermove", showNumbers);
document.addEventListener("pointerdown", showNumbers);
