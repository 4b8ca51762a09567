// Asks a server as an application would, with the stock SDK and provider; prints what it got as one JSON document.
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { ExposureHook, TrackingProvider } from "./opportune-openfeature.mjs";

const [baseUrl, key, customer, outside, visitor] = process.argv.slice(2);
const headers = [["X-API-Key", key]];
const told = {};

await OpenFeature.setProviderAndWait("stock", new OFREPProvider({ baseUrl, headers }));
const stock = OpenFeature.getClient("stock");
const context = { targetingKey: customer, channel: "app" };
told.string = await stock.getStringDetails("experiment.headline", "none", context);
told.boolean = await stock.getBooleanDetails("experiment.headline", false, context);
told.object = await stock.getObjectDetails("offers.home", {}, context);
told.unknown = await stock.getStringDetails("experiment.nonsense", "none", context);
told.nobody = await stock.getStringDetails("experiment.headline", "none", {});
told.unfit = await stock.getStringDetails("experiment.headline", "none", { targetingKey: customer, channel: "moon" });
told.outside = await stock.getStringDetails("experiment.one-or-two", "none", { targetingKey: outside });

await OpenFeature.setProviderAndWait("wrong", new OFREPProvider({ baseUrl, headers: [["X-API-Key", "wrong"]] }));
told.wrong = await OpenFeature.getClient("wrong").getStringDetails("experiment.headline", "none", context);

const provider = new TrackingProvider({ baseUrl, headers });
await OpenFeature.setProviderAndWait("tracking", provider);
const tracking = OpenFeature.getClient("tracking");
tracking.addHooks(new ExposureHook(provider));
told.seen = await tracking.getStringValue("experiment.visitor", "none", { targetingKey: customer, anonymous_id: visitor });
told.unseen = await tracking.getStringValue("experiment.one-or-two", "none", { targetingKey: outside });
tracking.track("conversion", { targetingKey: customer }, { value: 12.5, offer_id: "say-nothing", channel: "app" });
tracking.track("calls", { targetingKey: `~${visitor}` }, { minutes: 3, topic: "data" });
await OpenFeature.close();
told.lost = provider.lost;
console.log(JSON.stringify(told));
