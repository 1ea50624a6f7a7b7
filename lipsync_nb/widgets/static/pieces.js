// Sends a file to the kernel in numbered pieces, a few of them on the way at a time; the kernel
// answers with the number that it expects next. What is lost is sent again. The kernel counts and
// sums all bytes, and says whether it has the file.
//
// To the kernel:     begin {id, name, size} · piece {id, number} + buffer · end {id, count, crc} · stop {id}
// From the kernel:   next {id, next} · arrived {id} · refused {id, text}

const PIECE_BYTES = 512 * 1024, ON_THE_WAY = 4, AGAIN_MS = 5000;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

// CRC-32 as zlib has it; it goes on from the one of what came before.
function crc32(bytes, crc) {
  crc = ~crc;
  for (let k = 0; k < bytes.length; k++) crc = CRC_TABLE[(crc ^ bytes[k]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

class Sending {
  // on_change(this) is called whenever `sent`, `state` or `text` changed.
  constructor(model, blob, name, on_change) {
    Object.assign(this, { model, blob, name, on_change, sent: 0, state: "sending", text: "" });
    this.id = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    this.count = Math.ceil(blob.size / PIECE_BYTES);
    this.next = this.acknowledged = this.crc = 0;
    this.summed = 0;              // pieces whose bytes the sum has
    this.isBegun = this.isReading = false;
    this.listen = (message, buffers) => this.on_message(message);
    model.on("msg:custom", this.listen);
    this.heard = performance.now();
    this.timer = setInterval(() => this.watch(), 1000);
    this.begin();
  }

  begin() {
    this.post({ kind: "begin", id: this.id, name: this.name, size: this.blob.size });
  }

  post(message, buffers) {
    try {
      this.model.send(message, undefined, buffers);
    } catch (error) {
      this.finish("failed", `The connection to the kernel is broken (${error.message}): ${this.name} did not arrive.`);
    }
  }

  on_message(message) {
    if (message.id !== this.id || this.state !== "sending") return;
    this.heard = performance.now();
    if (message.kind === "arrived") return this.finish("arrived", "");
    if (message.kind === "refused") return this.finish("failed", message.text);
    if (message.kind !== "next") return;
    this.isBegun = true;
    this.text = "";
    this.acknowledged = message.next;
    if (message.is_gap) this.next = message.next;
    this.sent = Math.min(this.blob.size, message.next * PIECE_BYTES);
    this.on_change(this);
    this.more();
  }

  async more() {
    if (this.isReading) return;
    this.isReading = true;
    try {
      while (this.state === "sending" && this.next < this.count && this.next < this.acknowledged + ON_THE_WAY) {
        const number = this.next++;
        const part = this.blob.slice(number * PIECE_BYTES, (number + 1) * PIECE_BYTES);
        const content = await part.arrayBuffer();
        if (number === this.summed) {
          this.crc = crc32(new Uint8Array(content), this.crc);
          this.summed++;
        }
        if (this.state === "sending") this.post({ kind: "piece", id: this.id, number }, [content]);
      }
    } catch (error) {
      this.finish("failed", `${this.name} cannot be read (${error.message}).`);
    }
    this.isReading = false;
    if (this.state === "sending" && this.acknowledged >= this.count) this.end();
  }

  end() {
    this.post({ kind: "end", id: this.id, count: this.count, crc: this.crc });
  }

  watch() {
    if (performance.now() - this.heard < AGAIN_MS) return;
    this.heard = performance.now();
    this.text = `No answer from the kernel: it is busy, or the connection is broken. ${this.name} has not arrived yet.`;
    this.on_change(this);
    // It may be that what was on its way is lost.
    if (!this.isBegun) return this.begin();
    if (this.acknowledged >= this.count) return this.end();
    this.next = this.acknowledged;
    this.more();
  }

  stop() {
    this.post({ kind: "stop", id: this.id });
    this.finish("stopped", `${this.name} was not sent.`);
  }

  finish(state, text) {
    if (this.state !== "sending") return;
    clearInterval(this.timer);
    this.model.off("msg:custom", this.listen);
    Object.assign(this, { state, text });
    this.on_change(this);
  }
}

// ---- small parts that both widgets have

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Keys typed here are the widget's, not the notebook's: JupyterLab asks the control that has the
// focus, and no one above it.
function guarded(root) {
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
  return root;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
