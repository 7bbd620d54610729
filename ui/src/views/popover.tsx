// A button that opens a panel below it. Escape, a click outside and moving the focus outside close
// the panel.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface PopoverProps {
  class?: string;
  /** The button's content. */
  button: ComponentChildren;
  /** The button's accessible name, if its content is not enough. */
  label?: string;
  title?: string;
  align?: "start" | "end";
  children: (close: () => void) => ComponentChildren;
}

export function Popover({ class: className = "", button, label, title, align = "start", children }: PopoverProps): JSX.Element {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const panel = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!open) return;
    const onPointer = (event: Event): void => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", onPointer);
    return () => document.removeEventListener("pointerdown", onPointer);
  }, [open]);

  // Keep a large panel within the window.
  useLayoutEffect(() => {
    const top = panel.current?.getBoundingClientRect().top;
    if (top !== undefined) panel.current!.style.setProperty("--room", `${window.innerHeight - top - 12}px`);
  }, [open]);

  const close = (): void => {
    setOpen(false);
    opener.current?.focus();
  };
  return (
    <div
      class={`popover ${className}`}
      ref={root}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !open) return;
        event.stopPropagation();
        close();
      }}
      onFocusOut={(event) => {
        const next = event.relatedTarget as Node | null;
        if (next && !root.current?.contains(next)) setOpen(false);
      }}
    >
      <button type="button" class="popover-button" ref={opener} aria-expanded={open} aria-haspopup="dialog" aria-label={label} title={title} onClick={() => setOpen(!open)}>
        {button}
      </button>
      {open && (
        <div class={`popover-panel popover-${align}`} ref={panel} role="dialog" aria-label={label ?? title}>
          {children(close)}
        </div>
      )}
    </div>
  );
}
