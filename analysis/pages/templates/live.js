// Make `old` equal to `fresh`, touching only what differs: pictures, focus and scrolling stay as they are.
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.nodeType !== Node.ELEMENT_NODE) { old.replaceWith(fresh.cloneNode(true)); return; }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...fresh.childNodes];
  before.slice(after.length).forEach(each => each.remove());
  after.forEach((each, i) => { if (i < before.length) renew(before[i], each); else old.append(each.cloneNode(true)); });
}
const live = document.getElementById("live"), stopped = document.getElementById("stopped");
let wait = Number(live.dataset.renew);
async function again() {
  if (!document.hidden) {
    try {
      const answer = await fetch("body" + location.search, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body.firstElementChild;
      renew(live.firstElementChild, fresh);
      wait = Number(answer.headers.get("Renew-After"));
      stopped.hidden = true;
    } catch { stopped.hidden = false; }
  }
  setTimeout(again, wait);
}
setTimeout(again, wait);
