// The requests of the panels and dialogs, each sent while its panel is open.
import { fetchContainers, fetchLines, fetchStacks, fetchUnknown, type FunctionId, type Selection } from "../api/routes.ts";
import type { ContainersAnswer, LinesAnswer, StacksAnswer, UnknownAnswer } from "../api/shapes.ts";
import type { ContainerSort } from "../lib/url-state.ts";
import { createAnswer, type Answer } from "./answer.ts";

export interface LinesQuery {
  selection: Selection;
  of: FunctionId;
}

/** Rows of the table; the server sums up the others. */
const CONTAINER_ROWS = 200;

export interface ContainersQuery {
  selection: Selection;
  sort: ContainerSort;
}

export function createContainers(): Answer<ContainersQuery, ContainersAnswer> {
  return createAnswer(({ selection, sort }, asking) => fetchContainers(selection, { sort, limit: CONTAINER_ROWS }, asking));
}

export function createStacks(): Answer<Selection, StacksAnswer> {
  return createAnswer(fetchStacks);
}

export function createUnknown(): Answer<Selection, UnknownAnswer> {
  return createAnswer(fetchUnknown);
}

export function createLines(): Answer<LinesQuery, LinesAnswer> {
  return createAnswer(({ selection, of }, asking) => fetchLines(selection, of, asking));
}
