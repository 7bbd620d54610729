import { describe, expect, it } from "vitest";
import { compareRatio, listMatchers, nameContainer, splitMatchers, type Labels } from "../../src/lib/containers.ts";
import { formatSelector, parseSelector } from "../../src/lib/selector.ts";

const ID = "9e07f1c2".repeat(8);

describe("a row", () => {
  it.each<[string, Labels, string, string]>([
    ["container of a pod", { namespace: "shop", pod: "cart-1", container: "app", node: "a", image: "cart:1" }, "app", '{namespace="shop", pod="cart-1", container="app"}'],
    ["pod's sandbox", { namespace: "shop", pod: "cart-1", node: "a" }, "", '{namespace="shop", pod="cart-1", container=""}'],
    ["container without a name yet", { namespace: "shop", pod: "cart-1", container_id: ID, node: "a" }, ID.slice(0, 12), `{namespace="shop", pod="cart-1", container_id="${ID}"}`],
    ["container outside of pods", { container_id: ID, node: "a" }, ID.slice(0, 12), `{node="a", container_id="${ID}"}`],
    ["unit", { unit: "kubelet.service", node: "a" }, "kubelet.service", '{node="a", unit="kubelet.service"}'],
    ["row whose labels relabelling dropped", { node: "a" }, "", '{node="a"}'],
  ])("of a %s has a name and the matchers that select it", (_, labels, name, selector) => {
    expect(nameContainer(labels)).toBe(name);
    expect(formatSelector(listMatchers(labels))).toBe(selector);
  });
});

it("separates matchers of processes", () => {
  const { matchers } = parseSelector('{comm="sh", pod!="x", exe=~".*"}');
  const { ofContainers, ofProcesses } = splitMatchers(matchers!);
  expect(formatSelector(ofContainers)).toBe('{pod!="x"}');
  expect(formatSelector(ofProcesses)).toBe('{comm="sh", exe=~".*"}');
});

it("takes a ratio within three standard deviations of 1 for chance", () => {
  expect(compareRatio({ ratio: 1.18, ratio_deviation: 0.063 })).toBe("equal");
  expect(compareRatio({ ratio: 1.2, ratio_deviation: 0.063 })).toBe("more");
  expect(compareRatio({ ratio: 0.82, ratio_deviation: 0.063 })).toBe("equal");
  expect(compareRatio({ ratio: 0.8, ratio_deviation: 0.063 })).toBe("less");
  expect(compareRatio({ ratio: null, ratio_deviation: null })).toBe("equal");
});
