/** The part of a track that is looked at, and how hands move it. */

const CLOSEST = 44_100; // frames that fill the width at the closest zoom: about a second
const WHEEL = 1.0015; // zoom for a pixel of the wheel
const STILL = 5; // pixels below which a drag is a click

export class Timeline extends EventTarget {
  length = 1; // frames of the track
  from = 0; // the first frame that is seen
  span = 1; // frames that are seen

  get whole() {
    return this.span >= this.length;
  }

  /** Take a track's length; a view of everything stays one. */
  setLength(length) {
    if (length === this.length) return;
    const whole = this.whole;
    this.length = Math.max(1, length);
    this.show(whole ? 0 : this.from, whole ? this.length : this.span);
  }

  show(from, span) {
    this.span = Math.min(this.length, Math.max(Math.min(CLOSEST, this.length), span));
    this.from = Math.max(0, Math.min(this.length - this.span, from));
    this.dispatchEvent(new Event("change"));
  }

  /** Zoom in by a factor above 1, or out; the frame `at` stays where it is. */
  zoom(factor, at) {
    const span = Math.min(this.length, Math.max(CLOSEST, this.span / factor));
    this.show(at - ((at - this.from) * span) / this.span, span);
  }

  /** Turn the page when a frame that plays has left the view. */
  follow(frame) {
    if (frame < this.from || frame > this.from + this.span) this.show(frame - 0.05 * this.span, this.span);
  }

  /** Return where a frame is, as a fraction of the width. */
  fraction = (frame) => (frame - this.from) / this.span;
  frameAt = (fraction) => this.from + fraction * this.span;
}

/**
 * Let hands work on an element that shows the time line.
 *
 * A click seeks. A mouse's drag selects, and so does a finger's where `draws` says so; elsewhere
 * that moves the view. Two fingers zoom. The wheel scrolls sideways, and zooms with Ctrl.
 */
export function handle(target, timeline, { seek, select }, draws) {
  const pointers = new Map();
  let start = null; // {frame, x, from, moved}
  const place = (event) => {
    const box = target.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const selects = (event) => draws || event.pointerType === "mouse";
  const width = () => target.getBoundingClientRect().width;

  const pinch = (event) => {
    const before = [...pointers.values()];
    pointers.set(event.pointerId, event.clientX);
    const after = [...pointers.values()];
    const apart = ([a, b]) => Math.max(20, Math.abs(a - b));
    const middle = place({ clientX: (after[0] + after[1]) / 2 });
    timeline.zoom(apart(after) / apart(before), timeline.frameAt(middle));
    start.moved = true;
  };

  target.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    target.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event.clientX);
    const frame = timeline.frameAt(place(event));
    start = { frame, x: event.clientX, from: timeline.from, moved: pointers.size > 1 };
  });
  target.addEventListener("pointermove", (event) => {
    if (!start || !pointers.has(event.pointerId)) return;
    if (pointers.size === 2) {
      pinch(event);
      return;
    }
    if (Math.abs(event.clientX - start.x) > STILL) start.moved = true;
    if (!start.moved) return;
    if (selects(event)) {
      const ends = [start.frame, timeline.frameAt(place(event))].sort((a, b) => a - b);
      select({ from: ends[0], to: ends[1] }, false);
    } else {
      const moved = ((event.clientX - start.x) / width()) * timeline.span;
      timeline.show(start.from - moved, timeline.span);
    }
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId) || !start || pointers.size > 0) return;
    const ends = [start.frame, timeline.frameAt(place(event))].sort((a, b) => a - b);
    const { moved, frame } = start;
    start = null;
    if (event.type === "pointercancel") return;
    if (!moved) seek(frame);
    else if (selects(event)) select({ from: ends[0], to: ends[1] }, true);
  };
  target.addEventListener("pointerup", release);
  target.addEventListener("pointercancel", release);
  target.addEventListener(
    "wheel",
    (event) => {
      const sideways = event.shiftKey ? event.deltaY : event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        timeline.zoom(WHEEL ** -event.deltaY, timeline.frameAt(place(event)));
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
