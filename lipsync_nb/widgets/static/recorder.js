// The microphone: record, see how loud it is, stop; the recording goes to the kernel as a file.

const KINDS = { "audio/webm;codecs=opus": "webm", "audio/ogg;codecs=opus": "ogg", "audio/mp4": "m4a" };
const LONGEST_SECONDS = 600;

// Why there is no sound, in one sentence.
function why(error) {
  if (error.name === "NotAllowedError") return "The browser may not use the microphone: allow it for this page, and press Record again.";
  if (error.name === "NotFoundError") return "No microphone was found on this computer.";
  if (error.name === "NotReadableError") return "The microphone cannot be opened: another program may use it.";
  return `The microphone cannot be used (${error.message || error.name}).`;
}

function why_never() {
  if (!window.isSecureContext) return "A microphone needs a page that is opened over https, or on this computer (localhost).";
  if (!navigator.mediaDevices || typeof MediaRecorder === "undefined") return "This browser cannot record sound.";
  return "";
}

function render({ model, el }) {
  let sending = null, recorder = null, timer = null, context = null, wanted = false, isClosed = false;
  const record = made("button", { className: "lipsync-button", textContent: "Record",
    title: "Record with the microphone; what was recorded before is replaced" });
  const stop = made("button", { className: "lipsync-button", textContent: "Stop",
    title: "End the recording and use it", hidden: true });
  const level = made("meter", { min: 0, max: 1, low: 0.02, high: 0.9, optimum: 0.3, hidden: true,
    title: "How loud the microphone hears you" });
  level.setAttribute("aria-label", "how loud the microphone hears you");
  const text = made("div", { className: "lipsync-status" });
  text.setAttribute("role", "status");
  const root = guarded(made("div", { className: "lipsync-recorder" }, record, stop, level, text));
  el.append(root);

  function say(state, words, is_error) {
    root.dataset.state = state;
    text.textContent = words;
    text.classList.toggle("lipsync-error", Boolean(is_error));
  }

  function idle() {
    record.hidden = false;
    stop.hidden = level.hidden = true;
  }

  function changed(now) {
    if (now !== sending) return;
    if (now.state === "sending") say("sending", now.text || "sending the recording", now.text !== "");
    if (now.state === "failed") say("failed", now.text, true);
    if (now.state === "arrived") {
      say("arrived", "");
      record.textContent = "Record again";
    }
  }

  // Shows the level and the time until the recording ends.
  function watch(stream) {
    context = new AudioContext();
    const heard = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(heard);
    const samples = new Float32Array(heard.fftSize), start = performance.now();
    timer = setInterval(() => {
      heard.getFloatTimeDomainData(samples);
      level.value = Math.max(...samples.map(Math.abs));
      const seconds = (performance.now() - start) / 1000;
      say("recording", `${seconds.toFixed(1)} s`);
      if (seconds > LONGEST_SECONDS) recorder.stop();
    }, 100);
  }

  function release(stream) {
    clearInterval(timer);
    if (context) context.close();
    context = null;
    for (const track of stream.getTracks()) track.stop();
  }

  async function start() {
    if (wanted || (sending && sending.state === "sending")) return;
    wanted = true;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return say("failed", why(error), true);
    } finally {
      wanted = false;
    }
    // Meanwhile the widget may have been taken from the page: nobody could stop it.
    if (isClosed) return release(stream);
    const kind = Object.keys(KINDS).find((name) => MediaRecorder.isTypeSupported(name));
    const parts = [];
    try {
      recorder = new MediaRecorder(stream, kind ? { mimeType: kind } : {});
    } catch (error) {
      release(stream);
      return say("failed", why(error), true);
    }
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      release(stream);
      idle();
      sending = new Sending(model, new Blob(parts), `recording.${KINDS[kind] || "webm"}`, changed);
      changed(sending);
    });
    recorder.start();
    record.hidden = true;
    stop.hidden = level.hidden = false;
    stop.focus();
    watch(stream);
  }

  record.addEventListener("click", start);
  stop.addEventListener("click", () => recorder.stop());
  const never = why_never();
  if (never) {
    record.disabled = true;
    say("failed", never, true);
  }
  return () => {
    isClosed = true;
    if (recorder && recorder.state === "recording") recorder.stop();
  };
}

export default { render };
