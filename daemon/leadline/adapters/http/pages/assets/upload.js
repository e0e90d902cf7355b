// How far a file is on its way. Without it the browser itself sends the form.
"use strict";

document.addEventListener("submit", (event) => {
  const form = event.target;
  const input = form.querySelector("input[type=file]");
  if (!form.matches("[data-upload]") || event.defaultPrevented || !input.files.length) return;
  event.preventDefault();
  const [file] = input.files;
  if (file.size > Number(input.dataset.bytesMax)) {
    say(form, "This file is too large. Divide it, and upload one part after another.");
    return;
  }
  send(form, file);
});

function send(form, file) {
  const request = new XMLHttpRequest();
  const sending = form.querySelector("[data-sending]");
  const bar = sending.querySelector("progress");
  sending.hidden = false;
  enable(form, false);
  request.upload.addEventListener("progress", ({ loaded, total, lengthComputable }) => {
    if (!lengthComputable) return;
    bar.value = (100 * loaded) / total;
    say(form, loaded < total ? `${Math.floor(bar.value)} % is sent` : "The file is sent, and being stored");
  });
  request.addEventListener("load", () => {
    if (request.status === 200) location.assign(request.responseURL);
    else show(form, request.response);
  });
  request.addEventListener("error", () => {
    bar.value = 0;
    say(form, "The file could not be sent. Is the connection up? Try again.");
    enable(form);
  });
  request.open("POST", form.action);
  request.responseType = "document";
  request.setRequestHeader("Accept", "text/html");
  request.send(new FormData(form));
}

function say(form, text) {
  const sending = form.querySelector("[data-sending]");
  sending.hidden = false;
  const status = sending.querySelector("[role=status]");
  if (status.textContent !== text) status.textContent = text;
}

function enable(form, may = true) {
  for (const button of form.querySelectorAll("button")) button.disabled = !may;
}

// The form with what is wrong with it; the file stays chosen, which no page can say by itself.
function show(form, page) {
  const fresh = page?.getElementById(form.id);
  if (!fresh) {
    say(form, page?.querySelector("main")?.innerText.trim() || "The file was not taken. Load the page again, and try once more.");
    enable(form);
    return;
  }
  const input = fresh.querySelector("input[type=file]");
  const chosen = form.querySelector("input[type=file]");
  for (const name of ["aria-invalid", "aria-describedby"]) {
    if (input.hasAttribute(name)) chosen.setAttribute(name, input.getAttribute(name));
    else chosen.removeAttribute(name);
  }
  input.replaceWith(chosen);
  form.replaceWith(fresh);
  (fresh.querySelector("[aria-invalid]") ?? fresh.querySelector("button")).focus();
}
