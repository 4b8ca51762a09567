// Asks a server as a web page would, with the stock web SDK and provider and a browser's part of CORS; prints what it got as one JSON document.
import { OpenFeature } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";

const [baseUrl, key, customer, origin, stranger] = process.argv.slice(2);
const SAFE = ["accept", "accept-language", "content-language"];
const READABLE = ["cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"];
const told = { statuses: [] };

const words = (answer, name) => (answer.headers.get(name) ?? "").toLowerCase().split(",").map((word) => word.trim());

/** `fetch` of a page of an origin: asks beforehand, and shows of the answer what the page may see (Fetch standard, without credentials). */
function fetchOf(page) {
  const mayCall = (answer) => ["*", page].includes(answer.headers.get("access-control-allow-origin"));
  return async (request, { signal } = {}) => {
    const names = [...request.headers.keys()].filter((name) => !SAFE.includes(name)).sort();
    const asked = { Origin: page, "Access-Control-Request-Method": request.method, "Access-Control-Request-Headers": names.join(",") };
    const preflight = await fetch(request.url, { method: "OPTIONS", headers: asked, signal });
    if (!preflight.ok || !mayCall(preflight) || !names.every((name) => words(preflight, "access-control-allow-headers").includes(name))) {
      throw new TypeError("Failed to fetch");
    }
    const headers = new Headers(request.headers);
    headers.set("Origin", page);
    const answer = await fetch(request.url, { method: request.method, headers, body: await request.text(), signal });
    told.statuses.push(answer.status);
    if (!mayCall(answer)) throw new TypeError("Failed to fetch");
    const shown = [...answer.headers].filter(([name]) => READABLE.concat(words(answer, "access-control-expose-headers")).includes(name));
    return new Response(answer.status === 304 ? null : await answer.text(), { status: answer.status, headers: shown });
  };
}

async function client(name, page, apiKey) {
  const options = { baseUrl, headers: [["X-API-Key", apiKey]], pollInterval: -1, cacheMode: "disabled", fetchImplementation: fetchOf(page) };
  const provider = new OFREPWebProvider(options);
  await OpenFeature.setContext(name, { targetingKey: customer, channel: "app" });
  const failed = await OpenFeature.setProviderAndWait(name, provider).then(() => "", (error) => error.message);
  return [OpenFeature.getClient(name), failed];
}

const [shop, failed] = await client("shop", origin, key);
told.failed = failed;
told.string = shop.getStringDetails("experiment.headline", "none");
told.object = shop.getObjectDetails("offers.home", {});
told.outside = shop.getStringDetails("experiment.idea", "none");
told.unknown = shop.getStringDetails("experiment.nonsense", "none");
await OpenFeature.setContext("shop", { targetingKey: customer, channel: "app", seen: "again" });
told.again = shop.getStringDetails("experiment.headline", "none");
told.wrong = (await client("wrong", origin, "wrong"))[1];
told.stranger = (await client("stranger", stranger, key))[1];
console.log(JSON.stringify(told));
await OpenFeature.close();
