// The command that shows a function's source with its times.
import { quoteForShell } from "./text.ts";

/** `go tool pprof -list` takes a regular expression: the name as it is, and nothing else. */
export function writeListCommand(name: string, url: string): string {
  const pattern = `^${name.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&")}$`;
  return `go tool pprof -list ${quoteForShell(pattern)} ${quoteForShell(url)}`;
}
