// Plays two pictures in step, with sound, and shows any frame of them as it is.
//
// The kernel makes one small clip of both, side by side: what is played needs nothing more from it,
// and the two cannot part. At rest it sends the frame's own picture, which takes the clip's place.
//
// From the kernel:  traits, see step_player.py.      To the kernel:  value · want {}

const GREEN = "rgb(80, 220, 80)", SMALLEST_ZOOM = 480;
const KINDS = ["view", "wipe", "zoom", "box", "boxes", "gain"];

function keep_keys(root) {
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
}

function made(tag, className, attributes = {}) {
  const element = document.createElement(tag);
  element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function button(text, label) {
  const element = made("button", "lipsync-button", { type: "button", "aria-label": label, title: label });
  element.textContent = text;
  return element;
}

class StepPlayer {
  constructor(model, el) {
    this.model = model;
    this.root = made("div", "lipsync-step");
    this.canvas = made("canvas", "lipsync-step-picture", { role: "img" });
    this.play = button("▶ Play", "Play from here, with sound; Space does so too");
    this.back = button("‹", "One frame back");
    this.next = button("›", "One frame on");
    this.slider = made("input", "lipsync-step-slider", { type: "range", min: 0, step: 1,
      "aria-label": "frame", title: "The frame that is shown; arrow keys move by one" });
    this.sound = button("Sound on", "Sound on or off");
    this.sound.setAttribute("aria-pressed", "true");
    this.time = made("span", "lipsync-step-time");
    this.state = made("span", "lipsync-status", { role: "status" });
    this.row = made("div", "lipsync-step-row");
    this.row.append(this.play, this.back, this.next, this.slider, this.time, this.sound, this.state);
    this.root.append(this.canvas, this.row);
    el.append(this.root);
    keep_keys(this.root);
    this.video = document.createElement("video");
    Object.assign(this.video, { playsInline: true, preload: "auto" });
    this.halves = [0, 1].map(() => document.createElement("canvas").getContext("2d", { willReadFrequently: true }));
    this.still = null;        // the picture of the kernel, and the frame it is of
    this.stillOf = -1;
    this.asked = null;        // the frame that the kernel was asked for
    this.frame = model.get("value");
    this.isWanted = this.wantsToPlay = false;
    this.listen();
    this.read_all();
    this.watcher = new IntersectionObserver((seen) => this.on_seen(seen.some((s) => s.isIntersecting)));
    this.watcher.observe(this.root);
  }

  listen() {
    this.play.onclick = () => this.toggle();
    this.back.onclick = () => this.scrub(this.frame - 1);
    this.next.onclick = () => this.scrub(this.frame + 1);
    this.slider.oninput = () => this.scrub(Number(this.slider.value));
    this.slider.onkeydown = (event) => {
      if (event.key === " ") { event.preventDefault(); this.toggle(); }
    };
    this.sound.onclick = () => {
      this.video.muted = !this.video.muted;
      this.sound.setAttribute("aria-pressed", String(!this.video.muted));
      this.sound.textContent = this.video.muted ? "Sound off" : "Sound on";
    };
    this.video.addEventListener("seeked", () => this.draw());
    this.video.addEventListener("ended", () => this.rest(this.model.get("max")));
    this.video.addEventListener("pause", () => { if (!this.video.ended) this.rest(this.frame); });
    this.video.addEventListener("play", () => this.mark());
    this.handlers = {
      "change:clip": () => this.read_clip(), "change:state": () => this.mark(),
      "change:still": () => this.on_still(), "change:still_of": () => this.on_still(), "change:max": () => this.read_all(),
      "change:value": () => this.read_value(), "change:has_sound": () => this.mark(),
      "change:caption": () => this.mark(),
    };
    for (const kind of KINDS) this.handlers[`change:${kind}`] = () => this.changed();
    for (const [name, handler] of Object.entries(this.handlers)) this.model.on(name, handler);
  }

  close() {
    for (const [name, handler] of Object.entries(this.handlers)) this.model.off(name, handler);
    this.watcher.disconnect();
    this.video.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.root.remove();
  }

  // ---- what the kernel says

  read_all() {
    this.slider.max = this.model.get("max");
    this.read_value();
    this.read_clip();
    this.read_still();
    this.mark();
  }

  read_value() {
    if (!this.video.paused || this.asked !== null) return;
    this.frame = this.model.get("value");
    this.seek();
    this.mark();
  }

  on_still() {
    // Both come with one message: it is read once.
    if (this.isReading) return;
    this.isReading = true;
    queueMicrotask(() => { this.isReading = false; this.read_still(); });
  }

  async read_still() {
    const content = this.model.get("still"), of = this.model.get("still_of");
    this.asked = null;
    if (content && content.byteLength) {
      this.still = await createImageBitmap(new Blob([content], { type: "image/jpeg" }));
      this.stillOf = of;
    } else {
      this.still = null;
      this.stillOf = -1;
    }
    if (this.video.paused && of !== this.frame) this.ask();
    this.draw();
  }

  read_clip() {
    const content = this.model.get("clip");
    this.video.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.isReady = Boolean(content && content.byteLength);
    if (!this.isReady) {
      this.video.removeAttribute("src");
      this.isWanted = false;
      if (this.isSeen) this.on_seen(true);
    } else {
      this.url = URL.createObjectURL(new Blob([content], { type: "video/mp4" }));
      this.video.src = this.url;
      this.video.addEventListener("loadeddata", () => {
        this.seek();
        if (this.wantsToPlay) this.toggle();
      }, { once: true });
    }
    this.mark();
  }

  changed() {
    // What is shown of the two was chosen anew: the kernel sends its own picture of it soon.
    this.still = null;
    this.stillOf = -1;
    this.draw();
  }

  on_seen(isSeen) {
    this.isSeen = isSeen;
    if (!isSeen || this.isWanted || this.isReady || this.model.get("max") < 1) return;
    this.isWanted = true;
    this.model.send({ kind: "want" });
  }

  // ---- what the user does

  toggle() {
    if (!this.isReady) {
      this.wantsToPlay = !this.wantsToPlay;
      return this.mark();
    }
    this.wantsToPlay = false;
    if (!this.video.paused) return this.video.pause();
    if (this.frame >= this.model.get("max")) this.frame = 0;
    this.seek();
    this.video.play().then(() => this.follow());
  }

  follow() {
    const shown = (now, about) => {
      if (this.video.paused) return;
      const seconds = about ? about.mediaTime : this.video.currentTime;
      this.frame = Math.min(this.model.get("max"), Math.round(seconds * this.model.get("fps")));
      this.draw();
      this.mark();
      this.follow();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(shown);
    else requestAnimationFrame((now) => shown(now, null));
  }

  scrub(frame) {
    this.wantsToPlay = false;
    if (!this.video.paused) this.video.pause();
    this.rest(Math.min(Math.max(0, frame), this.model.get("max")));
  }

  rest(frame) {
    this.frame = frame;
    this.seek();
    this.mark();
    if (this.asked === null) this.ask();
  }

  ask() {
    // One question at a time: the kernel is not asked for what was passed by meanwhile.
    if (this.model.get("value") === this.frame) return;
    this.asked = this.frame;
    this.model.set("value", this.frame);
    this.model.save_changes();
  }

  seek() {
    if (!this.isReady) return this.draw();
    this.video.currentTime = (this.frame + 0.5) / this.model.get("fps");
  }

  // ---- what is seen

  draw() {
    const isStill = this.video.paused && this.still && this.stillOf === this.frame;
    if (isStill) {
      this.size(this.still.width, this.still.height);
      this.canvas.getContext("2d").drawImage(this.still, 0, 0);
    } else if (this.isReady && this.video.readyState >= 2) {
      this.draw_clip();
    } else if (this.still && this.video.paused) {
      this.size(this.still.width, this.still.height);
      this.canvas.getContext("2d").drawImage(this.still, 0, 0);
    }
    this.root.dataset.shown = isStill ? "still" : "clip";
    this.root.dataset.frame = this.frame;
  }

  size(width, height) {
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  // The part of a half that is shown, in its pixels: all of it, or the face box and a little more.
  part(width, height) {
    const [x1, y1, x2, y2] = this.box_of(width, height), margin = 0.15 * (x2 - x1);
    if (!this.model.get("zoom")) return [0, 0, width, height];
    const left = Math.max(0, x1 - margin), top = Math.max(0, y1 - margin);
    return [left, top, Math.min(width, x2 + margin) - left, Math.min(height, y2 + margin) - top];
  }

  box_of(width, height) {
    const raw = this.model.get("boxes");
    if (!raw || !raw.byteLength) return [0, 0, width, height];
    const all = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
    const box = all.subarray(4 * this.frame, 4 * this.frame + 4);
    return box.length < 4 ? [0, 0, width, height] : [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
  }

  draw_clip() {
    const width = this.video.videoWidth / 2, height = this.video.videoHeight, part = this.part(width, height);
    const scale = this.model.get("zoom") ? Math.max(1, SMALLEST_ZOOM / part[2]) : 1;
    const w = Math.max(1, Math.round(part[2] * scale)), h = Math.max(1, Math.round(part[3] * scale));
    const view = this.model.get("view"), isPair = view === "side by side";
    for (const side of [0, 1]) {
      const half = this.halves[side];
      if (half.canvas.width !== w) half.canvas.width = w;
      if (half.canvas.height !== h) half.canvas.height = h;
      half.drawImage(this.video, side * width + part[0], part[1], part[2], part[3], 0, 0, w, h);
    }
    this.size(isPair ? 2 * w : w, h);
    const to = this.canvas.getContext("2d"), [left, right] = this.halves;
    if (view === "difference") this.draw_difference(to, left, right, w, h);
    else to.drawImage(view === "original" || isPair ? left.canvas : right.canvas, 0, 0);
    if (isPair) to.drawImage(right.canvas, w, 0);
    if (view === "wipe") this.draw_wipe(to, left, w, h);
    if (!this.model.get("box")) return;
    const box = this.box_of(width, height);
    to.strokeStyle = GREEN;
    to.lineWidth = 2;
    for (const shift of isPair ? [0, w] : [0]) {
      to.strokeRect(shift + (box[0] - part[0]) * scale, (box[1] - part[1]) * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
    }
  }

  draw_difference(to, left, right, w, h) {
    const one = left.getImageData(0, 0, w, h), other = right.getImageData(0, 0, w, h);
    const gain = this.model.get("gain"), from = one.data, at = other.data;
    for (let k = 0; k < at.length; k++) if (k % 4 !== 3) at[k] = 128 + gain * (at[k] - from[k]);
    to.putImageData(other, 0, 0);
  }

  draw_wipe(to, left, w, h) {
    const edge = Math.round(this.model.get("wipe") * w);
    if (edge) to.drawImage(left.canvas, 0, 0, edge, h, 0, 0, edge, h);
    to.fillStyle = "white";
    to.fillRect(edge - 1, 0, 2, h);
  }

  mark() {
    const isPlaying = !this.video.paused, has = this.model.get("max") > 0;
    this.play.textContent = isPlaying ? "⏸ Pause" : "▶ Play";
    this.slider.value = this.frame;
    const seconds = this.frame / this.model.get("fps");
    this.time.textContent = `frame ${this.frame} of ${this.model.get("max")}, ${seconds.toFixed(2)} s`;
    this.slider.setAttribute("aria-valuetext", this.time.textContent);
    this.canvas.setAttribute("aria-label", this.model.get("caption"));
    this.sound.hidden = !this.model.get("has_sound");
    const waits = this.wantsToPlay && !this.isReady ? "plays when it is ready: " : "";
    const state = this.isReady ? "" : this.model.get("state");
    this.state.textContent = state ? waits + state : "";
    this.root.hidden = !has;
    Object.assign(this.root.dataset, { state: isPlaying ? "playing" : "still", ready: this.isReady, frame: this.frame });
  }
}

function render({ model, el }) {
  const player = new StepPlayer(model, el);
  return () => player.close();
}

export default { render };
