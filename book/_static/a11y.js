// Repairs of the theme's markup, and boxes that scroll must be reachable by keyboard.
function nameControls() {
  document.querySelectorAll("li.has-children > details > summary").forEach((summary) => {
    const link = summary.closest("li").querySelector(":scope > a");
    const part = link ? link.textContent.trim() : "this part";
    summary.setAttribute("aria-label", `Sections of ${part}`);
  });
  const mislabelled =
    ".search-button-field, .navbar-brand, a.nav-link[aria-label]," +
    " details.hide > summary, details.toggle-details > summary," +
    " summary[aria-label='Toggle hidden content']";
  document
    .querySelectorAll(mislabelled)
    .forEach((control) => control.removeAttribute("aria-label"));
  // The bibliography claims to be a list, and its children are no list items.
  document
    .querySelectorAll(".citation-list, .citation")
    .forEach((entry) => entry.removeAttribute("role"));
  const sidebar = document.querySelector(".sidebar-primary-item:has(.navbar-brand)");
  if (sidebar) {
    sidebar.setAttribute("role", "region");
    sidebar.setAttribute("aria-label", "Book");
  }
}

function widenFormulas() {
  document.querySelectorAll("mjx-container:not([display])").forEach((formula) => {
    formula.classList.remove("cr-wide");
    // The span around a formula is as wide as the formula; the block around it is not.
    const block = formula.closest("p, li, td, th, dd, dt, summary, figcaption, h1, h2, h3");
    const room = block ? block.clientWidth : 0;
    const wide = room > 0 && formula.getBoundingClientRect().width > room + 1;
    formula.classList.toggle("cr-wide", wide);
  });
}

function reachScrollers() {
  const scrollers = "mjx-container, .cell_output .output, pre, .table-container," +
    " .pst-scrollable-table-container";
  document.querySelectorAll(scrollers).forEach((element) => {
    const scrolls = element.scrollWidth > element.clientWidth + 1;
    const flows = getComputedStyle(element).overflowX;
    if (scrolls && (flows === "auto" || flows === "scroll")) {
      element.setAttribute("tabindex", "0");
      element.addEventListener("scroll", showMore, { passive: true });
    }
    showMore({ currentTarget: element });
  });
}

function showMore({ currentTarget: element }) {
  const left = element.scrollWidth - element.clientWidth - element.scrollLeft;
  const scrolls = getComputedStyle(element).overflowX !== "visible";
  element.classList.toggle("cr-more", scrolls && left > 1);
}

function fit() {
  widenFormulas();
  reachScrollers();
}

document.addEventListener("DOMContentLoaded", nameControls);
window.addEventListener("load", () => {
  const typeset = window.MathJax && window.MathJax.startup;
  Promise.resolve(typeset && typeset.promise).then(fit);
});
window.addEventListener("resize", fit);
document.addEventListener("toggle", fit, true);
