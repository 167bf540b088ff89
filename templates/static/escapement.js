/* What plain HTML and htmx can't do: live state, copy buttons, links into closed items, print.
   Everything still works without this file; pages are then simply not live. */
"use strict";

(() => {
  const root = document.documentElement;
  const POLL_MS = 5000;
  let polling = 0;

  // --- live, or polling ---
  const connected = (now) => {
    root.classList.toggle("is-live", now);
    root.classList.toggle("is-polling", !now);
    clearInterval(polling);
    polling = now ? 0 : setInterval(() => {
      const page = document.getElementById("page");
      if (page && page.hasAttribute("hx-get") && !document.hidden) htmx.trigger(page, "poll");
    }, POLL_MS);
  };
  document.addEventListener("htmx:sseOpen", () => connected(true));
  document.addEventListener("htmx:sseError", () => connected(false));
  document.addEventListener("htmx:sseClose", () => connected(false));

  // Log-in expired while the page was open: do not swap a log-in page into it.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const path = event.detail.xhr && event.detail.xhr.responseURL;
    if (path && new URL(path).pathname === "/login/") location.reload();
    if (path && new URL(path).pathname === "/login/") event.preventDefault();
  });

  // --- a page that renews itself: what one reads stays where it is, and keeps the focus ---
  const FOCUSABLE = "a[href], button, summary, input, select, textarea";
  const signature = (element) => {
    const near = element.closest("[id]");
    return [near ? near.id : "", element.tagName, element.getAttribute("href"), element.textContent].join(" ");
  };
  let place = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "page") return;
    const page = event.detail.target;
    const focused = page.contains(document.activeElement) && document.activeElement.matches(FOCUSABLE)
      ? signature(document.activeElement) : null;
    const mark = scrollY > 0 && [...page.querySelectorAll("[id]")].find((e) => {
      const { top, height } = e.getBoundingClientRect();
      return height > 0 && top >= 0 && top < innerHeight;
    });
    place = { focused, mark: mark && { id: mark.id, top: mark.getBoundingClientRect().top } };
  });
  document.addEventListener("htmx:afterSwap", () => {
    const page = document.getElementById("page");
    if (!place || !page) return;
    const { focused, mark } = place;
    place = null;
    const again = focused && document.activeElement === document.body
      && [...page.querySelectorAll(FOCUSABLE)].find((e) => signature(e) === focused);
    if (again) again.focus({ preventScroll: true });
    const marked = mark && document.getElementById(mark.id);
    if (marked) scrollBy({ top: marked.getBoundingClientRect().top - mark.top, behavior: "instant" });
  });

  // --- Django's cross-site token for htmx's POSTs: read from any form of the page ---
  document.addEventListener("htmx:configRequest", (event) => {
    const field = document.querySelector("input[name=csrfmiddlewaretoken]");
    if (event.detail.verb === "post" && field) event.detail.headers["X-CSRFToken"] = field.value;
  });

  // --- copy a digest ---
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    event.preventDefault();
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "select";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });

  // --- a link to something inside a closed item opens the item ---
  const reveal = (id) => {
    const goal = id && document.getElementById(id);
    if (!goal) return;
    for (let node = goal; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    goal.scrollIntoView({ block: "center" });
    if (goal.tagName === "DETAILS") goal.querySelector("summary").focus({ preventScroll: true });
  };
  const fromHash = () => reveal(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", fromHash);
  addEventListener("DOMContentLoaded", fromHash);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal(decodeURIComponent(link.hash.slice(1)));
  });

  // --- a form is sent once ---
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => { delete form.dataset.sent; }, 4000);
  });
})();
