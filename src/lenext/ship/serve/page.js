"use strict";

const AT_ONCE = 4; // requests; the server judges together what waits together
const SHOWN = 5; // classes
const RETRIES = 5; // when the server is full

const [status, answers, template, chosen, key] = ["status", "answers", "answer", "pictures", "key"]
  .map((id) => document.getElementById(id));

// As in the reports: only a whole is 100 %, only nothing is 0 %.
function percent(share) {
  if (share > 0.9995 && share < 1) return "> 99.9 %";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : 1)} %`;
}

const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// The server's reply to a picture; throws an Error that says what is wrong in the server's words.
async function ask(address, file) {
  for (let tries = 0; ; tries += 1) {
    const form = new FormData();
    form.append("files", file);
    const headers = key?.value ? { "X-API-Key": key.value } : {};
    const reply = await fetch(address, { method: "POST", body: form, headers });
    if (reply.ok) return reply;
    if (reply.status !== 503 || tries === RETRIES) {
      const said = await reply.json().catch(() => ({ error: `status ${reply.status}` }));
      throw new Error(said.error);
    }
    await wait(Number(reply.headers.get("Retry-After")) || 1);
  }
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

// A bar for each of the likeliest classes.
function bars(classes, probabilities) {
  const likeliest = probabilities.map((share, k) => [share, classes[k]]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
  return likeliest.map(([share, name]) => {
    const bar = document.createElement("li");
    bar.append(element("span", name), element("span", percent(share)));
    bar.style.setProperty("--share", share);
    return bar;
  });
}

// The button that shows where the model looked, and the picture again.
function explains(button, image, file) {
  const plain = image.src;
  let overlay = null;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const show = button.getAttribute("aria-pressed") === "false";
    try {
      if (show && !overlay) {
        status.textContent = "Looking again…";
        overlay = URL.createObjectURL(await (await ask("explain", file)).blob());
      }
      image.src = show ? overlay : plain;
      image.alt = show ? `${file.name}, with what spoke for the answer in colour` : file.name;
      button.setAttribute("aria-pressed", show);
      status.textContent = show ? "What spoke for the answer is in colour." : "";
    } catch (error) {
      status.textContent = `It cannot be explained: ${error.message}`;
    }
  });
}

// Fills in the answer to a picture; returns it in words.
async function judge(file, item) {
  const [heading, note, list, button, image] = ["h2", ".note", ".bars", ".explain", "img"]
    .map((selector) => item.querySelector(selector));
  try {
    const { classes, predictions: [found] } = await (await ask("predict", file)).json();
    heading.textContent = found.abstained ? "I don’t know" : found.label;
    note.textContent = file.name;
    if (found.outlier >= 0.99) note.textContent += `; less like the pictures it knows than ${percent(found.outlier)} of them`;
    list.append(...bars(classes, found.probabilities));
    explains(button, image, file);
    return found.abstained ? "I don’t know" : `${found.label}, ${percent(found.probability)}`;
  } catch (error) {
    heading.textContent = "No answer";
    note.textContent = error.message;
    note.classList.add("warn");
    return `No answer: ${error.message}`;
  }
}

async function take(files) {
  const waiting = [...files].map((file) => {
    const item = template.content.firstElementChild.cloneNode(true);
    const image = item.querySelector("img");
    image.src = URL.createObjectURL(file);
    image.alt = file.name;
    image.addEventListener("error", () => { image.hidden = true; }, { once: true });
    item.querySelector("h2").textContent = "…";
    return [file, item];
  });
  if (!waiting.length) return;
  const number = waiting.length;
  answers.prepend(...waiting.map(([, item]) => item));
  status.textContent = number === 1 ? "Looking…" : `Looking at ${number} pictures…`;
  let said = "";
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) said = await judge(...next);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  status.textContent = number === 1 ? said : `Looked at ${number} pictures.`;
}

chosen.addEventListener("change", () => {
  take(chosen.files);
  chosen.value = ""; // so that the same picture can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
