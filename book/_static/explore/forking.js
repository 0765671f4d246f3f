// Forking comparisons: one setting, many comparisons, and what each would report.
"use strict";

explore.interval = (values, quantiles) => {
  const n = values.length;
  if (n < 2) return null;
  const mean = values.reduce((sum, v) => sum + v, 0) / n;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1);
  const half = (quantiles[n] * Math.sqrt(variance)) / Math.sqrt(n);
  return { mean, low: mean - half, high: mean + half, n };
};

// Runs of one seed meet; ratios are averaged as logarithms, robust accuracies subtracted.
explore.compared = (own, control, kind, quantiles) => {
  const pairs = own.map((v, i) => [v, control[i]]).filter(([u, v]) => u !== null && v !== null);
  if (kind === "points")
    return explore.interval(pairs.map(([u, v]) => 100 * (u - v)), quantiles);
  const found = explore.interval(pairs.map(([u, v]) => Math.log(u / v)), quantiles);
  if (!found) return null;
  const { mean, low, high } = found;
  return { mean: Math.exp(mean), low: Math.exp(low), high: Math.exp(high), n: found.n };
};

explore.verdict = (interval, kind) => {
  const none = kind === "points" ? 0 : 1;
  return interval.high < none ? "loss" : interval.low > none ? "gain" : "open";
};

// Every comparison of a setting: checkpoint, measure, control, number of seeds.
explore.comparisons = (data, table, setting) => {
  const { checkpoints, controls, values, seeds } = data.tables[table];
  const found = [];
  for (const rule of checkpoints.keys())
    for (const measure of data.measures.keys())
      for (const [control] of controls)
        for (let n = 2; n <= seeds; n++) {
          if (control === setting) continue;
          const [own, other] = [setting, control].map((s) => values[s][rule][measure].slice(0, n));
          const { kind } = data.measures[measure];
          const interval = explore.compared(own, other, kind, data.quantiles);
          if (interval)
            found.push({ rule, measure, control, n, interval, verdict: explore.verdict(interval, kind) });
        }
  return found;
};

explore.kinds.forking = (panel) => {
  const { drawn, line, text, made } = explore;
  const { data } = panel;
  const names = (list) => list.map(({ name }) => name);
  const table = () => data.tables.find(({ name }) => name === panel.state.table);
  const own = (controls) => controls.filter(([i]) => table().settings[i] !== panel.state.setting);
  const plot = panel.picture("Intervals of the comparisons with this measure and number of seeds", 320, 290);
  panel.choice("table", "Study", names(data.tables), data.tables[0].name);
  panel.choice("setting", "Setting", () => table().settings.filter((name) => name !== "plain"), data.start);
  panel.choice("rule", "Checkpoint", () => table().checkpoints);
  panel.choice("measure", "Measure", names(data.measures));
  panel.choice("control", "Control", () => own(table().controls).map(([, name]) => name));
  const seeds = Math.max(...data.tables.map((own) => own.seeds));
  panel.range("n", "Seeds", { min: 2, max: seeds, step: 1, value: seeds, ticks: [2, seeds] });
  const counted = made("p", { class: "cr-explore-count" });
  panel.said.after(counted);

  panel.draw = () => {
    const chosen = {
      rule: table().checkpoints.indexOf(panel.state.rule),
      measure: names(data.measures).indexOf(panel.state.measure),
      control: table().controls.find(([, name]) => name === panel.state.control)[0],
      n: Math.min(panel.state.n, table().seeds),
    };
    const all = explore.comparisons(data, data.tables.indexOf(table()), table().settings.indexOf(panel.state.setting));
    const shown = all.filter(({ measure, n }) => measure === chosen.measure && n === chosen.n);
    const now = shown.find(({ rule, control }) => rule === chosen.rule && control === chosen.control);
    const { kind, name } = data.measures[chosen.measure];
    const none = kind === "points" ? 0 : 1;
    // Two or three runs can give intervals far wider than anything else: those are cut.
    const [unit, most] = kind === "points" ? [5, 60] : [0.1, 1];
    const ends = shown.flatMap(({ interval }) => [interval.low, interval.high]);
    const far = Math.max(unit, ...ends.map((v) => Math.abs(v - none)));
    const reach = Math.min(most, unit * Math.ceil(far / unit));
    const [from, to] = [none - reach, none + reach];
    const X = (v) => 145 + (165 * (Math.min(to, Math.max(from, v)) - from)) / (to - from);
    const rows = shown.flatMap(({ rule, control, interval, verdict }, i) => {
      const y = 22 + 25 * i;
      const mark = verdict === "loss" ? "b" : verdict === "gain" ? "c" : "ink";
      const words = text(4, y + 4, `${table().checkpoints[rule]}, ${new Map(table().controls).get(control)}`);
      if (rule === chosen.rule && control === chosen.control) words.classList.add("chosen");
      const shape = verdict === "open"
        ? drawn("circle", { cx: X(interval.mean), cy: y, r: 4, class: mark })
        : drawn("rect", { x: X(interval.mean) - 4, y: y - 4, width: 8, height: 8, class: mark });
      return [words, line(X(interval.low), y, X(interval.high), y, `${mark} thick`), shape];
    });
    plot.replaceChildren(
      line(X(none), 8, X(none), 258, "axis"),
      ...rows,
      ...[from, none, to].map((v) => text(X(v), 272, String(Number(v.toFixed(1))).replace("-", "−"), "middle")),
      text(227, 287, kind === "points" ? "difference, points" : "ratio to the control", "middle"),
    );
    const told = ({ mean, low, high }) => {
      const f = (v) => v.toFixed(kind === "points" ? 1 : 2).replace("-", "−");
      return `${f(mean)} [${f(low)}, ${f(high)}]`;
    };
    panel.say(
      now
        ? `${name[0].toUpperCase()}${name.slice(1)}: ${told(now.interval)}` +
            `${kind === "points" ? " points" : " of the control"}, ${now.interval.n} seeds. Verdict: ${now.verdict}.`
        : "This checkpoint was met by fewer than two seeds: no verdict.",
    );
    const words = ["loss", "open", "gain"].map((verdict) => [verdict, all.filter((c) => c.verdict === verdict).length]);
    counted.textContent =
      `Verdicts obtainable from this setting: ${words.filter(([, n]) => n).length} of 3. Of its ` +
      `${all.length} comparisons ${words.map(([verdict, n]) => `${n} say ${verdict}`).join(", ")}.`;
  };
};
