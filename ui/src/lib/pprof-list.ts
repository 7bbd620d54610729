// Builds the command that shows a function's source with CPU time by line.
import { quoteForShell } from "./text.ts";

/** `go tool pprof -list` takes a regular expression, so the name is escaped and anchored. */
export function writeListCommand(name: string, url: string): string {
  const pattern = `^${name.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")}$`;
  return `go tool pprof -list ${quoteForShell(pattern)} ${quoteForShell(url)}`;
}
