// The context menu of a box: right click, the menu key, or Shift+F10.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { FunctionId } from "../api/routes.ts";
import { levelSuffix } from "../lib/flame-fold.ts";
import { CUT_FRAME, listAncestors, nameOf, type FlameTree } from "../lib/flame-tree.ts";
import { exactSearch } from "../lib/search.ts";

export interface FlameMenuProps {
  tree: FlameTree;
  node: number;
  x: number;
  y: number;
  onZoom(node: number): void;
  onSearch(search: string): void;
  onFilter(filter: string): void;
  onLines(of: FunctionId): void;
  onClose(): void;
}

interface Item {
  label: string;
  run(): void;
}

function copy(text: string): void {
  // There is no clipboard outside of a secure context.
  void navigator.clipboard?.writeText(text).catch(() => undefined);
}

function listItems({ tree, node, onZoom, onSearch, onFilter, onLines }: FlameMenuProps): Item[] {
  const frame = tree.frame[node]!;
  const stack = listAncestors(tree, node).slice(1).map((at) => nameOf(tree, at) + levelSuffix(tree, at));
  if (frame < 0) return [{ label: frame === CUT_FRAME ? "Fetch and draw them" : "Show everything", run: () => onZoom(node) }];
  const name = tree.frames.name[frame]!;
  const binary = tree.frames.binary[frame]!;
  const file = tree.frames.file[frame]!;
  const items: Item[] = [
    { label: "Zoom to this", run: () => onZoom(node) },
    { label: "Highlight this function everywhere", run: () => onSearch(exactSearch(name, binary)) },
    { label: "Find in the table", run: () => onFilter(name) },
    ...(file !== "" ? [{ label: "Time by line", run: () => onLines({ name, binary, file }) }] : []),
    { label: "Copy name", run: () => copy(name) },
    { label: "Copy stack", run: () => copy(stack.join("\n")) },
  ];
  const line = tree.frames.line[frame]!;
  if (file !== "") items.push({ label: "Copy file and line", run: () => copy(line > 0 ? `${file}:${line}` : file) });
  const buildId = tree.frames.unnamed.get(frame)?.buildId ?? "";
  if (buildId !== "") items.push({ label: "Copy build id", run: () => copy(buildId) });
  return items;
}

export function FlameMenu(props: FlameMenuProps): JSX.Element {
  const { x, y, onClose } = props;
  const menu = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState({ left: x, top: y });
  useLayoutEffect(() => {
    const { width, height } = menu.current!.getBoundingClientRect();
    setPlace({ left: Math.max(4, Math.min(x, window.innerWidth - width - 4)), top: Math.max(4, Math.min(y, window.innerHeight - height - 4)) });
    menu.current!.querySelector("button")?.focus();
  }, [x, y]);
  useEffect(() => {
    const onPointer = (event: Event): void => {
      if (!menu.current?.contains(event.target as Node)) onClose();
    };
    document.addEventListener("pointerdown", onPointer);
    return () => document.removeEventListener("pointerdown", onPointer);
  }, [onClose]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const buttons = [...menu.current!.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (event.key === "Escape" || event.key === "Tab") onClose();
    else if (event.key === "ArrowDown") buttons[(at + 1) % buttons.length]?.focus();
    else if (event.key === "ArrowUp") buttons[(at - 1 + buttons.length) % buttons.length]?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" role="menu" aria-label="Actions on this function" ref={menu} style={{ left: `${place.left}px`, top: `${place.top}px` }} onKeyDown={onKeyDown}>
      {listItems(props).map((item) => (
        <button
          type="button"
          role="menuitem"
          key={item.label}
          onClick={() => {
            item.run();
            onClose();
          }}
        >
          {item.label}
        </button>
      ))}
    </div>
  );
}
