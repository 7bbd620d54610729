// Stores as hooks.
import { useEffect, useState } from "preact/hooks";
import type { Store } from "../state/store.ts";

/** The store's value; the view is drawn again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [value, setValue] = useState(store.get);
  useEffect(() => {
    const update = (): void => setValue(() => store.get());
    update();
    return store.subscribe(update);
  }, [store]);
  return value;
}
