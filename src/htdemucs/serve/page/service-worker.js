/** Caches the page's files, so that the page opens without a connection; the API is never cached. */

const CACHE = "page";

/** Return the address under which a file of the page is cached; null for anything else. */
function cacheKey({ method, url }) {
  const { href, pathname } = new URL(url);
  const path = pathname.slice(new URL(registration.scope).pathname.length);
  const cached = path === "" || (path.startsWith("page/") && !path.endsWith(".opus"));
  return method === "GET" && cached ? href.replace(/[?#].*$/, "") : null; // the first address has a token
}

/** Cache every file that the page names. */
async function cachePage() {
  const cache = await caches.open(CACHE);
  const page = await fetch("./");
  if (!page.ok) return; // the login page: the next visit caches them
  const html = await page.clone().text();
  await cache.put(registration.scope, page);
  await cache.addAll([...html.matchAll(/(?:href|src)="(page\/[^"]+)"/g)].map(([, path]) => path));
}

/** Network first, cache as fallback: return the server's response or, without a connection, the cached one. */
async function respond(request, key) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok && !response.redirected) await cache.put(key, response.clone());
    return response;
  } catch (error) {
    const cached = await cache.match(key);
    if (!cached) throw error;
    return cached;
  }
}

addEventListener("install", (event) => event.waitUntil(Promise.all([cachePage(), skipWaiting()])));
addEventListener("fetch", (event) => {
  const key = cacheKey(event.request);
  if (key) event.respondWith(respond(event.request, key));
});
