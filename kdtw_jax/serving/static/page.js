"use strict";
// The page of a server: it speaks the same API as other clients, and keeps nothing.

const at = (id) => document.getElementById(id);
const ALONE = "do not ask the teacher";
let facts = { unit: "words", asks: true, points: [], levels: [], metric: "", classroom: null };
let running = null;

function headers() {
  const key = at("key").value;
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function refused(response) {
  let said = `${response.status} ${response.statusText}`;
  try { said = (await response.json()).error.message; } catch { /* no JSON: the status has to do */ }
  if (response.status === 401) { at("locked").hidden = false; at("key").focus(); }
  return new Error(said);
}

async function ask(path, body, signal) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw await refused(response);
  return response;
}

async function begin() {
  const response = await fetch("page.json", { headers: headers() });
  if (!response.ok) throw await refused(response);
  facts = await response.json();
  const who = facts.asks ? `under a rule of yours; the teacher writes only ${facts.unit} that it is asked for` : "on its own: it did not learn to ask";
  at("about").textContent = `${facts.model} writes ${who}.`;
  document.title = `${facts.model}: a student that asks its teacher`;
  for (const place of document.querySelectorAll(".unit")) place.textContent = facts.unit;
  at("ruled").hidden = !facts.asks;
  at("teacher-section").hidden = !facts.asks;
  at("helped-title").textContent = facts.asks ? "With help" : "Answer";
  if (!at("text").value) at("text").value = facts.example;
  if (facts.rule) at("rule").value = facts.rule; else slide();
  plot(null);
  if (facts.classroom) openClassroom();
}

function slide() {
  const share = Number(at("share").value);
  at("shown").textContent = share;
  at("rule").value = share ? `ask the teacher for at most ${share}% of the ${facts.unit}` : ALONE;
}

// A run of text by one writer each ("" is the student); words that have a part of another's are marked whole where words
// are counted.
function show(place, parts) {
  const whole = facts.unit === "words" ? words(parts) : parts;
  place.replaceChildren(...whole.map(([text, writer]) => {
    const part = document.createElement(writer ? "mark" : "span");
    part.textContent = text;
    return part;
  }));
}

function words(parts) {
  const letters = parts.flatMap(([text, writer]) => [...text].map((letter) => [letter, writer]));
  const found = [];
  for (const [letter, writer] of letters) {
    const space = /\s/u.test(letter), last = found.at(-1), own = space ? "" : writer;
    if (!last || last.space !== space) { found.push({ text: letter, space, writer: own }); continue; }
    last.text += letter;
    last.writer = own === "calculator" ? own : last.writer || own;
  }
  return found.map(({ text, writer }) => [text, writer]);
}

const writerOf = ({ writers }) => ["calculator", "teacher"].find((name) => writers.some(([, who]) => who === name)) ?? "";

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the answer broke off");  // a whole one ends with [DONE]
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const said = block.replace(/^data: /u, "");
      if (said === "[DONE]") return;
      yield JSON.parse(said);
    }
  }
}

async function withHelp(text, rule, signal) {
  const body = { prompt: text, stream: true, ...(facts.asks && rule ? { rule } : {}) };
  const parts = [];
  for await (const event of events(await ask("v1/completions", body, signal))) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (choice && choice.text) {
      parts.push([choice.text, writerOf(choice)]);
      if (parts.length === 1) parts[0][0] = parts[0][0].trimStart();
      show(at("with"), parts);
    }
    if (event.teacher_help) told(event.teacher_help);
  }
}

function told(help) {
  const allowed = help.budget.limits.share;
  at("meters").hidden = at("legend").hidden = !facts.asks;
  const meter = at("share-meter");
  meter.optimum = 0;
  if (allowed !== undefined) meter.high = Math.min(1, allowed + 1e-9);
  meter.value = help.share;
  const limit = allowed === undefined ? "" : `, at most ${percent(allowed)} ${help.budget.enforced ? "allowed" : "wished for"}`;
  at("share-said").textContent = `${help.helped} of ${help.length} ${facts.unit}, ${percent(help.share)}${limit}`;
  at("calls-said").textContent = String(help.calls);
  at("understood").textContent = help.assumed.join("; ");
  at("degraded").hidden = !help.degraded;
  plot(help.share);
}

const percent = (share) => `${Math.round(1000 * share) / 10}%`;

async function plain(place, path, body, read, signal) {
  place.classList.add("waits");
  try {
    place.textContent = read(await (await ask(path, body, signal)).json());
  } finally {
    place.classList.remove("waits");
  }
}

async function write(event) {
  event.preventDefault();
  running?.abort();
  const own = running = new AbortController();
  const text = at("text").value, rule = at("rule").value.trim(), { signal } = own;
  at("error").textContent = at("understood").textContent = "";
  for (const id of ["with", "alone", "teacher"]) at(id).textContent = "";
  at("meters").hidden = at("legend").hidden = at("degraded").hidden = true;
  at("write").disabled = true;
  at("with").classList.add("waits");
  try {
    await withHelp(text, rule, signal).finally(() => at("with").classList.remove("waits"));
    if (facts.asks) {
      await plain(at("alone"), "v1/completions", { prompt: text, rule: ALONE }, (found) => found.choices[0].text, signal);
      await plain(at("teacher"), "page/teacher", { text }, (found) => found.text, signal);
    } else {
      at("alone").textContent = at("with").textContent;
    }
  } catch (error) {
    if (!signal.aborted) at("error").textContent = error.message;
  } finally {
    if (running === own) at("write").disabled = false;
  }
}

let place = null;
function plot(here) {
  place = here;
  at("figure").hidden = facts.points.length < 2;
  if (at("figure").hidden) return;
  const wide = Math.max(280, Math.min(640, at("plot").clientWidth || 640));
  const [high, left, right, top, bottom] = [260, 52, 16, 12, 40];
  const xs = facts.points.map(([x]) => x), ys = [...facts.points.map(([, y]) => y), ...facts.levels.map(([, y]) => y)];
  const most = Math.max(...xs, here ?? 0, 0.01), low = Math.min(...ys), span = Math.max(...ys) - low || 1;
  const x = (value) => left + (value / most) * (wide - left - right);
  const y = (value) => high - bottom - ((value - low) / span) * (high - top - bottom - 8);
  const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": described(here) });
  svg.append(drawn("line", { class: "axis", x1: left, x2: wide - right, y1: high - bottom, y2: high - bottom }));
  const step = most > 0.3 ? 0.1 : 0.05;
  for (let tick = 0; tick <= most + 1e-9; tick += step) svg.append(label(percent(tick), x(tick), high - bottom + 16, "middle"));
  svg.append(label(`${facts.unit} written by the teacher`, (left + wide - right) / 2, high - 6, "middle"));
  for (const value of [low, low + span / 2, low + span]) svg.append(label(value.toFixed(1), left - 6, y(value) + 4, "end"));
  svg.append(label(facts.metric, left + 6, top + 6, "start"));
  for (const [name, value] of facts.levels) {
    svg.append(drawn("line", { class: "level", x1: left, x2: wide - right, y1: y(value), y2: y(value) }));
    svg.append(label(name, wide - right, y(value) + (value === low ? -5 : 14), "end"));
  }
  svg.append(drawn("polyline", { class: "curve", points: facts.points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ") }));
  for (const [px, py] of facts.points) svg.append(drawn("circle", { class: "dot", cx: x(px), cy: y(py), r: 3 }));
  if (here !== null) {
    svg.append(drawn("line", { class: "here", x1: x(here), x2: x(here), y1: top, y2: high - bottom }));
    const far = here > most / 2;
    svg.append(label("you are here", x(here) + (far ? -6 : 6), high - bottom - 8, far ? "end" : "start", "here-text"));
  }
  at("plot").replaceChildren(svg);
}

function described(here) {
  const ends = [facts.points[0], facts.points.at(-1)].map(([use, value]) => `${value.toFixed(1)} at ${percent(use)}`);
  return `${facts.metric} by the teacher's share: ${ends.join(", ")}${here === null ? "" : `; this text: ${percent(here)}`}`;
}

function drawn(kind, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function label(text, x, y, anchor, kind = "") {
  const element = drawn("text", { x, y, "text-anchor": anchor, class: kind });
  element.textContent = text;
  return element;
}

at("ask").addEventListener("submit", write);
at("share").addEventListener("input", slide);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
addEventListener("resize", () => plot(place));
at("key").addEventListener("change", () => begin().then(() => { at("error").textContent = ""; }, fail));
function fail(error) { at("error").textContent = error.message; }
begin().catch(fail);
