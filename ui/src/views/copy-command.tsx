// A command or text with a button that copies it.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Icon } from "./icons.tsx";

/** `copied` is true for a moment after the text was copied. */
function useCopy(text: string): { copied: boolean; copy(): void } {
  const [copied, setCopied] = useState(false);
  return {
    copied,
    copy() {
      navigator.clipboard?.writeText(text).then(() => setCopied(true), () => setCopied(false));
    },
  };
}

export function CopyCommand({ command }: { command: string }): JSX.Element {
  const { copied, copy } = useCopy(command);
  return (
    <div class="command">
      <code tabIndex={0}>{command}</code>
      <button type="button" class="primary" onClick={copy}><Icon name="copy" /> {copied ? "Copied" : "Copy"}</button>
    </div>
  );
}

/** A short text inside a line. */
export function CopyText({ text, label }: { text: string; label: string }): JSX.Element {
  const { copied, copy } = useCopy(text);
  return (
    <span class="copy-text">
      <code>{text}</code>
      <button type="button" class="link" aria-label={`Copy the ${label}`} onClick={copy}><Icon name="copy" /> {copied ? "Copied" : "Copy"}</button>
    </span>
  );
}
