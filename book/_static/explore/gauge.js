// The gauge: neurons of a ReLU network rescaled, and what notices.
"use strict";

// f(x) = c + sum a_i relu(w_i x + b_i); neuron i is fed e^t_i times as much, heard e^-t_i.
explore.rescaled = ({ w, b, a, c }, t) => ({
  w: w.map((v, i) => v * Math.exp(t[i])),
  b: b.map((v, i) => v * Math.exp(t[i])),
  a: a.map((v, i) => v * Math.exp(-t[i])),
  c,
});

explore.value = ({ w, b, a, c }, x) => w.reduce((sum, v, i) => sum + a[i] * Math.max(0, v * x + b[i]), c);

explore.bestKError = (values, k) => {
  const powers = values.map((v) => v * v).sort((u, v) => v - u);
  const sum = (part) => part.reduce((total, v) => total + v, 0);
  return Math.sqrt(sum(powers.slice(k)) / sum(powers));
};

explore.measured = (net) => {
  const rows = net.w.map(Math.abs);
  const head = Math.hypot(...net.a);
  return {
    rows,
    errors: [1, 2, 3].map((k) => explore.bestKError(rows, k)),
    lasso: rows.reduce((sum, v) => sum + v, 0) + head,
    lipschitz: Math.hypot(...net.w) * head,
  };
};

explore.kinds.gauge = (panel) => {
  const { drawn, line, text, written } = explore;
  const net = panel.data;
  const curve = panel.picture("The curve of the network", 320, 240);
  const bars = panel.picture("The row norms of the four neurons, powers of ten", 320, 240);
  const names = net.w.map((_, i) => `t${i}`);
  names.forEach((name, i) =>
    panel.range(name, `Neuron ${i + 1}: weights in times e to the`, {
      min: -7, max: 7, step: 0.1, value: 0, tell: (v) => written(v, 1),
    }),
  );
  const balanced = net.w.map((w, i) => Math.log(Math.abs(net.a[i] / w)) / 2);
  const least = explore.measured(explore.rescaled(net, balanced)).lipschitz;
  const asked = explore.made("ul", { class: "cr-explore-asked" });
  panel.said.after(asked);
  panel.button("Balance", () => panel.set(Object.fromEntries(names.map((name, i) => [name, balanced[i]]))));
  panel.button("Start", () => panel.set(Object.fromEntries(names.map((name) => [name, 0]))));

  const X = (x) => 20 + 280 * x;
  const Y = (y) => 115 - 90 * y;
  panel.draw = () => {
    const now = explore.rescaled(net, names.map((name) => panel.state[name]));
    const { rows, errors, lasso, lipschitz } = explore.measured(now);
    const points = Array.from({ length: 101 }, (_, i) => `${X(i / 100)},${Y(explore.value(now, i / 100))}`);
    curve.replaceChildren(
      line(20, Y(0), 300, Y(0), "axis"),
      drawn("polyline", { points: points.join(" "), class: "outline a" }),
      text(300, Y(0) - 5, "x", "end"),
      text(4, 234, "The network as a function"),
    );
    const height = (v) => 110 - 26 * Math.log10(v);
    bars.replaceChildren(
      line(20, height(1), 300, height(1), "axis"),
      text(300, height(1) - 4, "1", "end"),
      ...rows.flatMap((v, i) => [
        drawn("rect", { x: 35 + 65 * i, width: 36, y: Math.min(height(v), height(1)),
          height: Math.max(1, Math.abs(height(v) - height(1))), class: "b" }),
        text(53 + 65 * i, height(v) + (v < 1 ? 14 : -4), written(v), "middle"),
      ]),
      text(4, 234, "Row norms of the first layer, powers of ten"),
    );
    const done = [errors[0] <= 0.01, lipschitz >= 1000 * least];
    asked.replaceChildren(
      ...["Make the layer 0.01-compressible with one row kept.",
        "Make the Lipschitz bound a thousand times the balanced one."].map((task, i) =>
        explore.made("li", {}, `${done[i] ? "✓ Done: " : "Open: "}${task}`)),
    );
    panel.say(
      `The curve has not moved. Best-k errors of the rows: ${errors.map((e) => written(e)).join(", ")} ` +
        `for one, two and three kept. Group lasso ${written(lasso)}. Lipschitz bound ${written(lipschitz)}, ` +
        `balanced ${written(least)}.`,
    );
  };
};
