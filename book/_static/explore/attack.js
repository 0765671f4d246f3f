// Attack this network yourself: PGD in the plane, one step at a time.
"use strict";

// A network is {mean, std, weights, biases}. Returns the logits and, on the way back, the
// gradient of what is climbed: "ce", "margin", or the number of a rival, strongest first.
explore.forward = ({ mean, std, weights: [W, V], biases: [b, c] }, x) => {
  const z = x.map((v) => (v - mean) / std);
  const hidden = W.map((row, i) => Math.max(0, row[0] * z[0] + row[1] * z[1] + b[i]));
  const logits = V.map((row, k) => row.reduce((sum, v, i) => sum + v * hidden[i], c[k]));
  return { logits, hidden };
};

explore.label = (logits) => logits.indexOf(Math.max(...logits));

explore.climbed = (logits, y, loss, rivals) => {
  const others = logits.map((v, k) => (k === y ? -Infinity : v));
  if (loss === "ce") {
    const top = Math.max(...logits);
    const sum = logits.reduce((total, v) => total + Math.exp(v - top), 0);
    const log = logits.map((v) => v - top - Math.log(sum));
    return { value: -log[y], weights: log.map((v, k) => Math.exp(v) - (k === y ? 1 : 0)) };
  }
  const k = loss === "margin" ? explore.label(others) : rivals[Number(loss)];
  return { value: logits[k] - logits[y], weights: logits.map((_, j) => (j === k) - (j === y)) };
};

explore.gradient = ({ std, weights: [W, V] }, hidden, weights) => {
  const back = hidden.map((h, i) => (h > 0 ? V.reduce((sum, row, k) => sum + weights[k] * row[i], 0) : 0));
  return [0, 1].map((j) => W.reduce((sum, row, i) => sum + back[i] * row[j], 0) / std);
};

explore.clip = (v) => Math.min(1, Math.max(0, v));

// The nearest point of ball and box: where one coordinate meets its wall, the other has
// what is left of the budget.
explore.project = (x, z, eps, norm) => {
  if (norm === "linf") return z.map((v, i) => explore.clip(Math.min(x[i] + eps, Math.max(x[i] - eps, v))));
  const d = z.map((v, i) => explore.clip(v) - x[i]);
  if (Math.hypot(...d) <= eps) return x.map((v, i) => v + d[i]);
  const way = z.map((v, i) => v - x[i]);
  const size = Math.hypot(...way);
  const short = way.map((v) => (v * eps) / size);
  const wall = short.map((v, i) => explore.clip(x[i] + v) - x[i]);
  const hit = [0, 1].find((i) => wall[i] !== short[i]);
  if (hit !== undefined) {
    const left = Math.sqrt(Math.max(0, eps ** 2 - wall[hit] ** 2));
    const other = 1 - hit;
    wall[other] = explore.clip(x[other] + Math.sign(way[other]) * left) - x[other];
  }
  return x.map((v, i) => v + wall[i]);
};

explore.step = (x, z, g, length, eps, norm) => {
  if (norm === "linf") return explore.project(x, z.map((v, i) => v + length * Math.sign(g[i])), eps, norm);
  // A coordinate at a wall that the gradient points out of has no part in the length.
  const free = g.filter((v, i) => Math.abs(explore.clip(z[i] + Math.sign(v)) - z[i]) > 1e-14);
  const unit = Math.max(Math.hypot(...free), 1e-4 * Math.hypot(...g), 1e-30);
  return explore.project(x, z.map((v, i) => v + (length / unit) * g[i]), eps, norm);
};

// The way of PGD, one entry a look; it ends where the label changes.
explore.pgd = (net, x, { norm, eps, loss, scale, steps }) => {
  const look = (at) => {
    const { logits, hidden } = explore.forward(net, at);
    return { hidden, logits: logits.map((v) => scale * v) };
  };
  const start = look(x).logits;
  const y = explore.label(start);
  const rivals = start.map((_, k) => k).filter((k) => k !== y).sort((j, k) => start[k] - start[j]);
  const way = [];
  let z = x;
  for (let t = 0; t <= steps; t++) {
    const { logits, hidden } = look(z);
    const { value, weights } = explore.climbed(logits, y, loss, rivals);
    const g = explore.gradient(net, hidden, weights.map((v) => scale * v));
    const fooled = explore.label(logits) !== y;
    way.push({ at: z, value, g, fooled, blind: g.every((v) => v === 0), label: explore.label(logits) });
    if (fooled) break;
    z = explore.step(x, z, g, eps * (1 - t / steps), eps, norm);
  }
  return { y, rivals, way };
};

// The nearest other label on a grid over the box, then halved towards x.
explore.nearest = (net, x, norm, cells = 400) => {
  const own = explore.label(explore.forward(net, x).logits);
  const away = (p) => {
    const d = p.map((v, i) => Math.abs(v - x[i]));
    return norm === "linf" ? Math.max(...d) : Math.hypot(...d);
  };
  const other = (p) => explore.label(explore.forward(net, p).logits) !== own;
  let best = null;
  for (let i = 0; i <= cells; i++)
    for (let j = 0; j <= cells; j++) {
      const p = [i / cells, j / cells];
      const distance = away(p);
      if (!(best && distance >= best.distance) && other(p)) best = { at: p, distance };
    }
  if (!best) return null;
  let [low, high] = [0, 1];
  const on = (share) => x.map((v, i) => v + share * (best.at[i] - v));
  for (let t = 0; t < 40; t++) {
    const middle = (low + high) / 2;
    if (other(on(middle))) high = middle;
    else low = middle;
  }
  return { at: on(high), distance: away(on(high)) };
};

explore.kinds.attack = (panel) => {
  const { drawn, text, written } = explore;
  const { networks, classes } = panel.data;
  const picture = panel.picture("The square of inputs, divided among three classes", 340, 340);
  const fixed = (v) => v.toFixed(2);
  const X = (v) => 20 + 300 * v;
  const Y = (v) => 320 - 300 * v;
  const rivalNames = () => {
    const { y, rivals } = explore.pgd(network(), point(), { norm: "l2", eps: 0, loss: "ce", scale: 1, steps: 1 });
    return [["ce", "cross-entropy"], ["margin", "margin to the strongest rival"],
      ...rivals.map((k, i) => [String(i), `logit of ${classes[k]} over that of ${classes[y]}`])];
  };
  const network = () => networks[Number(panel.state.net)];
  const point = () => [panel.state.x, panel.state.y];
  panel.choice("net", "First layer", networks.map(({ name }, i) => [String(i), name]), "0");
  panel.range("x", "Input, across", { min: 0, max: 1, step: 0.01, value: 0.42, tell: fixed });
  panel.range("y", "Input, up", { min: 0, max: 1, step: 0.01, value: 0.86, tell: fixed });
  panel.choice("norm", "Norm", [["l2", "ℓ2, a disc"], ["linf", "ℓ∞, a square"]], "linf");
  panel.range("eps", "Budget, input units", { min: 0.02, max: 0.4, step: 0.01, value: 0.25, tell: fixed });
  panel.choice("loss", "What the attack climbs", rivalNames, "ce");
  panel.choice("scale", "Logits times", [["1", "1"], ["10", "10"], ["100", "100"], ["1000", "1000"]], "1");
  panel.range("steps", "Steps of the attack", { min: 1, max: 20, step: 1, value: 8, ticks: [1, 10, 20] });
  Object.assign(panel.state, { taken: 0, shown: false });
  panel.button("One step", () => panel.set({ taken: panel.state.taken + 1 }));
  panel.button("All steps", () => panel.set({ taken: panel.state.steps }));
  panel.button("Back to the start", () => panel.set({ taken: 0, shown: false }));
  panel.button("Show the nearest other label", () => panel.set({ shown: true }));
  // Whatever else changes begins the attack anew.
  panel.changed = (changed) => {
    const same = ["taken", "shown"].some((key) => key in changed) || !Object.keys(changed).length;
    if (!same) Object.assign(panel.state, { taken: 0, shown: false });
  };
  let held = false;
  const drag = (event) => {
    const to = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const round = (v) => Math.round(100 * explore.clip(v)) / 100;
    panel.set({ x: round((to.x - 20) / 300), y: round((320 - to.y) / 300) });
  };
  picture.addEventListener("pointerdown", (event) => {
    held = true;
    picture.setPointerCapture(event.pointerId);
    drag(event);
  });
  picture.addEventListener("pointermove", (event) => held && drag(event));
  picture.addEventListener("pointerup", () => (held = false));
  picture.classList.add("held");

  // Each row of small squares as runs of one class; the same for all points.
  const kept = new Map();
  const regions = (net) => {
    if (kept.has(net)) return kept.get(net);
    const cells = 75;
    const found = ["", "", ""];
    for (let j = 0; j < cells; j++)
      for (let i = 0; i < cells; ) {
        const own = (k) => explore.label(explore.forward(net, [(k + 0.5) / cells, (j + 0.5) / cells]).logits);
        const first = i;
        const k = own(i);
        while (i < cells && own(i) === k) i++;
        const [left, wide, high] = [X(first / cells), (300 * (i - first)) / cells, 300 / cells];
        found[k] += `M${left} ${Y((j + 1) / cells)}h${wide}v${high}h${-wide}z`;
      }
    kept.set(net, found);
    return found;
  };

  panel.draw = () => {
    const { norm, eps, loss, scale, steps, shown } = panel.state;
    const [net, x] = [network(), point()];
    const { y, way } = explore.pgd(net, x, { norm, eps, loss, scale: Number(scale), steps });
    const taken = (panel.state.taken = Math.min(panel.state.taken, way.length - 1));
    const now = way[taken];
    const near = shown ? explore.nearest(net, x, norm) : null;
    const ball = norm === "l2"
      ? drawn("circle", { cx: X(x[0]), cy: Y(x[1]), r: 300 * eps, class: "outline dashed" })
      : drawn("rect", { x: X(x[0] - eps), y: Y(x[1] + eps), width: 600 * eps, height: 600 * eps, class: "outline dashed" });
    const clip = drawn("svg", { x: 20, y: 20, width: 300, height: 300, viewBox: "20 20 300 300" }, ball);
    const marks = panel.data.points.map((p, i) =>
      text(X(p[0]), Y(p[1]) + 4, classes[panel.data.labels[i]], "middle"));
    marks.forEach((mark) => mark.classList.add("faint"));
    const points = way.slice(0, taken + 1).map(({ at }) => `${X(at[0])},${Y(at[1])}`);
    picture.replaceChildren(
      ...regions(net).map((d, k) => drawn("path", { d, class: `region ${"abc"[k]}` })),
      ...marks,
      drawn("rect", { x: 20, y: 20, width: 300, height: 300, class: "outline" }),
      clip,
      drawn("polyline", { points: points.join(" "), class: "outline strong" }),
      ...way.slice(0, taken + 1).map(({ at }) => drawn("circle", { cx: X(at[0]), cy: Y(at[1]), r: 3, class: "ink" })),
      drawn("circle", { cx: X(x[0]), cy: Y(x[1]), r: 7, class: "outline strong" }),
    );
    if (near)
      picture.append(
        explore.line(X(x[0]), Y(x[1]), X(near.at[0]), Y(near.at[1]), "b thick"),
        drawn("rect", { x: X(near.at[0]) - 5, y: Y(near.at[1]) - 5, width: 10, height: 10, class: "b" }),
      );
    const where =
      `at (${now.at.map((v) => v.toFixed(3)).join(", ")}). The attack has climbed from ` +
      `${written(way[0].value, 3)} to ${written(now.value, 3)}`;
    const end = now.fooled
      ? `The label is ${classes[now.label]}: fooled, so the distance is at most ${written(away(now.at, x, norm), 3)}.`
      : now.blind
        ? "The gradient is exactly zero: the attack is blind here, and its next step stays where it is."
        : taken === way.length - 1
          ? `The steps are spent, and the label is still ${classes[y]}: the attack failed, which proves nothing.`
          : `The label is ${classes[y]}.`;
    const nearest = !shown
      ? ""
      : near
        ? ` The nearest other label lies at distance ${written(near.distance, 3)}.`
        : " No other label lies in the square.";
    panel.say(`Step ${taken} of ${steps}, ${where}. ${end}${nearest}`);
  };
  const away = (p, x, norm) => {
    const d = p.map((v, i) => Math.abs(v - x[i]));
    return norm === "linf" ? Math.max(...d) : Math.hypot(...d);
  };
};
