// A hook for stores.
import { useEffect, useState } from "preact/hooks";
import type { Store } from "../state/store.ts";

/** Returns the store's value; renders again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [value, setValue] = useState(store.get);
  useEffect(() => {
    const update = (): void => setValue(() => store.get());
    update();
    return store.subscribe(update);
  }, [store]);
  return value;
}
