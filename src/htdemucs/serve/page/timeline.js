/** The visible part of a track, and the gestures that move it. */

const MIN_SPAN = 44_100; // frames that are visible at the closest zoom, about a second
const WHEEL_ZOOM = 1.0015; // zoom factor for each pixel of the wheel
const CLICK_TOLERANCE = 5; // pixels; a longer movement is a drag
const MIN_PINCH = 20; // pixels between two fingers

export class Timeline extends EventTarget {
  length = 1; // frames of the track
  from = 0; // the first visible frame
  span = 1; // number of visible frames

  /** Whether the whole track is visible. */
  get whole() {
    return this.span >= this.length;
  }

  /** Set the track's length; if the whole track was visible, it stays so. */
  setLength(length) {
    if (length === this.length) return;
    const whole = this.whole;
    this.length = Math.max(1, length);
    this.show(whole ? 0 : this.from, whole ? this.length : this.span);
  }

  show(from, span) {
    this.span = Math.min(this.length, Math.max(Math.min(MIN_SPAN, this.length), span));
    this.from = Math.max(0, Math.min(this.length - this.span, from));
    this.dispatchEvent(new Event("change"));
  }

  /** Zoom in by a factor above 1, or out by one below; `frame` stays where it is on the screen. */
  zoom(factor, frame) {
    const span = Math.min(this.length, Math.max(MIN_SPAN, this.span / factor));
    this.show(frame - ((frame - this.from) * span) / this.span, span);
  }

  /** Scroll to the playhead's frame if it has left the visible part. */
  follow(frame) {
    if (frame < this.from || frame > this.from + this.span) this.show(frame - 0.05 * this.span, this.span);
  }

  /** Return where a frame is, as a fraction of the width. */
  fraction = (frame) => (frame - this.from) / this.span;

  /** Return the frame at a fraction of the width. */
  frameAt = (fraction) => this.from + fraction * this.span;
}

/**
 * Add gestures to an element that shows the timeline.
 *
 * A click calls onSeek(frame). Dragging the mouse calls onSelect({from, to}, done); dragging a
 * finger does so with `touchSelects`, and otherwise scrolls. Two fingers zoom. The wheel scrolls
 * sideways, and zooms with Ctrl.
 */
export function addGestures(target, timeline, { onSeek, onSelect }, { touchSelects }) {
  const pointers = new Map(); // pointer id -> x in pixels
  let drag = null; // {frame, x, from, moved}: where it began
  const width = () => target.getBoundingClientRect().width;
  const frameAt = (x) => {
    const box = target.getBoundingClientRect();
    return timeline.frameAt(Math.min(1, Math.max(0, (x - box.left) / box.width)));
  };
  const selects = (event) => touchSelects || event.pointerType === "mouse";
  const selection = (event) => {
    const [from, to] = [drag.frame, frameAt(event.clientX)].sort((a, b) => a - b);
    return { from, to };
  };

  const pinch = (event) => {
    const distance = ([a, b]) => Math.max(MIN_PINCH, Math.abs(a - b));
    const before = distance([...pointers.values()]);
    pointers.set(event.pointerId, event.clientX);
    const [a, b] = pointers.values();
    timeline.zoom(distance([a, b]) / before, frameAt((a + b) / 2));
    drag.moved = true;
  };

  target.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    target.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event.clientX);
    const x = event.clientX;
    drag = { frame: frameAt(x), x, from: timeline.from, moved: pointers.size > 1 };
  });
  target.addEventListener("pointermove", (event) => {
    if (!drag || !pointers.has(event.pointerId)) return;
    if (pointers.size === 2) {
      pinch(event);
      return;
    }
    if (Math.abs(event.clientX - drag.x) > CLICK_TOLERANCE) drag.moved = true;
    if (!drag.moved) return;
    if (selects(event)) {
      onSelect(selection(event), false);
    } else {
      const moved = ((event.clientX - drag.x) / width()) * timeline.span;
      timeline.show(drag.from - moved, timeline.span);
    }
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId) || !drag || pointers.size > 0) return;
    const selected = selection(event);
    const { moved, frame } = drag;
    drag = null;
    if (event.type === "pointercancel") return;
    if (!moved) onSeek(frame);
    else if (selects(event)) onSelect(selected, true);
  };
  target.addEventListener("pointerup", release);
  target.addEventListener("pointercancel", release);
  target.addEventListener(
    "wheel",
    (event) => {
      const sideways = event.shiftKey ? event.deltaY : event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        timeline.zoom(WHEEL_ZOOM ** -event.deltaY, frameAt(event.clientX));
      } else if (sideways && !timeline.whole) {
        timeline.show(timeline.from + (sideways / width()) * timeline.span, timeline.span);
      } else {
        return;
      }
      event.preventDefault();
    },
    { passive: false },
  );
}
