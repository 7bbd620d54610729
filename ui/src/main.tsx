// Starts the page: passes the browser's objects to the session, and renders the app.
import { render } from "preact";
import { createSession } from "./state/session.ts";
import { App } from "./views/app.tsx";
import "./views/style.css";

function openStorage(): Storage | null {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

const session = createSession({
  location: window.location,
  history: window.history,
  storage: openStorage(),
  onBack: (listener) => window.addEventListener("popstate", listener),
});

render(<App session={session} />, document.getElementById("app")!);
