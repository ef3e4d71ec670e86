"use strict";
// The tab for word problems: problems to a person's wishes, and solutions that are checked by the server as they come.
// What is not checked yet is pale; what is checked has its mark beside it.

const MARKS = { right: "✓", wrong: "✗", unexpected: "✗", unchecked: "?" };
const LINES = 4; // to write on, for each problem of a worksheet
let exercises = [], solving = null;

function openClassroom() {
  const first = at("tabs").hidden;
  at("tabs").hidden = false;
  at("cruled").hidden = at("clegend").hidden = !facts.asks;
  at("calculates").hidden = at("tlegend").hidden = !facts.calculator;
  at("count").max = facts.classroom.most;
  if (!first) return;
  at("panel-text").setAttribute("role", "tabpanel");
  at("panel-text").setAttribute("aria-labelledby", "tab-text");
  at("panel-classroom").setAttribute("role", "tabpanel");
  at("panel-classroom").setAttribute("aria-labelledby", "tab-classroom");
  at("grade").replaceChildren(...facts.classroom.grades.map(({ grade }) => option(grade, `Grade ${grade}`)));
  at("grade").value = 4;
  offer();
  if (facts.rule) at("crule").value = facts.rule; else slideShare();
  at("grade").addEventListener("change", offer);
  at("cshare").addEventListener("input", slideShare);
  at("wish").addEventListener("submit", solve);
  at("print").addEventListener("click", () => print());
  addEventListener("beforeprint", layOut);
  addEventListener("afterprint", () => document.body.classList.remove("worksheet"));
  for (const tab of [at("tab-classroom"), at("tab-text")]) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
      event.preventDefault();
      const other = event.key === "Home" ? at("tab-classroom") : event.key === "End" ? at("tab-text")
        : tab.id === "tab-text" ? at("tab-classroom") : at("tab-text");
      choose(other);
      other.focus();
    });
  }
  choose(at("tab-classroom"));
}

function choose(chosen) {
  for (const tab of [at("tab-classroom"), at("tab-text")]) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  if (chosen.id === "tab-text") plot(place);
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

// The operations that the grade's problems can have.
function offer() {
  const before = at("operations").value;
  const known = facts.classroom.grades.find(({ grade }) => grade === Number(at("grade").value)).operations;
  at("operations").replaceChildren(option("", "any"), ...known.map((one) => option(one.join(" "), one.join(", "))));
  at("operations").value = known.some((one) => one.join(" ") === before) ? before : "";
}

function slideShare() {
  const share = Number(at("cshare").value);
  at("cshown").textContent = share;
  at("crule").value = share ? `ask the teacher for at most ${share}% of the ${facts.unit}` : ALONE;
}

async function wished(signal) {
  const own = at("own").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const { most } = facts.classroom;
  if (own.length > most) throw new Error(`at most ${most} problems, not ${own.length}`);
  if (own.length) return own.map((text) => ({ text, answer: null, solution: null }));
  const parts = (text) => text.split(/[\s;]+/u).filter(Boolean);
  const body = {
    interest: at("interest").value, grade: Number(at("grade").value), count: Number(at("count").value),
    operations: parts(at("operations").value), numbers: parts(at("numbers").value),
    seed: crypto.getRandomValues(new Uint32Array(1))[0],
  };
  return (await (await ask("classroom/problems", body, signal)).json()).problems;
}

async function solve(event) {
  event.preventDefault();
  solving?.abort();
  const own = solving = new AbortController();
  const { signal } = own;
  at("cerror").textContent = at("cunderstood").textContent = "";
  at("solve").disabled = at("print").disabled = true;
  try {
    exercises = (await wished(signal)).map(begun);
    at("exercises").hidden = false;
    at("problems").replaceChildren(...exercises.map(({ item }) => item));
    at("progress").textContent = "The student is writing …";
    const rule = at("crule").value.trim();
    const calculator = facts.calculator && at("calculator").checked;
    const body = {
      prompt: exercises.map(({ text }) => text), stream: true,
      ...(facts.asks && rule ? { rule } : {}), ...(calculator ? { calculator } : {}),
    };
    for await (const said of events(await ask("classroom/solve", body, signal))) {
      if (said.error) throw new Error(said.error.message);
      const choice = said.choices[0];
      if (choice) heard(exercises[choice.index], choice, said.teacher_help);
      if (said.teacher_help) at("cunderstood").textContent = said.teacher_help.assumed.join("; ");
    }
    const right = exercises.filter(({ checked }) => checked.is_right).length;
    const alone = exercises.filter(({ checked }) => checked.is_answer_alone).length;
    const more = alone ? ` ${alone} more have the right answer without its steps.` : "";
    at("progress").textContent = `${right} of ${exercises.length} solutions are right.${more}`;
    at("print").disabled = false;
  } catch (error) {
    at("progress").textContent = "";
    if (!signal.aborted) at("cerror").textContent = error.message;
    for (const one of exercises) if (!one.done) tell(one, "wrong", "This solution is not finished: what is pale is not checked.");
  } finally {
    if (solving === own) at("solve").disabled = false;
  }
}

// A problem on the page, and where its solution goes.
function begun({ text, answer, solution }) {
  const item = element("li"), shown = element("p", "problem", text);
  const written = element("p", "solution"), verdict = element("p", "verdict", "not solved yet");
  item.append(shown, written, verdict);
  return { text, answer, solution, item, written, verdict, parts: [], done: false, checked: { spans: [], checked_to: 0 } };
}

function heard(one, choice, help) {
  if (choice.text) one.parts.push([choice.text, writerOf(choice)]);
  if (choice.checked) one.checked = choice.checked;
  one.done = choice.finish_reason !== null;
  draw(one);
  if (!one.done) { one.verdict.textContent = "being written …"; return; }
  one.answer ??= choice.checked.answer;
  const helped = helpSaid(help);
  const late = help?.degraded ? " The teacher did not answer: the student went on alone." : "";
  if (choice.checked.is_right) tell(one, "right", `✓ All of it is right.${helped}${late}`);
  else if (!choice.checked.is_understood) tell(one, "unchecked", `? This problem is not understood: only what is calculated wrongly is found.${helped}${late}`);
  else if (choice.checked.is_answer_alone) {
    tell(one, "unchecked", `✗ The answer is right, its steps are missing: ${choice.checked.missing.join("; ")}.${helped}${late}`);
  } else {
    const missing = choice.checked.missing.length ? ` Missing: ${choice.checked.missing.join("; ")}.` : "";
    tell(one, "wrong", `✗ Not right.${missing} The answer is ${one.answer}.${helped}${late}`);
  }
}

// Who else than the student wrote how much.
function helpSaid(help) {
  const wrote = [];
  if (help && facts.asks) wrote.push(["teacher", help.helped]);
  if (help?.calculator) wrote.push(["calculator", help.calculator]);
  if (!wrote.length) return "";
  const [[name, count], ...others] = wrote;
  const more = others.map(([other, some]) => `, the ${other} ${some}`).join("");
  return ` The ${name} wrote ${count} of ${help.length} ${facts.unit}${more}.`;
}

function tell(one, kind, text) {
  one.verdict.className = `verdict ${kind}`;
  one.verdict.textContent = text;
}

// The solution so far: each letter has a writer, belongs to a checked part or none, and is checked or not yet.
function draw({ parts, checked, written }) {
  const letters = (facts.unit === "words" ? words(parts) : parts).flatMap(([text, writer]) => [...text].map((letter) => [letter, writer]));
  const made = [];
  let from = 0;
  for (const span of checked.spans) {
    made.push(...stretch(letters, from, span.start, checked.checked_to));
    const part = element("span", `part ${span.verdict}`);
    part.append(...stretch(letters, span.start, span.end, checked.checked_to));
    made.push(part);
    from = span.end;
    if (span.what === "words" && span.verdict === "right") continue;
    const stop = letters[from]?.[0] === "." ? 1 : 0; // the full stop comes before the mark
    made.push(...stretch(letters, from, from + stop, checked.checked_to), checkMark(span));
    from += stop;
    if (span.what !== "words" && letters[from]?.[0] === " ") made.push(element("br"));
  }
  written.replaceChildren(...made, ...stretch(letters, from, letters.length, checked.checked_to));
}

function checkMark({ what, verdict, note }) {
  if (verdict === "unchecked" && what === "words") return "";
  const mark = element("span", `check ${verdict}`, MARKS[verdict]);
  if (verdict === "unchecked") mark.append(" not checked");
  else if (verdict !== "right") mark.append(` ${note || "this is not part of the solution"}`);
  else mark.setAttribute("aria-label", "right");
  if (verdict === "right") mark.setAttribute("role", "img");
  if (note) mark.title = note;
  return mark;
}

function stretch(letters, from, to, checkedTo) {
  const runs = [];
  for (let index = from; index < to; index += 1) {
    const [letter, writer] = letters[index], pending = index >= checkedTo, last = runs.at(-1);
    if (last && last.writer === writer && last.pending === pending) last.text += letter;
    else runs.push({ text: letter, writer, pending });
  }
  return runs.map(({ text, writer, pending }) => {
    const kinds = [writer === "calculator" ? "tool" : "", pending ? "pending" : ""];
    return element(writer ? "mark" : "span", kinds.filter(Boolean).join(" "), text);
  });
}

function element(kind, name = "", text = "") {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

// What is printed: problems with lines to write on, then the answers, which are the problems' own and never the student's.
function layOut() {
  const shown = !at("panel-classroom").hidden && exercises.length > 0 && !at("print").disabled;
  document.body.classList.toggle("worksheet", shown);
  if (!shown) return;
  const name = element("p", "name");
  name.append("Name", element("span"), "Date", element("span"));
  const sheet = element("section"), answers = element("section", "answers");
  const asked = element("ol"), right = element("ol");
  for (const { text, answer, solution } of exercises) {
    const item = element("li"), known = element("li");
    item.append(element("p", "", text), ...Array.from({ length: LINES }, () => element("div", "line")));
    known.append(element("p", "", answer ?? "This problem is not understood: its answer is not known."));
    if (solution) known.append(element("p", "steps", solution));
    asked.append(item);
    right.append(known);
  }
  sheet.append(element("h1", "", "Word problems"), name, asked);
  answers.append(element("h1", "", "Answers"), right);
  at("sheet").replaceChildren(sheet, answers);
}
