/**
 * OpenFeature's stock OFREP provider for servers with `track`, which OFREP lacks: what is tracked becomes an event of Opportune.
 *
 *   const provider = new TrackingProvider({ baseUrl: "http://127.0.0.1:3000", headers: [["X-API-Key", key]] });
 *   await OpenFeature.setProviderAndWait(provider);
 *   OpenFeature.addHooks(new ExposureHook(provider));
 *
 * Needs @openfeature/server-sdk, @openfeature/ofrep-provider and their peers. A key needs the roles `experiments` (or `decide`) and `events`.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { OFREPProvider } from "@openfeature/ofrep-provider";

const BATCH_MAX = 500;
const WAITING_MAX = 10_000;
const TRIES_MAX = 5;
const ANSWER_MILLISECONDS_MAX = 10_000;
const OWN = ["event_id", "decision_id", "offer_id", "placement", "channel", "experiment", "arm"];

/** Evaluates as the stock provider does. Tracked events are sent in the background, each at least once, and counted once. */
export class TrackingProvider extends OFREPProvider {
  waiting = [];
  sending = null;
  /** Events that were given up: too many were waiting, or the service refused them or could not be reached. */
  lost = 0;

  constructor(options) {
    super(options);
    this.settings = options;
  }

  /** The name is the event's type: `click`, `conversion`, `exposure`, the name of a stream. Returns at once. */
  track(name, context, details) {
    if (this.waiting.length >= WAITING_MAX) {
      this.lost += 1;
      return;
    }
    this.waiting.push(eventOf(name, context, details));
    this.sending ??= this.send();
  }

  /** Sends what waits; the SDK calls it when it is closed. */
  async onClose() {
    while (this.sending) await this.sending;
  }

  async send() {
    await null; // what is tracked in the same turn goes out together
    while (this.waiting.length) this.lost += await this.post(this.waiting.splice(0, BATCH_MAX));
    this.sending = null;
  }

  /** How many were lost. The same ids go out again: what was kept before is recognised. */
  async post(events) {
    const body = JSON.stringify({ events });
    for (let attempt = 0; attempt < TRIES_MAX; attempt += 1) {
      if (attempt) await sleep(100 * 2 ** attempt);
      try {
        const headers = new Headers(this.settings.headers);
        for (const [key, value] of new Headers(await this.settings.headersFactory?.())) headers.set(key, value);
        headers.set("Content-Type", "application/json");
        const signal = AbortSignal.timeout(ANSWER_MILLISECONDS_MAX);
        const answer = await fetch(`${this.settings.baseUrl}/v1/events`, { method: "POST", headers, body, signal });
        if (answer.status === 202) return (await answer.json()).dead;
        if (answer.status !== 429 && answer.status !== 503) break;
      } catch {
        continue;
      }
    }
    return events.length;
  }
}

/** Tells of an exposure whenever the application reads the variant of an experiment. */
export class ExposureHook {
  constructor(provider) {
    this.provider = provider;
  }

  after({ flagKey, context }, { variant }) {
    const [kind, ...experiment] = flagKey.split(".");
    if (kind === "experiment" && variant) {
      this.provider.track("exposure", context, { experiment: experiment.join("."), arm: variant });
    }
  }
}

/** The event that a tracked action is. */
export function eventOf(type, context = {}, { value, ...attributes } = {}) {
  const key = context.targetingKey ?? "";
  const anonymous = context.anonymous_id ?? (key.startsWith("~") ? key.slice(1) : undefined);
  const own = Object.fromEntries(Object.entries(attributes).filter(([name]) => OWN.includes(name)));
  const fields = Object.fromEntries(Object.entries(attributes).filter(([name]) => !OWN.includes(name)));
  return {
    event_id: randomUUID(),
    type,
    occurred_at: new Date().toISOString(),
    ...own,
    ...(key.startsWith("~") ? {} : { customer_id: key }),
    ...(anonymous ? { anonymous_id: anonymous } : {}),
    ...(value === undefined ? {} : { value }),
    ...(Object.keys(fields).length ? { fields } : {}),
  };
}
