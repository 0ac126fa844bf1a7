// Boxes that scroll sideways take the keyboard focus, so that they can be scrolled without a mouse. The theme does
// this for code and notebook outputs; this adds tables, formulas and the front page's diagram.
(() => {
  "use strict";
  const boxes = ".pst-scrollable-table-container, mjx-container, div.math, figure.loop .scroll, .cell_output, .cell_output .output, pre";

  function mark() {
    for (const box of document.querySelectorAll(boxes)) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
      } else if (box.matches(".pst-scrollable-table-container, mjx-container") && box.tabIndex === 0) {
        box.removeAttribute("tabindex");
      }
    }
  }

  window.addEventListener("load", () => {
    const typeset = window.MathJax?.startup?.promise ?? Promise.resolve();
    typeset.then(mark);
  });
  window.addEventListener("resize", mark);
})();
