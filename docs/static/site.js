// Frames with widgets are as high as their content says, and follow the theme of the page.

const frames = () => [...document.querySelectorAll("figure.widget iframe")];
const theme = () => (document.body.dataset.theme === "auto" ? "" : document.body.dataset.theme);

addEventListener("message", ({ source, data }) => {
  const frame = frames().find((one) => one.contentWindow === source);
  if (!frame || !(data.height > 0)) return;
  const borders = frame.offsetHeight - frame.clientHeight;
  frame.style.height = `${Math.ceil(data.height) + borders}px`;
  source.postMessage({ theme: theme() }, "*");
});

// What scrolls sideways can be scrolled with the keyboard.
function makeScrollable() {
  for (const box of document.querySelectorAll(".content pre, .table-wrapper, .course-graph")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

addEventListener("DOMContentLoaded", () => {
  const tell = () => {
    for (const frame of frames()) frame.contentWindow.postMessage({ theme: theme() }, "*");
  };
  new MutationObserver(tell).observe(document.body, { attributeFilter: ["data-theme"] });
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  makeScrollable();
});
addEventListener("resize", makeScrollable);
addEventListener("toggle", makeScrollable, true); // a folded part has no width before
