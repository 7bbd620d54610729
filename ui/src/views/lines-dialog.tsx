// A dialog with one function's CPU time by source line.
import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { FunctionId, Selection } from "../api/routes.ts";
import type { LinesAnswer, LineSum } from "../api/shapes.ts";
import { formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { baseName, cutName, showUnsafe } from "../lib/text.ts";
import { createLines } from "../state/panels.ts";
import { CopyCommand } from "./copy-command.tsx";
import { Icon } from "./icons.tsx";
import { Loading } from "./question-progress.tsx";
import { useAnswer } from "./use-answer.ts";

export interface LinesDialogProps {
  of: FunctionId;
  selection: Selection;
  /** The command that shows the source, quoted for a shell. */
  listCommand: string;
  onClose(): void;
}

export function LinesDialog({ of, selection, listCommand, onClose }: LinesDialogProps): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const { answer, failed, progress } = useAnswer(createLines, { selection, of }, [selection, of]);
  useLayoutEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog
      class="lines"
      ref={dialog}
      aria-labelledby="lines-title"
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div class="lines-body">
        <header class="lines-head">
          <h2 id="lines-title"><bdi>{cutName(of.name).text}</bdi></h2>
          <span class="spacer" />
          <button type="button" class="tool" aria-label="Close" title="Escape" onClick={() => dialog.current!.close()}><Icon name="close" /></button>
        </header>
        <p class="card-place"><bdi>{showUnsafe(of.file)}</bdi>{answer !== null && answer.start_line > 0 && `:${answer.start_line}`} · <bdi>{showUnsafe(baseName(of.binary))}</bdi></p>
        {failed && <p class="warn" role="alert">Not up to date: {failed}</p>}
        {answer ? <LineTable answer={answer} /> : !failed && <Loading progress={progress} />}
        <p class="muted lines-note">Where the source files are available, this command shows the text of each line:</p>
        <CopyCommand command={listCommand} />
      </div>
    </dialog>
  );
}

function LineTable({ answer }: { answer: LinesAnswer }): JSX.Element {
  const largest = Math.max(1, ...answer.lines.map(({ self_ns: ns }) => ns));
  const hidden = answer.count - answer.lines.length;
  return (
    <>
      <p>
        {formatDuration(answer.self_ns)} in the function itself ({formatPercent(answer.self_ns / answer.all_ns)} of everything selected),{" "}
        {formatDuration(answer.total_ns)} with all it called ({formatPercent(answer.total_ns / answer.all_ns)}).
      </p>
      <div class="lines-scroller" tabIndex={0} role="region" aria-label="Time by line">
        <table class="stops">
          <thead><tr><th class="number">Line</th><th>Self</th><th class="number" title="Share of the function's self time">of Self</th><th class="number" title="Time in the line and in its callees">Total</th><th class="number">Samples</th></tr></thead>
          <tbody>
            {answer.lines.map((sum) => <LineRow key={`${sum.file}:${sum.line}`} sum={sum} answer={answer} largest={largest} />)}
          </tbody>
        </table>
        {answer.count === 0 && <p class="muted">The selection has no samples in this function any more.</p>}
      </div>
      {hidden > 0 && <p class="muted">{formatNumberOf(hidden, "line")} with less time left out.</p>}
    </>
  );
}

function LineRow({ sum, answer, largest }: { sum: LineSum; answer: LinesAnswer; largest: number }): JSX.Element {
  return (
    <tr>
      <td class="number" title={showUnsafe(sum.file)}>{sum.line > 0 ? sum.line : <span class="muted">no line</span>}</td>
      <td class="lines-self"><span class="lines-bar" style={{ "--share": sum.self_ns / largest }} /><span>{sum.self_ns === 0 ? <span class="muted">–</span> : formatDuration(sum.self_ns)}</span></td>
      <td class="number">{sum.self_ns === 0 ? "" : formatPercent(sum.self_ns / answer.self_ns)}</td>
      <td class="number">{formatDuration(sum.total_ns)}</td>
      <td class="number muted">{formatNumberOf(sum.total_samples, "sample")}</td>
    </tr>
  );
}
