// Copy as code, save a report, download.
//
// From the kernel:  traits, see result_bar.py · piece {name, size} + buffer · gone
// To the kernel:    copied · report · get {start}

function keep_keys(root) {
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
}

function button(text, label, press) {
  const element = document.createElement("button");
  Object.assign(element, { type: "button", className: "lipsync-button", textContent: text, title: label });
  element.setAttribute("aria-label", `${text}: ${label}`);
  element.onclick = press;
  return element;
}

// Pages that were not loaded over a safe way have no clipboard of the newer kind.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const is_done = document.execCommand("copy");
    field.remove();
    return is_done;
  }
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "lipsync-result-bar";
  const row = document.createElement("div");
  row.className = "lipsync-result-row";
  const path = document.createElement("span"), said = document.createElement("div"), code = document.createElement("pre");
  path.className = "lipsync-result-path";
  said.setAttribute("role", "status");
  code.className = "lipsync-result-code";
  code.tabIndex = 0;
  code.setAttribute("aria-label", "the cell that does the same");
  code.hidden = true;
  let pieces = [], got = 0;

  const say = (text) => { said.textContent = text; };
  const copying = button("Copy as code", "a cell that does the same", async () => {
    code.hidden = false;
    const is_done = await copy(model.get("code"));
    say(is_done ? "Copied: paste it into a cell." : "Select the lines below to copy them.");
    model.send({ kind: "copied" });
  });
  const reporting = button("Save report", "one page that needs no other file", () => model.send({ kind: "report" }));
  const loading = button("Download", "save the video on this computer", () => {
    pieces = []; got = 0;
    loading.disabled = true;
    model.send({ kind: "get", start: 0 });
  });

  function take(message, buffers) {
    if (message.kind === "gone") loading.disabled = false;
    if (message.kind !== "piece" || !loading.disabled) return;
    pieces.push(buffers[0]);
    got += buffers[0].byteLength;
    if (got < message.size && buffers[0].byteLength) {
      say(`Downloading: ${Math.round(100 * got / message.size)} %`);
      return model.send({ kind: "get", start: got });
    }
    loading.disabled = false;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(pieces, { type: "video/mp4" }));
    link.download = message.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    pieces = [];
    say(`Downloaded ${message.name}.`);
  }

  function show() {
    root.hidden = !model.get("code");
    code.textContent = model.get("code");
    path.textContent = model.get("path");
    loading.hidden = !model.get("is_file");
  }

  const tell = () => say(model.get("said"));
  row.append(copying, reporting, loading, path);
  root.append(row, said, code);
  keep_keys(root);
  el.append(root);
  const handlers = { "change:code": () => { code.hidden = true; show(); }, "change:path": show,
    "change:is_file": show, "change:said": tell, "msg:custom": take };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  show();
  tell();
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

export default { render };
