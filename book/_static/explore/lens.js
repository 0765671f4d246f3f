// The layer as a lens: theorem "Radii of a linear score" on a layer of two inputs.
"use strict";

// Frobenius norm one, stable rank s, singular vectors along the axes; the classes differ
// at p degrees to the strong direction in, the head points t degrees from it out.
explore.premises = (s, p, t) => {
  const [pr, tr] = [p, t].map((degrees) => (degrees * Math.PI) / 180);
  const sigma = [Math.sqrt(1 / s), Math.sqrt(1 - 1 / s)];
  const d = [Math.cos(pr), Math.sin(pr)];
  const normal = [sigma[0] * Math.cos(tr), sigma[1] * Math.sin(tr)];
  const size = Math.hypot(...normal);
  const n = normal.map((v) => v / size);
  const signal = 2 * ((sigma[0] * d[0]) ** 2 + (sigma[1] * d[1]) ** 2);
  // At rank one only the part of the head that the layer reaches enters the score.
  // Where both values are equal, or one is zero, every head is aligned.
  const even = sigma[1] === 0 || sigma[0] - sigma[1] < 1e-12;
  const alignment = even ? 1 : Math.abs(Math.cos(tr));
  const ratio = Math.abs(n[0] * d[0] + n[1] * d[1]);
  return { sigma, d, n, ratio, alignment, signal, worst: 2 / s, bound: Math.sqrt((signal * s) / 2) / alignment };
};

explore.kinds.lens = (panel) => {
  const { drawn, line, text, written } = explore;
  const degrees = (value) => `${value}°`;
  const before = panel.picture("The inputs: two classes, the boundary, and the way to it", 320, 320);
  const after = panel.picture("The unit circle after the layer: an ellipse", 320, 320);
  panel.range("s", "Stable rank of the layer", { min: 1, max: 2, step: 0.05, value: 1.1, tell: (v) => v.toFixed(2) });
  panel.range("p", "Classes differ at, to the strong direction", { min: 0, max: 90, step: 1, value: 70, tell: degrees });
  panel.range("t", "Head at, to the strong output", { min: 0, max: 89, step: 1, value: 30, tell: degrees, ticks: [0, 45, 89] });
  panel.button("All three premises", () => panel.set({ s: 1.05, p: 85, t: 30 }));
  panel.button("Without low rank", () => panel.set({ s: 2, p: 60, t: 60 }));
  panel.button("Without weak signal", () => panel.set({ s: 1.05, p: 5, t: 30 }));
  panel.button("Without alignment", () => panel.set({ s: 1.05, p: 85, t: 89 }));

  const scene = (...children) => drawn("g", { transform: "translate(160 150) scale(120 -120)" }, ...children);
  panel.draw = () => {
    const { s, p, t } = panel.state;
    const { sigma, d, n, ratio, alignment, signal, worst, bound } = explore.premises(s, p, t);
    const r = n[0] * d[0] + n[1] * d[1];
    before.replaceChildren(
      scene(
        line(-1.25, 0, 1.25, 0, "axis"),
        line(0, -1.2, 0, 1.2, "axis"),
        line(-d[0], -d[1], d[0], d[1], "quiet dashed"),
        line(-1.25 * n[1], 1.25 * n[0], 1.25 * n[1], -1.25 * n[0], "strong"),
        line(d[0], d[1], d[0] - r * n[0], d[1] - r * n[1], "b thick"),
        drawn("circle", { cx: d[0], cy: d[1], r: 0.06, class: "a" }),
        drawn("rect", { x: -d[0] - 0.055, y: -d[1] - 0.055, width: 0.11, height: 0.11, class: "c" }),
      ),
      text(316, 166, "strong", "end"),
      text(164, 14, "weak"),
      text(4, 314, "Inputs: the orange way is the radius"),
    );
    after.replaceChildren(
      scene(
        drawn("circle", { r: Math.SQRT1_2, class: "outline dashed" }),
        drawn("ellipse", { rx: sigma[0], ry: sigma[1], class: "outline a" }),
        line(0, 0, sigma[0], 0, "b thick"),
        line(0, 0, sigma[0] * d[0], sigma[1] * d[1], "c thick"),
      ),
      text(4, 298, "Outputs: worst gain (orange), the classes’"),
      text(4, 314, "gain (green), mean gain (dashed)"),
    );
    panel.say(
      `The radius is ${written(ratio)} of the best possible; the theorem allows at most ` +
        `${written(Math.min(1, bound))}. Worst over mean gain ${written(worst)}, gain of the classes ` +
        `γ = ${written(signal)}, alignment of the head α = ${written(alignment)}.`,
    );
  };
};
