"use strict";
// The part of the page that only the server's has: two images in, and the answer shown.
const served = JSON.parse($("served").textContent);
const files = { target: null, source: null };
const slots = Object.fromEntries([...document.querySelectorAll(".slot")].map((slot) => [slot.dataset.role, slot]));
const empty = Object.fromEntries(Object.entries(slots).map(([role, slot]) => [role, slot.querySelector("span").textContent]));
let last = given;

function problem(sentence) {
  $("problem").hidden = !sentence;
  $("problem").textContent = sentence;
}

function choose(role, file) {
  files[role] = file;
  slots[role].querySelector("img")?.remove();
  slots[role].querySelector("span").textContent = file ? file.name : empty[role];
  if (file) {
    const image = new Image();
    image.alt = "";
    image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
    image.addEventListener("error", () => image.remove());
    image.src = URL.createObjectURL(file);
    slots[role].querySelector("input").after(image);
  }
  problem("");
  $("go").disabled = !files.target || !files.source;
}

// One goes where it was dropped, two to target and source.
function take(dropped, role) {
  const [first, second] = dropped;
  if (!first) return;
  if (second) { choose("target", first); choose("source", second); } else choose(role, first);
}

for (const [role, slot] of Object.entries(slots)) {
  const input = slot.querySelector("input");
  input.addEventListener("change", () => { if (input.files[0]) choose(role, input.files[0]); input.value = ""; });
  for (const kind of ["dragenter", "dragover"]) slot.addEventListener(kind, () => slot.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) slot.addEventListener(kind, () => slot.classList.remove("over"));
  slot.addEventListener("drop", (event) => { event.preventDefault(); event.stopPropagation(); take(event.dataTransfer.files, role); });
}
const free = () => (files.target ? "source" : "target");
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files, free()); });
document.addEventListener("paste", (event) => take(event.clipboardData.files, free()));
$("swap").addEventListener("click", () => {
  const { target, source } = files;
  choose("target", source);
  choose("source", target);
});

function busy(begun) {
  $("busy").hidden = !begun;
  $("go").disabled = Boolean(begun);
  if (!begun) return 0;
  const tell = () => { $("busy").querySelector("span").textContent = `Matching, ${Math.round((Date.now() - begun) / 1000)} s`; };
  tell();
  return setInterval(tell, 1000);
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  problem("");
  if (files.target.size + files.source.size > served.bytes) {
    problem(`The two files are larger than ${Math.round(served.bytes / 1e6)} MB together: use smaller ones.`);
    return;
  }
  const form = new FormData();
  for (const role of ["target", "source"]) form.append(role, files[role]);
  const timer = busy(Date.now());
  try {
    const answer = await fetch("match", { method: "POST", body: form });
    const content = await answer.json();
    if (!answer.ok) problem(content.error);
    else {
      last = content;
      await show(content);
      arrived();
      $("target").focus({ preventScroll: true });
      $("viewer").scrollIntoView({ behavior: "smooth" });
    }
  } catch {
    problem("The server does not answer: is `glunet view` still running?");
  } finally {
    clearInterval(timer);
    busy(null);
  }
});

function arrived() {
  $("save").hidden = false;
  $("upload").className = "compact";
}

// The same page without the server, with the match in it.
$("save").addEventListener("click", async () => {
  const page = await (await fetch("page")).text();
  const kept = JSON.stringify(last).replaceAll("<", "\\u003c");
  const mark = 'id="match">null<';
  const [before, after] = page.split(mark);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([before, mark.replace("null", () => kept), after], { type: "text/html" }));
  link.download = "view.html";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});

$("upload").hidden = false;
if (given) arrived();
