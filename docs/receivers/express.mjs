// Takes the webhooks of openmeet-appservice: checks them, stores them, and only then answers.
//
//   npm install express standardwebhooks            (Node 22.13 or newer, for its SQLite)
//   WEBHOOK_SECRET=whsec_… node express.mjs

import { DatabaseSync } from "node:sqlite";
import express from "express";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const database = new DatabaseSync(process.env.DATABASE ?? "webhooks.db");
database.exec(`
  CREATE TABLE IF NOT EXISTS matrix_events (
    tenant TEXT NOT NULL, event_id TEXT NOT NULL, log_id TEXT NOT NULL, sequence BIGINT NOT NULL,
    room TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (tenant, event_id)
  );
  CREATE TABLE IF NOT EXISTS matrix_notices (
    webhook_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, data TEXT NOT NULL
  );
`);
const insertEvent = database.prepare(
  "INSERT INTO matrix_events VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, event_id) DO NOTHING",
);
const insertNotice = database.prepare(
  "INSERT INTO matrix_notices VALUES (?, ?, ?) ON CONFLICT (webhook_id) DO NOTHING",
);

// All of a webhook, or an error: then the answer is 500, and it comes again.
function store(webhookId, { type, data }) {
  database.exec("BEGIN IMMEDIATE");
  try {
    if (type === "room.events") {
      const { tenant, room, events } = data;
      for (const item of events) {
        const { event, sequence } = item;
        insertEvent.run(
          tenant, event.event_id, room.log_id, sequence, JSON.stringify(room), JSON.stringify(item),
        );
      }
    } else if (type !== "room.ephemeral") {
      // Types that came with a later release are kept as well.
      insertNotice.run(webhookId, type, JSON.stringify(data));
    }
    database.exec("COMMIT");
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}

const app = express();

// The bytes as they came: keep this above any `app.use(express.json())`, or the signature never fits.
const raw = express.raw({ type: () => true, limit: "1mb" });

app.post("/webhooks/matrix", raw, (request, response) => {
  let body;
  try {
    body = webhook.verify(request.body, request.headers);
  } catch {
    response.sendStatus(401);
    return;
  }
  store(request.headers["webhook-id"], body);
  response.sendStatus(204);
});

const port = Number(process.env.PORT ?? 8080);
const server = app.listen(port, process.env.HOST ?? "127.0.0.1", () => {
  console.log(`listening on port ${server.address().port}`);
});
