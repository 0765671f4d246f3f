// What the explorable figures share: controls with names, drawings, a sentence that is
// read aloud. A figure is a function in `explore.kinds` that fills a panel; what it
// computes with is a pure function beside it. No library, and nothing leaves the device.
"use strict";

const explore = { kinds: {} };

explore.made = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

explore.drawn = (name, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

explore.line = (x1, y1, x2, y2, kind) => explore.drawn("line", { x1, y1, x2, y2, class: kind });

explore.text = (x, y, words, anchor = "start") =>
  explore.drawn("text", { x, y, "text-anchor": anchor }, words);

// A number as the book writes it: a true minus, and powers of ten where it must be short.
explore.written = (value, digits = 2) => {
  const size = Math.abs(value);
  const short = size >= 1e4 || (size > 0 && size < 0.5 * 10 ** -digits);
  const told = short && isFinite(value) ? value.toExponential(1) : value.toFixed(digits);
  return told.replace("Infinity", "∞").replace("-", "−").replace("e-", "e−").replace("e+", "e");
};

explore.Panel = class {
  constructor(box, data, number) {
    Object.assign(this, { box, data, number, state: {}, shows: [], draw: () => {} });
    this.pictures = explore.made("div", { class: "cr-explore-pictures" });
    this.controls = explore.made("div", { class: "cr-explore-controls" });
    this.buttons = explore.made("div", { class: "cr-explore-buttons" });
    this.said = explore.made("p", { class: "cr-explore-said", "aria-live": "polite" });
    box.append(this.pictures, this.controls, this.buttons, this.said);
  }

  // A control, its label and what shows its value, in one line.
  row(name, label, control, value, shown) {
    control.id = `${this.box.dataset.explore}-${this.number}-${name}`;
    control.name = name;
    control.setAttribute("autocomplete", "off");
    const row = explore.made("div", { class: "cr-explore-row" });
    row.append(explore.made("label", { for: control.id }, label), control);
    if (shown) row.append(shown);
    this.controls.append(row);
    this.state[name] = value;
    const read = { checkbox: () => control.checked, range: () => Number(control.value) };
    const plain = () => control.value;
    control.addEventListener("input", () => this.set({ [name]: (read[control.type] ?? plain)() }));
  }

  range(name, label, { min, max, step, value, tell = String, ticks = [min, (min + max) / 2, max] }) {
    const marks = explore.made("datalist", { id: `${this.box.dataset.explore}-${this.number}-${name}-ticks` });
    marks.append(...ticks.map((tick) => explore.made("option", { value: tick })));
    const control = explore.made("input", { type: "range", min, max, step, value, list: marks.id });
    const output = explore.made("output");
    this.row(name, label, control, value, output);
    output.after(marks);
    this.shows.push(() => {
      control.value = this.state[name];
      output.value = tell(this.state[name]);
      control.setAttribute("aria-valuetext", output.value);
    });
    return control;
  }

  // Options are words, or pairs of a value and words; a function when they may change.
  choice(name, label, options, value) {
    const control = explore.made("select");
    this.row(name, label, control, value);
    let before;
    this.shows.push(() => {
      const now = (typeof options === "function" ? options() : options).map((o) => [].concat(o));
      if (String(now) !== before) {
        control.replaceChildren(
          ...now.map(([key, words = key]) => explore.made("option", { value: key }, words)),
        );
        before = String(now);
      }
      if (!now.some(([key]) => String(key) === String(this.state[name]))) {
        this.state[name] = now[0][0];
      }
      control.value = this.state[name];
    });
  }

  toggle(name, label, value) {
    const control = explore.made("input", { type: "checkbox" });
    this.row(name, label, control, value);
    this.shows.push(() => (control.checked = this.state[name]));
  }

  button(label, act) {
    const control = explore.made("button", { type: "button" }, label);
    control.addEventListener("click", act);
    this.buttons.append(control);
    return control;
  }

  picture(label, width, height) {
    const picture = explore.drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    this.pictures.append(picture);
    return picture;
  }

  say(sentence) {
    if (this.said.textContent !== sentence) this.said.textContent = sentence;
  }

  set(changed) {
    Object.assign(this.state, changed);
    this.changed?.(changed);
    this.show();
  }

  show() {
    this.shows.forEach((show) => show());
    this.draw();
  }
};

explore.begin = () => {
  const panels = [...document.querySelectorAll(".cr-explore")].map((box, number) => {
    const data = JSON.parse(box.querySelector("script").textContent);
    box.querySelector(".cr-explore-instead")?.remove();
    const panel = new explore.Panel(box, data, number);
    explore.kinds[box.dataset.explore](panel);
    // A page may ask for another start than the usual one.
    const asked = JSON.parse(box.dataset.start);
    panel.set(asked);
    for (const [key, value] of Object.entries(asked))
      if (panel.state[key] !== value) console.error(`${box.dataset.explore} cannot start with ${key} at ${value}`);
    panel.start = structuredClone(panel.state);
    box.panel = panel;
    return panel;
  });
  // Paper shows how a figure starts.
  window.addEventListener("beforeprint", () =>
    panels.forEach((panel) => {
      panel.kept = structuredClone(panel.state);
      Object.assign(panel.state, structuredClone(panel.start));
      panel.show();
    }),
  );
  window.addEventListener("afterprint", () =>
    panels.forEach((panel) => {
      Object.assign(panel.state, panel.kept);
      panel.show();
    }),
  );
};

document.addEventListener("DOMContentLoaded", explore.begin);
