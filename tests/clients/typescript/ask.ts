// A client that has nothing but types generated from /openapi.json: `node ask.js ADDRESS CUSTOMER` prints what it got as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./types.js";

declare const process: { argv: string[] };

const [address, customer] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: address });

const needed: components["schemas"]["DecisionRequest"] = { customer_id: customer, placement: "home" };
const { data: decision } = await client.POST("/v1/decisions", { body: needed });
if (!decision) throw new Error("no decision");
const first = decision.offers[0];
if (!first) throw new Error("no offer");
const score: number = first.score;
const notes: string[] = decision.notes;

const { data: told } = await client.POST("/v1/events", {
  body: {
    events: [
      { event_id: "typed-typescript", type: "impression", occurred_at: new Date().toISOString(), customer_id: customer, offer_id: first.offer_id },
    ],
  },
});
if (!told) throw new Error("no answer to events");
const refused: number = told.refused.length;

const { data: assigned } = await client.POST("/v1/assignments", { body: { requests: [{ customer_id: customer }] } });
const { data: experiments } = await client.GET("/v1/experiments");
const { data: one } = await client.GET("/v1/experiments/{key}/assignments/{unit}", { params: { path: { key: "kept", unit: "a@b" } } });
const { data: flags } = await client.POST("/ofrep/v1/evaluate/flags", { body: { context: { targetingKey: customer, anything: 1 } } });
const failed = flags?.flags.flatMap((flag) => ("reason" in flag ? [] : [flag.errorCode]));
// @ts-expect-error: a placement that there is not
const { error: problem } = await client.POST("/v1/decisions", { body: { customer_id: customer, placement: "nowhere" } });

console.log(
  JSON.stringify({
    offers: decision.offers.map((offer) => offer.offer_id),
    score,
    notes,
    stored: told.stored,
    refused,
    assigned: assigned?.results[0]?.assignments.map((found) => found.experiment),
    experiments: experiments?.experiments.map((found) => found.key),
    unit: one?.unit,
    flags: flags?.flags.map((flag) => flag.key),
    failed,
    problem: [problem?.status, problem?.errors?.[0]?.pointer],
  }),
);
