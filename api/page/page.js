"use strict";
// Polls for the last records and shows them. Whatever senders wrote goes through textContent, never into markup.

const POLL_MS = 1000;
const AWAY_POLL_MS = 2000;
const TOKEN_KEY = "tailrace-read-token";
const SQL = `SELECT start_timestamp, level, service_name, message, duration, kind, trace_id
FROM records ORDER BY start_timestamp DESC LIMIT 50`;
const LEVELS = [[21, "fatal"], [17, "error"], [13, "warn"], [10, "notice"], [9, "info"], [5, "debug"], [0, "trace"]];

const settings = JSON.parse(document.getElementById("settings").textContent);
const at = (id) => document.getElementById(id);

function setState(state, text) {
  at("state").dataset.state = state;
  if (at("state-text").textContent !== text) at("state-text").textContent = text;
}

function showProblem(title, text, askToken) {
  at("problem").hidden = !title;
  at("problem-title").textContent = title || "";
  at("problem-text").textContent = text || "";
  at("token-form").hidden = !askToken;
}

async function ask() {
  const headers = { "content-type": "application/json", "tailrace-project": settings.project };
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token) headers.authorization = `Bearer ${token}`;
  const body = JSON.stringify({ sql: SQL, limit: 50 });
  return fetch("/v2/query", { method: "POST", headers, body });
}

async function refresh() {
  let response;
  try {
    response = await ask();
  } catch {
    setState("away", "Server away");
    showProblem("The server does not answer", "Is `tailrace serve` running? This page tries again by itself.", false);
    return AWAY_POLL_MS;
  }
  if (response.ok) {
    showProblem(null);
    showRecords((await response.json()).data);
    return POLL_MS;
  }
  const answer = await response.json().catch(() => ({}));
  const text = answer.details?.message || answer.detail || `Status ${response.status}`;
  const locked = response.status === 401 || response.status === 403;
  setState(locked ? "locked" : "away", locked ? "Token needed" : "Not ready");
  showProblem(locked ? "This project needs a read token" : "The last query failed", text, locked);
  return AWAY_POLL_MS;
}

function showRecords(records) {
  at("records").hidden = records.length === 0;
  if (records.length === 0) {
    setState("waiting", "Waiting for the first span …");
    return;
  }
  setState("green", "Receiving");
  at("rows").replaceChildren(...records.map(toRow));
}

function toRow(record) {
  const level = LEVELS.find(([least]) => record.level >= least)[1];
  const row = document.createElement("tr");
  const cells = [
    ["time", localTime(record.start_timestamp)], ["level", level], ["service", record.service_name],
    ["message", record.message], ["number", duration(record.duration)], ["kind", record.kind],
    ["trace", record.trace_id.slice(-8)],
  ];
  for (const [name, text] of cells) {
    const cell = row.insertCell();
    cell.className = name === "level" ? `level ${level}` : name;
    cell.textContent = text;
  }
  row.cells[0].title = record.start_timestamp;
  row.cells[6].title = record.trace_id;
  return row;
}

function localTime(timestamp) {
  const time = new Date(timestamp);
  const pad = (number, digits) => String(number).padStart(digits, "0");
  return `${pad(time.getHours(), 2)}:${pad(time.getMinutes(), 2)}:${pad(time.getSeconds(), 2)}.${pad(time.getMilliseconds(), 3)}`;
}

function duration(seconds) {
  if (seconds === null) return "";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(1)} ms`;
  return `${seconds.toFixed(2)} s`;
}

async function poll() {
  const pause = document.hidden ? POLL_MS : await refresh();
  setTimeout(poll, pause);
}

document.addEventListener("click", async (event) => {
  const source = event.target.dataset?.copy;
  if (!source) return;
  await navigator.clipboard.writeText(at(source).textContent);
  event.target.textContent = "Copied";
  setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
});
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, at("token").value.trim());
  refresh();
});

at("project").textContent = settings.project;
at("version").textContent = `Tailrace ${settings.version}`;
at("logfire-line").textContent = `LOGFIRE_BASE_URL=${location.origin} LOGFIRE_TOKEN=local python app.py`;
at("otel-line").textContent = `OTEL_EXPORTER_OTLP_ENDPOINT=http://${location.hostname}:${settings.otlpHttpPort} python app.py`;
poll();
