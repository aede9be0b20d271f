// What the scripts of the lab's own widgets begin with; lab/buttons.py puts it there.

function make(tag, className = "", attributes = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writing what is there already would wake screen readers and observers, and take the focus away.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Whether the page is an app's, and not a notebook in JupyterLab.
function voilaPage() {
  const path = window.location.pathname;
  return document.body.dataset.voila !== undefined || /\/voila\/(render\/|$)/.test(path);
}
