// A file of this computer for the kernel: chosen, or dropped here. See pieces.js for how it goes.

function render({ model, el }) {
  let sending = null;
  const input = made("input", { type: "file", accept: "audio/*,video/*,.npy", hidden: true, tabIndex: -1 });
  input.setAttribute("aria-label", "file to upload");
  const choose = made("button", { className: "lipsync-button", textContent: "Choose a file",
    title: "A sound file, a video, or a .npy feature track of this computer" });
  const cancel = made("button", { className: "lipsync-button", textContent: "Stop sending",
    title: "Stop sending the file", hidden: true });
  const bar = made("progress", { max: 1, value: 0, hidden: true, title: "How much of the file has arrived" });
  bar.setAttribute("aria-label", "how much of the file has arrived");
  const text = made("div", { className: "lipsync-status", textContent: "or drop one here" });
  text.setAttribute("role", "status");
  const root = guarded(made("div", { className: "lipsync-upload" }, choose, input, cancel, bar, text));
  el.append(root);

  function changed(now) {
    if (now !== sending) return;
    const isSending = now.state === "sending";
    bar.hidden = cancel.hidden = !isSending;
    choose.disabled = isSending;
    bar.value = now.blob.size ? now.sent / now.blob.size : 0;
    root.dataset.state = now.state;
    text.classList.toggle("lipsync-error", now.state === "failed" || (isSending && now.text !== ""));
    text.textContent = now.text || (isSending ? `${now.name}: ${megabytes(now.sent)} of ${megabytes(now.blob.size)}` : "or drop another one here");
  }

  function send(file) {
    if (!file || (sending && sending.state === "sending")) return;
    sending = new Sending(model, file, file.name, changed);
    changed(sending);
  }

  choose.addEventListener("click", () => input.click());
  input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
  cancel.addEventListener("click", () => sending.stop());
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.stopPropagation();
    root.classList.add("lipsync-over");
  });
  root.addEventListener("dragleave", () => root.classList.remove("lipsync-over"));
  root.addEventListener("drop", (event) => {
    // JupyterLab would take the file for itself.
    event.preventDefault();
    event.stopPropagation();
    root.classList.remove("lipsync-over");
    send(event.dataTransfer.files[0]);
  });
  return () => { if (sending && sending.state === "sending") sending.stop(); };
}

export default { render };
