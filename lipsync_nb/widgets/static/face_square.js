// A picture with a square on it: drawn, moved and resized by mouse, touch or keyboard.
const LEAST = 16;
// Pixels of the page: who moves less has clicked.
const STILL = 4;
const SVG = "http://www.w3.org/2000/svg";

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Keys typed in a panel's controls are theirs, not the notebook's: JupyterLab asks the control that
// has the focus, and no one above it.
function keep_keys(root) {
  if (root.dataset.keepsKeys) return;
  root.dataset.keepsKeys = "true";
  const keep = (control) => { control.dataset.lmSuppressShortcuts = "true"; };
  root.addEventListener("focusin", (event) => keep(event.target));
  if (root.contains(document.activeElement)) keep(document.activeElement);
}

function render({ model, el }) {
  const stage = document.createElement("div");
  stage.className = "lipsync-square";
  stage.tabIndex = 0;
  stage.dataset.lmSuppressShortcuts = "true";
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "Face square: drag to draw; arrows move it, + and - resize it; a click or F chooses a face");
  stage.style.cssText =
    "position:relative;display:inline-block;max-width:100%;touch-action:none;cursor:crosshair;" +
    "user-select:none;line-height:0";
  const image = document.createElement("img");
  image.draggable = false;
  image.alt = "";
  image.style.cssText = "max-width:100%;display:block";
  const square = document.createElement("div");
  square.className = "lipsync-square-box";
  const handle = document.createElement("div");
  handle.className = "lipsync-square-handle";
  handle.style.cssText =
    "position:absolute;right:-8px;bottom:-8px;width:16px;height:16px;border-radius:8px;" +
    "background:#2e9e4f;border:2px solid white;box-sizing:border-box;cursor:nwse-resize";
  square.append(handle);
  const faces = document.createElementNS(SVG, "svg");
  faces.setAttribute("preserveAspectRatio", "none");
  faces.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
  stage.append(image, faces, square);
  el.append(stage);

  let url = "";
  let box = [];
  let drag = null;
  // The number of the last square or click that the kernel was told.
  let last = model.get("answered");

  function showPicture() {
    const bytes = model.get("picture");
    URL.revokeObjectURL(url);
    url = bytes && bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) : "";
    stage.style.display = url ? "inline-block" : "none";
    if (url) image.src = url;
    // By now the page has it.
    const panel = el.closest(".lipsync-keys");
    if (panel) keep_keys(panel);
  }

  function showBox() {
    square.style.display = box.length === 4 ? "block" : "none";
    if (box.length !== 4) return;
    const [x1, y1, x2, y2] = box;
    const width = model.get("width");
    const height = model.get("height");
    const colour = model.get("is_drawn") || drag ? "#e8b400" : "#2e9e4f";
    square.style.cssText =
      `position:absolute;box-sizing:border-box;border:2px solid ${colour};cursor:move;` +
      `left:${(100 * x1) / width}%;top:${(100 * y1) / height}%;` +
      `width:${(100 * (x2 - x1)) / width}%;height:${(100 * (y2 - y1)) / height}%`;
  }

  // Another view of this picture may have told since. A message, no state: that would wait until a
  // busy kernel took the one before. Messages of other widgets may still overtake it there, so that
  // the panel's buttons wait for the answer.
  function tell(what) {
    last = Math.max(last, model.get("answered")) + 1;
    model.send({ ...what, number: last });
    showWaiting();
  }

  function showWaiting() {
    const panel = el.closest(".lipsync-keys");
    if (panel) panel.classList.toggle("lipsync-waits", model.get("answered") < last);
  }

  function fromModel() {
    showWaiting();
    // A busy kernel shows a square after the next one was drawn: that one stays.
    if (drag || model.get("answered") < last) return;
    box = [...model.get("box")];
    showBox();
  }

  function showFaces() {
    const outlines = model.get("outlines");
    faces.setAttribute("viewBox", `0 0 ${model.get("width")} ${model.get("height")}`);
    faces.replaceChildren(...outlines.map((points, index) => {
      const outline = document.createElementNS(SVG, "polygon");
      const isChosen = index === model.get("chosen");
      outline.setAttribute("class", isChosen ? "lipsync-face lipsync-face-chosen" : "lipsync-face");
      outline.setAttribute("points", points.map((point) => point.join(",")).join(" "));
      outline.setAttribute("fill", "none");
      outline.setAttribute("stroke", isChosen ? "#2e9e4f" : "#5b8def");
      outline.setAttribute("stroke-width", "2");
      outline.setAttribute("vector-effect", "non-scaling-stroke");
      if (!isChosen) outline.setAttribute("stroke-dasharray", "5 4");
      return outline;
    }));
  }

  function click(x, y) {
    tell({ kind: "clicked", point: [Math.round(x), Math.round(y)] });
  }

  // The one after the chosen one, for who has no mouse.
  function nextFace() {
    const outlines = model.get("outlines");
    if (!outlines.length) return;
    const points = outlines[(model.get("chosen") + 1) % outlines.length];
    const mean = (axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
    click(mean(0), mean(1));
  }

  // In the picture's own pixels.
  function place(event) {
    const area = image.getBoundingClientRect();
    const scale = model.get("width") / area.width;
    return [(event.clientX - area.left) * scale, (event.clientY - area.top) * scale];
  }

  function put(x, y, size, send) {
    const width = model.get("width");
    const height = model.get("height");
    const side = Math.round(clamp(size, LEAST, Math.min(width, height)));
    const left = Math.round(clamp(x, 0, width - side));
    const top = Math.round(clamp(y, 0, height - side));
    box = [left, top, left + side, top + side];
    showBox();
    if (send) tell({ kind: "drawn", box });
  }

  function begin(event) {
    const [x, y] = place(event);
    const isInside = event.target === square && box.length === 4;
    if (event.target === handle) drag = { x: box[0], y: box[1] };
    else if (isInside) drag = { dx: x - box[0], dy: y - box[1], size: box[2] - box[0] };
    else drag = { x, y };
    drag.from = [x, y];
    drag.page = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
    stage.focus();
    event.preventDefault();
  }

  function move(event) {
    if (!drag) return;
    const far = Math.hypot(event.clientX - drag.page[0], event.clientY - drag.page[1]);
    if (!drag.moved && far < STILL) return;
    const [x, y] = place(event);
    if (drag.size) put(x - drag.dx, y - drag.dy, drag.size, false);
    else put(drag.x, drag.y, Math.max(x - drag.x, y - drag.y), false);
    drag.moved = true;
  }

  function end(event) {
    if (!drag) return;
    const { moved, from } = drag;
    drag = null;
    if (moved) put(box[0], box[1], box[2] - box[0], true);
    else if (event.type === "pointerup") click(...from);
    showBox();
  }

  const STEPS = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], "+": [0, 0, 1], "=": [0, 0, 1], "-": [0, 0, -1] };

  function press(event) {
    if (event.key === "f" || event.key === "F") {
      nextFace();
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const step = STEPS[event.key];
    if (!step || box.length !== 4) return;
    const by = event.shiftKey && event.key.startsWith("Arrow") ? 10 : 1;
    put(box[0] + by * step[0], box[1] + by * step[1], box[2] - box[0] + 2 * step[2], true);
    event.preventDefault();
    event.stopPropagation();
  }

  stage.addEventListener("pointerdown", begin);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  stage.addEventListener("keydown", press);
  model.on("change:picture", showPicture);
  model.on("change:box change:is_drawn change:answered", fromModel);
  model.on("change:outlines change:chosen change:width change:height", showFaces);
  showPicture();
  showFaces();
  fromModel();
  return () => URL.revokeObjectURL(url);
}

export default { render };
