// Plays a video while the kernel renders it: fragments of MP4 come as custom messages with a
// buffer, and go to Media Source Extensions. The kernel sends what it has; when to play is
// decided here, where the time of what is played is known.
//
// From the kernel:   begin {stream} · pieces {stream, first, count, sizes, ...} + buffer
//                    speed {...} · end {stream, count, is_complete} · clear
// To the kernel:     want {stream, next} · report {...} · playing · ended · unable

const CUSHION_SECONDS = 0.3;   // played only with so much in hand
const LOW_SECONDS = 0.1;       // with less than this it waits, rather than stutter
const MARGIN = 1.1;            // the rest of a render may take so much longer than it seems
const KEPT_SECONDS = 20;       // of what was played, where the browser's memory is full
const HUNGRY_SECONDS = 5;      // with less than this in hand, silence may be a lost message
const TICK_MS = 50, REPORT_MS = 500, GAP_MS = 1000;
const PATIENCE_MS = 30000;     // a kernel that is busy hears each question later: they become rare

// Keys typed in an element's controls are theirs, not the notebook's: JupyterLab asks the control
// that has the focus, and no one above it.
function keep_keys(root) {
  if (root.dataset.keepsKeys) return;
  root.dataset.keepsKeys = "true";
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
}

class Player {
  constructor(model, el) {
    this.model = model;
    this.video = document.createElement("video");
    Object.assign(this.video, { controls: true, playsInline: true, preload: "auto" });
    this.video.setAttribute("aria-label", "the video while it is rendered");
    this.video.title = "What is rendered, played while it is made";
    this.status = document.createElement("div");
    this.status.className = "lipsync-live-status";
    this.status.setAttribute("role", "status");
    this.root = document.createElement("div");
    this.root.className = "lipsync-live";
    keep_keys(this.root);
    this.root.append(this.video, this.status);
    el.append(this.root);
    this.root.hidden = true;
    this.stream = null;
    this.reset(null);
    for (const name of ["pause", "play", "ended", "seeking", "playing"]) {
      this.video.addEventListener(name, () => this[`on_${name}`]());
    }
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.ask();
  }

  reset(stream) {
    this.stream = stream;
    this.next = 0;            // number of the piece that is expected
    this.queue = [];          // pieces that the browser has not taken yet
    this.count = null;        // of pieces, once all are made
    this.isEnded = this.isGoing = this.isHeldByUser = this.isOwnPause = false;
    this.hasTold = this.needsClick = false;
    this.stalls = 0;
    this.speed = null;
    this.buffer = null;
    this.reported = this.asked = 0;
    this.heard = performance.now();
    this.patience = GAP_MS;
    this.source = null;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.video.removeAttribute("src");
    this.video.load();
    this.say("");
    this.mark("empty");
  }

  close() {
    clearInterval(this.timer);
    this.reset(null);
    this.root.remove();
  }

  // ---- messages

  on_message(message, buffers) {
    if (message.kind === "begin") this.begin(message.stream);
    if (message.kind === "clear") this.clear();
    if (message.stream !== this.stream) return this.wonder(message);
    this.heard = performance.now();
    this.patience = GAP_MS;
    if (message.kind === "speed") this.speed = message.speed;
    if (message.kind === "pieces") this.take(message, buffers[0]);
    if (message.kind === "end") this.end(message);
    this.tick();
  }

  wonder(message) {
    // Pieces of a stream whose beginning was lost.
    if (message.kind === "pieces" && this.stream === null && message.stream !== this.given_up) this.ask();
  }

  begin(stream) {
    if (stream === this.stream) return;
    this.reset(stream);
    if (typeof MediaSource === "undefined") this.give_up();
  }

  clear() {
    this.root.hidden = true;
    this.reset(null);
  }

  give_up() {
    // The kernel shows single frames instead, and the finished video.
    this.model.send({ kind: "unable", stream: this.stream });
    this.given_up = this.stream;
    this.stream = null;
    this.root.hidden = true;
  }

  take(message, content) {
    this.speed = message.speed;
    if (message.first > this.next) return this.ask();   // one was lost on the way
    if (message.first + message.count <= this.next) return;   // known already
    if (!this.source) this.open(message);
    if (!this.source) return;
    // Pieces that are here already are left out: a picture must not come twice.
    const known = message.sizes.slice(0, this.next - message.first).reduce((a, b) => a + b, 0);
    this.next = message.first + message.count;
    this.queue.push(new Uint8Array(content.buffer, content.byteOffset + known, content.byteLength - known));
    this.feed();
  }

  end(message) {
    this.count = message.count;
    if (!message.is_complete) {
      // What was cancelled or failed ends where it is.
      this.queue = [];
      this.isOwnPause = true;
      this.video.pause();
      this.clear();
    }
  }

  ask() {
    // Which stream there is, and what of it is missing here.
    const now = performance.now();
    if (this.asked && now - this.asked < GAP_MS) return;
    this.asked = now;
    this.model.send({ kind: "want", stream: this.stream, next: this.next });
  }

  // Nothing follows the last pieces, nor the end, that would show that they were lost: where this
  // runs dry and hears nothing, it asks.
  ask_if_lost() {
    const silent = performance.now() - Math.max(this.heard, this.asked);
    if (this.hasAll() || silent < this.patience || this.ahead() > HUNGRY_SECONDS) return;
    this.patience = Math.min(2 * this.patience, PATIENCE_MS);
    this.ask();
  }

  // ---- the browser's buffer

  open(message) {
    const kind = `video/mp4; codecs="${message.codecs}"`;
    if (!MediaSource.isTypeSupported(kind)) return this.give_up();
    const source = new MediaSource();
    this.source = source;
    this.url = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      if (this.source !== source) return;
      const buffer = source.addSourceBuffer(kind);
      // Boxes know no time before 0: the first picture is moved back to it.
      buffer.timestampOffset = -message.offset_seconds;
      buffer.addEventListener("updateend", () => this.feed());
      this.buffer = buffer;
      this.feed();
    }, { once: true });
    this.video.src = this.url;
  }

  feed() {
    const buffer = this.buffer;
    if (!buffer || buffer.updating || this.source.readyState === "closed") return;
    if (this.queue.length) {
      try {
        buffer.appendBuffer(this.queue[0]);
        this.queue.shift();
      } catch (error) {
        if (error.name !== "QuotaExceededError") throw error;
        this.forget();
      }
      return;
    }
    if (this.hasAll() && this.source.readyState === "open") {
      this.source.endOfStream();
    }
  }

  forget() {
    // The browser's memory is full: what was played some time ago goes; else it waits for a tick.
    const end = this.video.currentTime - KEPT_SECONDS;
    const ranges = this.buffer.buffered;
    if (ranges.length && ranges.start(0) < end - 1) this.buffer.remove(ranges.start(0), end);
  }

  hasAll() {
    return this.count !== null && this.next >= this.count;
  }

  // Seconds that can be played from here on.
  ahead() {
    const ranges = this.video.buffered, now = this.video.currentTime;
    for (let k = 0; k < ranges.length; k++) {
      if (ranges.start(k) <= now + 0.05 && now <= ranges.end(k)) return ranges.end(k) - now;
    }
    return 0;
  }

  // ---- when to play

  // Seconds until the rest of the render will come no later than it is played; 0: now.
  wait() {
    if (this.hasAll() && !this.queue.length) return 0;
    if (!this.speed) return Infinity;
    const rest = this.speed.total_seconds - this.video.currentTime;
    return Math.max(0, this.speed.eta_seconds * MARGIN + 0.1 - rest);
  }

  // The panels around it keep their keys as well.
  guard() {
    this.isGuarded = this.root.isConnected;
    const panels = ".lipsync-keys, .lipsync-studio";
    for (let at = this.root.closest(panels); at; at = at.parentElement.closest(panels)) keep_keys(at);
  }

  tick() {
    if (!this.isGuarded) this.guard();
    if (this.stream === null) return;
    this.ask_if_lost();
    if (!this.source) return;
    this.feed();
    const ahead = this.ahead(), wait = this.wait(), isWhole = this.hasAll() && !this.queue.length;
    if (!this.isGoing && !this.video.ended && (isWhole ? ahead > 0 : ahead >= CUSHION_SECONDS && wait === 0)) {
      this.go();
    } else if (this.isGoing && !isWhole && ahead < LOW_SECONDS) {
      this.hold();
    }
    this.tell(wait);
    const now = performance.now();
    if (now - this.reported > REPORT_MS) this.report(now);
  }

  go() {
    this.isGoing = true;
    this.root.hidden = false;
    if (this.isHeldByUser) return;
    this.video.play().catch((error) => {
      if (error.name !== "NotAllowedError") return;
      // Sound needs a click in the page first.
      this.isHeldByUser = true;
      this.needsClick = true;
    });
  }

  hold() {
    this.isGoing = false;
    this.stalls += 1;
    // What stands already tells of no pause, and the person's next one would be taken for ours.
    this.isOwnPause = !this.video.paused;
    this.video.pause();
  }

  on_pause() {
    if (!this.source) return;   // of the stream before
    if (!this.isOwnPause && !this.video.ended) this.isHeldByUser = true;
    this.isOwnPause = false;
    this.report(performance.now());
  }

  on_play() {
    this.isHeldByUser = this.needsClick = false;
    if (!this.isGoing && !this.hasAll()) {
      this.isOwnPause = true;
      this.video.pause();
    }
  }

  on_playing() {
    if (!this.hasTold) this.model.send({ kind: "playing", stream: this.stream });
    this.hasTold = true;
  }

  on_ended() {
    this.isEnded = true;
    this.tell(0);
    this.model.send({ kind: "ended", stream: this.stream });
  }

  on_seeking() {
    // What is no longer, or not yet there cannot be played.
    const ranges = this.video.buffered;
    if (!ranges.length) return;
    const first = ranges.start(0), last = ranges.end(ranges.length - 1);
    const wanted = Math.min(Math.max(this.video.currentTime, first), last);
    if (Math.abs(wanted - this.video.currentTime) > 0.05) this.video.currentTime = wanted;
  }

  report(now) {
    this.reported = now;
    if (this.stream === null) return;
    this.model.send({
      kind: "report", stream: this.stream, next: this.next, played_seconds: this.video.currentTime,
      buffered_seconds: this.ahead(), is_playing: !this.video.paused, stalls: this.stalls,
    });
  }

  // ---- what is said

  tell(wait) {
    const speed = this.speed, made = speed ? speed.made_seconds : 0;
    if (this.isEnded) { this.mark("ended"); return this.say(""); }
    if (this.needsClick) { this.mark("blocked"); return this.say("Press play: this browser starts no sound by itself."); }
    if (this.isGoing) {
      this.mark(this.video.paused ? "paused" : "playing");
      return this.say(this.hasAll() ? "" : `played while it is rendered: ${made.toFixed(1)} of ${speed.total_seconds.toFixed(1)} s are made`);
    }
    this.mark("waiting");
    if (!speed || speed.made_seconds < 0.5) return this.say("");
    const slower = speed.fps < speed.shown_fps
      ? `Rendering at ${speed.fps.toFixed(1)} FPS, slower than the ${+speed.shown_fps.toFixed(2)} it is shown at: ` : "Rendering: ";
    const again = this.stalls ? "goes on" : "plays";
    this.say(`${slower}${again} in about ${Math.ceil(wait)} s, and then without a stop.`);
    this.root.hidden = false;
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  mark(state) {
    this.root.dataset.state = state;
    this.root.dataset.stalls = this.stalls;
    this.root.dataset.hasBegun = this.hasTold;
  }
}

function render({ model, el }) {
  const player = new Player(model, el);
  const listen = (message, buffers) => player.on_message(message, buffers);
  model.on("msg:custom", listen);
  return () => {
    model.off("msg:custom", listen);
    player.close();
  };
}

export default { render };
