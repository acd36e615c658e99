// Verifies webhooks as OpenMeet's backend would: with the library of the Standard Webhooks project.
//
// Reads {secret, webhooks: [{headers, body}]} from stdin, body in base64, and prints one line of JSON:
// for each webhook {"data": …} or {"fault": "…"}.

import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, webhooks } = JSON.parse(readFileSync(0, "utf8"));
const webhook = new Webhook(secret);
const results = webhooks.map(({ headers, body }) => {
  try {
    const verified = webhook.verify(Buffer.from(body, "base64"), headers);
    return { data: verified };
  } catch (error) {
    return { fault: error.message };
  }
});
console.log(JSON.stringify(results));
