// Words for how far the server is with a question.
import type { QuestionProgress } from "../api/shapes.ts";
import { formatCount, formatNumberOf } from "../lib/format.ts";

export interface ProgressText {
  text: string;
  /** The part that is done, by the bytes that are read; null while it is not known. */
  share: number | null;
}

export function describeProgress({ state, position, segments, segments_read: read, bytes, bytes_read: bytesRead }: QuestionProgress): ProgressText {
  switch (state) {
    case "waiting":
      return { text: position > 0 ? `Waiting for other queries: place ${formatCount(position)} in the server's queue` : "Waiting for the server", share: null };
    case "reading":
      if (segments === 0) return { text: "Reading profiles", share: null };
      return { text: `Reading profiles: ${formatCount(read)} of ${formatNumberOf(segments, "segment")}`, share: bytesRead / Math.max(1, bytes) };
    case "rendering":
      return { text: `${formatNumberOf(segments, "segment")} read, preparing the answer`, share: 1 };
    case "unknown":
      return { text: "Receiving the answer", share: 1 };
  }
}
