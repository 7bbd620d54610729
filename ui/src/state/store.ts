// The smallest store that serves: one value, replaced as a whole, and who wants to know.

export interface Store<T> {
  get(): T;
  /** Merges the patch into the value and tells the listeners, unless nothing changed. */
  set(patch: Partial<T>): void;
  /** Returns the function that ends it. */
  subscribe(listener: () => void): () => void;
}

export function createStore<T extends object>(initial: T): Store<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(patch) {
      const keys = Object.keys(patch) as (keyof T)[];
      if (keys.every((key) => Object.is(value[key], patch[key]))) return;
      value = { ...value, ...patch };
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
