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
  return {
    rows,
    errors: [1, 2, 3].map((k) => explore.bestKError(rows, k)),
    // The penalty leaves the head alone, as crlib's does.
    lasso: rows.reduce((sum, v) => sum + v, 0),
    lipschitz: Math.hypot(...net.w) * Math.hypot(...net.a),
  };
};

explore.kinds.gauge = (panel) => {
  const { drawn, line, text, written } = explore;
  const net = panel.data;
  const curve = panel.picture("The curve of the network", 320, 240);
  const bars = panel.picture("The row norms of the four neurons, powers of ten", 320, 240);
  const names = net.w.map((_, i) => `t${i}`);
  const begin = [2, -1, 1, -2];
  names.forEach((name, i) =>
    panel.range(name, `Neuron ${i + 1}: exponent of its scale`, {
      min: -7, max: 7, step: 0.1, value: begin[i], tell: (v) => written(v, 1), ticks: [-7, 0, 7],
    }),
  );
  const balanced = net.w.map((w, i) => Math.log(Math.abs(net.a[i] / w)) / 2);
  const least = explore.measured(explore.rescaled(net, balanced)).lipschitz;
  const asked = explore.made("ul", { class: "cr-explore-asked" });
  panel.said.after(asked);
  panel.button("Balance", () => panel.set(Object.fromEntries(names.map((name, i) => [name, balanced[i]]))));
  panel.button("All at zero", () => panel.set(Object.fromEntries(names.map((name) => [name, 0]))));

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
    const height = (v) => 115 - 28 * Math.log10(v);
    bars.replaceChildren(
      ...[0.001, 1, 1000].flatMap((v) => [
        line(45, height(v), 310, height(v), "axis"),
        text(40, height(v) + 4, String(v), "end"),
      ]),
      ...rows.flatMap((v, i) => [
        drawn("rect", { x: 55 + 65 * i, width: 36, y: height(v), height: 208 - height(v), class: "b" }),
        text(73 + 65 * i, height(v) - 4, written(v), "middle"),
      ]),
      text(4, 234, "Row norms of the first layer, powers of ten"),
    );
    const done = [errors[0] <= 0.01, lipschitz >= 1000 * least && errors[0] > 0.5];
    asked.replaceChildren(
      ...["Make the layer 0.01-compressible with one row kept.",
        "Make the Lipschitz bound a thousand times the balanced one, with the error for one row above a half."].map((task, i) =>
        explore.made("li", {}, `${done[i] ? "✓ Done: " : "Open: "}${task}`)),
    );
    panel.say(
      `The curve has not moved. Best-k errors of the rows: ${errors.map((e) => written(e)).join(", ")} ` +
        `for one, two and three kept. Group lasso ${written(lasso)}. Lipschitz bound ${written(lipschitz)}, ` +
        `balanced ${written(least)}.`,
    );
  };
};
