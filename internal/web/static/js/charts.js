// uPlot in the page's colours. Charts take theirs from the style sheet, and again
// when the system turns to dark or light.

const { uPlot } = globalThis;
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const FONT = "12px Inter, system-ui, sans-serif";

// chart draws in element and returns a function that gives it data. Series have
// {colour, fill, stepped, dash}; y(value) is a label of the y axis, x(value) of the x
// axis; note() is {at, text} to write above a height.
export function chart(element, { series, x, y, range, note, left = 52 }) {
  let plot, data;
  const axis = (more) => ({
    stroke: () => colour("soft"), font: FONT, ticks: { show: false },
    grid: { stroke: () => colour("line"), width: 1 }, ...more,
  });
  const size = () => ({ width: element.clientWidth, height: element.clientHeight });
  const options = () => ({
    ...size(),
    legend: { show: false }, cursor: { show: false }, select: { show: false },
    padding: [10, 26, 0, 0],
    hooks: { draw: [(u) => { if (note) write(u, note()); }] },
    scales: { x: { time: false, range: range.x && ((u, min, max) => range.x(min, max)) },
              y: { range: (u, min, max) => range.y(max ?? 0) } },
    axes: [
      axis({ size: 26, gap: 4, space: 90, grid: { show: false }, values: (u, ticks) => ticks.map(x), splits: range.xSplits && ((u, i, min, max) => range.xSplits(min, max)) }),
      axis({ size: left, gap: 6, space: 34, values: (u, ticks) => ticks.map(y) }),
    ],
    series: [{}, ...series.map((s) => ({
      stroke: () => colour(s.colour), fill: s.fill && (() => colour(s.fill)), width: s.width ?? 2, dash: s.dash,
      points: { show: s.points ?? false, size: 6, fill: () => colour(s.colour) },
      paths: s.stepped && uPlot.paths.stepped({ align: 1 }),
    }))],
  });
  const draw = () => {
    if (!data || !element.clientWidth) return;
    if (plot) plot.setData(data);
    else plot = new uPlot(options(), data, element);
  };
  new ResizeObserver(() => { if (plot && element.clientWidth) plot.setSize(size()); else draw(); }).observe(element);
  dark.addEventListener("change", () => plot?.redraw(false));
  return (next) => { data = next; draw(); };
}

function write({ ctx, bbox, valToPos }, { at, text }) {
  const scale = devicePixelRatio;
  ctx.save();
  ctx.font = FONT.replace("12", 12 * scale);
  ctx.fillStyle = colour("bad");
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(text, bbox.left + 6 * scale, valToPos(at, "y", true) - 6 * scale);
  ctx.restore();
}

// roof is a round number with some air above the highest value.
export function roof(max, least) {
  const m = Math.max(max * 1.1, least);
  const unit = 10 ** Math.floor(Math.log10(m));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * unit).find((n) => n >= m);
}
