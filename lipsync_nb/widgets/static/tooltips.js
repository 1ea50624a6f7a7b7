// Titles for the fields of a panel, which their own views leave out where they have a label.
function render({ model, el }) {
  let root = null;
  let timer = 0;
  let isDue = false;

  function put() {
    isDue = false;
    for (const [name, text] of Object.entries(model.get("tips"))) {
      for (const field of root.getElementsByClassName(name)) {
        if (field.title !== text) field.title = text;
        // Without a label of its own, this is its name.
        const control = field.querySelector("select, input, textarea");
        if (control && !field.querySelector("label")?.textContent) control.setAttribute("aria-label", text);
      }
    }
  }

  // Parts are put into the panel one after the other.
  const watch = new MutationObserver(() => {
    if (!isDue) requestAnimationFrame(put);
    isDue = true;
  });

  function begin() {
    root = el.closest(".lipsync-panel");
    if (!root) {
      timer = setTimeout(begin, 100);
      return;
    }
    watch.observe(root, { childList: true, subtree: true });
    put();
  }

  model.on("change:tips", () => root && put());
  begin();
  return () => { clearTimeout(timer); watch.disconnect(); };
}

export default { render };
