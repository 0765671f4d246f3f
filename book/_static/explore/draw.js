// Draw your own perturbation: what a first layer of rank eight lets through.
"use strict";

explore.limit = (v) => Math.min(1, Math.max(0, v));

explore.bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// Sixteen-bit integers, little end first, times their unit: rows of a matrix.
explore.matrix = ({ shape: [rows, columns], unit, data }) => {
  const view = new DataView(explore.bytes(data).buffer);
  return Array.from({ length: rows }, (_, i) =>
    Float64Array.from({ length: columns }, (_, j) => unit * view.getInt16(2 * (i * columns + j), true)));
};

explore.dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);

// An orthonormal basis of what the rows span; twice, so that rounding leaves nothing.
explore.basis = (rows) => {
  const found = [];
  for (const row of rows) {
    let v = Float64Array.from(row);
    for (let round = 0; round < 2; round++)
      for (const u of found) {
        const share = explore.dot(u, v);
        v = v.map((value, i) => value - share * u[i]);
      }
    const size = Math.sqrt(explore.dot(v, v));
    found.push(v.map((value) => value / size));
  }
  return found;
};

explore.seen = (basis, paint) => {
  const found = new Float64Array(paint.length);
  for (const u of basis) {
    const share = explore.dot(u, paint);
    u.forEach((value, i) => (found[i] += share * value));
  }
  return found;
};

explore.logits = ({ mean, std, left, right, head }, x) => {
  const z = Float64Array.from(x, (v) => (v - mean) / std);
  const code = right.map((row) => explore.dot(row, z));
  const hidden = left.map((row) => Math.max(0, explore.dot(row, code)));
  return head.map((row) => explore.dot(row, hidden));
};

explore.kinds.draw = (panel) => {
  const { made, drawn, text, written } = explore;
  const side = 28;
  const { data } = panel;
  const net = { mean: data.mean, std: data.std };
  for (const name of ["left", "right", "head"]) net[name] = explore.matrix(data[name]);
  const basis = explore.basis(net.right);
  const [boot, trouser] = ["boot", "trouser"].map((name) => Array.from(explore.bytes(data[name]), (v) => v / 255));
  const clean = explore.logits(net, boot);
  const label = (logits) => logits.indexOf(Math.max(...logits));

  const canvas = (caption, attributes) => {
    const own = made("canvas", { width: side, height: side, ...attributes });
    panel.pictures.append(made("div", { class: "cr-explore-canvas" }, own, made("p", {}, caption)));
    return own;
  };
  const board = canvas("The boot with your paint: draw here", {
    tabindex: 0, role: "application",
    "aria-label": "Drawing board. Arrow keys move the brush, space paints, Backspace takes paint away.",
  });
  const through = canvas("What the network sees of it, on a scale of its own", { role: "img", "aria-label": "The seen part of the paint" });
  const lost = canvas("What it cannot see, on a scale of its own", { role: "img", "aria-label": "The unseen part of the paint" });
  const bars = panel.picture("The ten logits", 280, 210);
  panel.range("ink", "Ink of the brush: dark or light", { min: -1, max: 1, step: 0.1, value: 0.6, tell: (v) => written(v, 1) });
  panel.toggle("box", "Keep pixels in the box, 0 to 1", false);
  panel.button("Bridge to the trouser", () => panel.set({ paint: bridge() }));
  panel.button("Keep what it cannot see", () => panel.set({ paint: panel.state.paint.map((v, i) => v - part()[i]) }));
  panel.button("Keep what it sees", () => panel.set({ paint: Array.from(part()) }));
  panel.button("Wipe", () => panel.set({ paint: Array(side * side).fill(0) }));
  const part = () => explore.seen(basis, panel.state.paint);
  const bridge = () => Array.from(explore.seen(basis, trouser.map((v, i) => v - boot[i])));
  // It starts with a stroke, so that there is something to divide.
  const stroke = Array.from({ length: side * side }, (_, i) => (Math.floor(i / side) === 8 && i % side > 5 && i % side < 23 ? 0.8 : 0));
  Object.assign(panel.state, { paint: stroke, cursor: [14, 14] });

  const dab = (column, row, sign = 1) => {
    const paint = [...panel.state.paint];
    for (const [i, j, share] of [[0, 0, 1], [1, 0, 0.4], [-1, 0, 0.4], [0, 1, 0.4], [0, -1, 0.4]]) {
      const [u, v] = [column + i, row + j];
      if (u >= 0 && u < side && v >= 0 && v < side) paint[v * side + u] += sign * share * panel.state.ink;
    }
    panel.set({ paint, cursor: [column, row] });
  };
  const spot = (event) => {
    const at = board.getBoundingClientRect();
    return [(event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height].map((v) =>
      Math.min(side - 1, Math.max(0, Math.floor(side * v))));
  };
  board.addEventListener("pointerdown", (event) => {
    board.setPointerCapture(event.pointerId);
    dab(...spot(event));
  });
  board.addEventListener("pointermove", (event) => {
    const [u, v] = spot(event);
    const moved = u !== panel.state.cursor[0] || v !== panel.state.cursor[1];
    if (event.buttons && moved) dab(u, v);
  });
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  board.addEventListener("keydown", (event) => {
    const [u, v] = panel.state.cursor;
    if (event.key in moves) {
      const [i, j] = moves[event.key];
      panel.set({ cursor: [Math.min(side - 1, Math.max(0, u + i)), Math.min(side - 1, Math.max(0, v + j))] });
    } else if (event.key === " ") dab(u, v);
    else if (event.key === "Backspace") dab(u, v, -1);
    else return;
    event.preventDefault();
  });

  const show = (target, colour) => {
    const context = target.getContext("2d");
    const image = context.createImageData(side, side);
    for (let i = 0; i < side * side; i++) image.data.set([...colour(i), 255], 4 * i);
    context.putImageData(image, 0, 0);
    return context;
  };
  const grey = (v) => Array(3).fill(255 * explore.limit(v));
  // Light ink to orange, dark ink to blue, nothing white.
  const signed = (v, most) => {
    const share = Math.min(1, Math.abs(v) / most);
    const to = v > 0 ? [213, 94, 0] : [0, 114, 178];
    return to.map((c) => 255 + share * (c - 255));
  };
  panel.draw = () => {
    const { paint, box, cursor } = panel.state;
    const own = explore.seen(basis, paint);
    const x = boot.map((v, i) => (box ? explore.limit(v + paint[i]) : v + paint[i]));
    const logits = explore.logits(net, x);
    const context = show(board, (i) => grey(x[i]));
    context.strokeStyle = "#d55e00";
    context.strokeRect(cursor[0] + 0.5 - 1, cursor[1] + 0.5 - 1, 2, 2);
    const rest = paint.map((v, i) => v - own[i]);
    for (const [target, shown] of [[through, own], [lost, rest]]) {
      const most = Math.max(0.05, ...shown.map(Math.abs));
      show(target, (i) => signed(shown[i], most));
    }
    const size = Math.sqrt(explore.dot(paint, paint));
    const share = size ? Math.sqrt(explore.dot(own, own)) / size : 0;
    const far = Math.max(1, ...logits.map(Math.abs), ...clean.map(Math.abs));
    const X = (v) => 175 + (95 * v) / far;
    const now = label(logits);
    bars.replaceChildren(
      explore.line(X(0), 0, X(0), 205, "axis"),
      ...logits.flatMap((v, k) => [
        text(72, 15 + 20 * k, data.classes[k], "end"),
        drawn("rect", { x: Math.min(X(0), X(v)), y: 5 + 20 * k, height: 12, width: Math.abs(X(v) - X(0)), class: k === now ? "b" : "a" }),
        explore.line(X(clean[k]), 3 + 20 * k, X(clean[k]), 19 + 20 * k, "strong"),
      ]),
    );
    const moved = Math.max(...logits.map((v, k) => Math.abs(v - clean[k])));
    panel.say(
      `Of the length of the paint, ${written(size, 2)}, the network sees ${(100 * share).toFixed(0)} %. ` +
        `It says ${data.classes[now]}; without paint ${data.classes[label(clean)]} (the short lines). ` +
        (moved < 1e-9 ? "No logit has moved, but for rounding." : `The logits moved by up to ${written(moved)}.`),
    );
  };
};
