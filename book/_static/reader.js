// A question is answered before its explanations show; a link shows what it leads to;
// the arrow keys turn pages. Nothing leaves the device.

function remembered(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch (error) {
    // A browser that keeps nothing still shows everything.
  }
  return null;
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function askFirst(box) {
  const question = box.querySelector(".cr-predict-question");
  const key = `cr-predict:${question.textContent.trim()}`;
  const options = [...box.querySelectorAll("li > details")].map((details, number) => {
    const id = `${question.id}-${number}`;
    const radio = element("input", { type: "radio", name: question.id, id });
    const label = element("label", { for: id }, ...details.querySelector("summary").childNodes);
    const why = element("div", { class: "cr-why" }, ...details.querySelectorAll(":scope > p"));
    const right = details.classList.contains("cr-right");
    const line = element("div", { class: `cr-option ${right ? "cr-right" : "cr-wrong"}` });
    line.append(radio, label, why);
    details.replaceWith(line);
    return { radio, line, why, right };
  });
  box.setAttribute("role", "radiogroup");
  const commit = element("button", { type: "button", class: "cr-commit" }, "Commit");
  const skip = element("button", { type: "button", class: "cr-skip" }, "Show the answers");
  const again = element("button", { type: "button", class: "cr-again" }, "Ask me again");
  const said = element("p", { class: "cr-said", "aria-live": "polite" });
  box.append(element("div", { class: "cr-buttons" }, commit, skip, again), said);

  function show(state) {
    const answered = state !== null;
    const chosen = answered ? options[Number(state)] : undefined;
    options.forEach((option) => {
      option.why.hidden = !answered;
      option.radio.disabled = answered;
      option.radio.checked = option === chosen;
      option.line.classList.toggle("cr-chosen", option === chosen);
    });
    commit.hidden = skip.hidden = answered;
    again.hidden = !answered;
    commit.disabled = true;
    said.textContent = "";
    if (chosen) said.textContent = chosen.right ? "You were right." : "You expected otherwise.";
    window.dispatchEvent(new Event("resize"));
  }
  options.forEach((option) =>
    option.radio.addEventListener("change", () => (commit.disabled = false)),
  );
  function settle(state) {
    remembered(key, state);
    show(state);
    (state === null ? options[0].radio : again).focus();
  }
  commit.addEventListener("click", () =>
    settle(String(options.findIndex((option) => option.radio.checked))),
  );
  skip.addEventListener("click", () => settle("none"));
  again.addEventListener("click", () => settle(null));
  show(remembered(key));
}

function hoverCards() {
  const cards = new Map(
    [...document.querySelectorAll("template.cr-hover")].map((t) => [t.dataset.of, t]),
  );
  const card = element("div", { class: "cr-hovercard", role: "tooltip", id: "cr-hovercard" });
  card.hidden = true;
  document.body.append(card);
  let waiting;
  const hide = () => {
    clearTimeout(waiting);
    document.querySelector("[aria-describedby=cr-hovercard]")?.removeAttribute("aria-describedby");
    card.hidden = true;
  };
  const show = async (link, template) => {
    card.replaceChildren(template.content.cloneNode(true));
    card.hidden = false;
    await window.MathJax?.typesetPromise?.([card]);
    const at = link.getBoundingClientRect();
    const above = at.top - card.offsetHeight - 8;
    const left = Math.min(at.left, innerWidth - card.offsetWidth - 8);
    card.style.left = `${Math.max(8, left) + scrollX}px`;
    card.style.top = `${(above > 0 ? above : at.bottom + 8) + scrollY}px`;
    link.setAttribute("aria-describedby", "cr-hovercard");
  };
  document.querySelectorAll("article a[href*='#']").forEach((link) => {
    const template = cards.get(link.getAttribute("href"));
    if (!template) return;
    const soon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(show, 250, link, template);
    };
    link.addEventListener("mouseenter", soon);
    link.addEventListener("focus", soon);
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

function turnPages(event) {
  const step = { ArrowLeft: ".prev-next-footer .left-prev", ArrowRight: ".prev-next-footer .right-next" };
  const taken = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
  // Whatever has the focus may need the arrows itself; a link does not.
  const idle = !document.activeElement || document.activeElement.matches("body, a");
  if (taken || !idle || !(event.key in step)) return;
  document.querySelector(step[event.key])?.click();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".cr-predict").forEach(askFirst);
  hoverCards();
});
document.addEventListener("keydown", turnPages);
